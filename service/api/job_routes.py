"""``POST /jobs`` and what can be asked of one: how it goes, its results, its end.

A job's lines are kept as they arrive, a chunk at a time: neither this process nor a worker ever
holds more of it than that.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from service.api.gateway import Gateway, gateway_of
from service.api.intake import read, uploaded
from service.api.openapi import takes
from service.api.schemas import JobAccepted, JobAnswer, JobRequest, ScoreRequest
from service.errors import InvalidRequest
from service.jobs import JobStatus, ResultOrder, chunked
from service.jobs.sources import open_source
from service.tenancy import current_tenant

router = APIRouter(tags=["jobs"])

_NDJSON = "application/x-ndjson"
_MOST_REQUEST_BYTES = 64 * 1024


@router.post(
    "/jobs",
    status_code=202,
    openapi_extra=takes(ScoreRequest, _NDJSON, {"application/json": JobRequest}),
)
async def start(request: Request) -> JobAccepted:
    """Many comparisons, scored by workers: one `/score` body a line, or `{"source": url}`.

    A bad line costs that line alone. Nothing is scored before an upload is complete; a source is
    read while its lines are scored.
    """
    gateway = gateway_of(request)
    gateway.admission.check()
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent == _NDJSON:
        with gateway.bodies.upload():
            return JobAccepted.model_validate(await _uploaded_job(request, gateway))
    if sent == "application/json":
        return JobAccepted.model_validate(await _job_of_source(request, gateway))
    raise InvalidRequest(f"a job is sent as {_NDJSON}, or as application/json naming a source")


@router.get("/jobs/{job_id}")
async def status(request: Request, job_id: str) -> JobAnswer:
    """How far a job has come, and how long it will take."""
    return JobAnswer.of(await gateway_of(request).jobs.status(job_id, current_tenant()))


@router.get(
    "/jobs/{job_id}/results",
    response_class=StreamingResponse,
    responses={200: {"content": {_NDJSON: {}}}},
)
async def results(request: Request, job_id: str, order: ResultOrder = "input") -> StreamingResponse:
    """A line of NDJSON for each of the job's: a `/score` answer or an `error`, with its `line`.

    The answer goes on until the job has ended: one that ends is complete. `order=completed`
    gives chunks of lines as they are finished. Of a cancelled job it is what was finished.
    """
    jobs = gateway_of(request).jobs
    tenant = current_tenant()
    found = jobs.results(await jobs.status(job_id, tenant), order, tenant)
    return StreamingResponse(found, media_type=_NDJSON)


@router.delete("/jobs/{job_id}")
async def cancel(request: Request, job_id: str) -> JobAnswer:
    """Cancels a job and stops what is being done of it; one that has ended stays as it is."""
    return JobAnswer.of(await gateway_of(request).jobs.cancel(job_id, current_tenant()))


async def _job_of_source(request: Request, gateway: Gateway) -> JobStatus:
    asked = await read(request, JobRequest.model_validate_json, _MOST_REQUEST_BYTES)
    # A worker opens it again and reads it; here the caller is told at once what is wrong with it.
    opened = await asyncio.to_thread(open_source, asked.source, gateway.settings.job_sources)
    await asyncio.to_thread(opened.file.close)
    return await gateway.jobs.open(asked.source, current_tenant())


async def _uploaded_job(request: Request, gateway: Gateway) -> JobStatus:
    limits, jobs = gateway.settings.limits, gateway.jobs
    keys = await jobs.create(current_tenant())
    most = {"line_bytes": limits.body_bytes, "most_bytes": limits.batch_bytes}
    most["most_lines"] = gateway.settings.jobs.lines
    lines = number = 0
    try:
        async with (
            aclosing(uploaded(request)) as pieces,
            aclosing(chunked(pieces, **most)) as chunks,
        ):
            async for chunk in chunks:
                await jobs.add(keys, number, chunk)
                lines, number = lines + len(chunk), number + 1
        return await jobs.publish(keys, lines, number)
    except BaseException:
        await asyncio.shield(jobs.discard(keys))
        raise
