"""The client against the real service: what one writes, the other reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry
from proxy_grm_client import (
    AsyncClient,
    ContextExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    FailedLine,
    ImageRejected,
    InvalidRequest,
    JobAccepted,
    JobStatus,
    Judgement,
    NotFound,
    PayloadTooLarge,
    Ranking,
    Run,
    Verification,
    WrittenRubric,
)
from proxy_grm_client.calls import (
    BatchLine,
    Depth,
    Order,
    RankOptions,
    RubricOptions,
    ScoreOptions,
    VerifyOptions,
)
from proxy_grm_client.errors import BY_CODE
from pydantic import BaseModel, SecretStr

from service.api import schemas
from service.api.errors import STATUSES
from service.app import Engines, create_app
from service.engines.on_demand import OnDemandEngine
from service.engines.scripted import ScriptedEngine
from service.metrics import Metrics
from service.settings import Settings

NDJSON = None
SPOKEN: dict[tuple[str, str], type[BaseModel] | None] = {
    ("/score", "post"): Judgement,
    ("/score/batch", "post"): NDJSON,
    ("/rubric", "post"): WrittenRubric,
    ("/verify", "post"): Verification,
    ("/rank", "post"): Ranking,
    ("/jobs", "post"): JobAccepted,
    ("/runs/{run_id}", "get"): Run,
    ("/jobs/{job_id}", "get"): JobStatus,
    ("/jobs/{job_id}", "delete"): JobStatus,
    ("/jobs/{job_id}/results", "get"): NDJSON,
}
FOR_OPERATORS = {"/evaluators", "/releases", "/livez", "/readyz", "/metrics"}
TAKEN: dict[str, set[str]] = {
    "/score": {"question", "responses", "images"} | ScoreOptions.__optional_keys__,
    "/score/batch": set(BatchLine.__annotations__),
    "/rubric": {"question", "responses", "images"} | RubricOptions.__optional_keys__,
    "/verify": {"question", "responses", "images", "rubric"} | VerifyOptions.__optional_keys__,
    "/rank": {"question", "responses", "images"} | RankOptions.__optional_keys__,
    "/jobs": set(BatchLine.__annotations__),
}
RESPONSES = ["There is one.", "There are two."]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What the service says of itself."""
    app = create_app(
        Settings(engine="scripted"),
        engines=Engines(ScriptedEngine()),
        metrics=Metrics(CollectorRegistry()),
    )
    return app.openapi()


def shape(schema: dict[str, Any], defined: dict[str, Any]) -> Any:
    """Names of fields, and those of what they hold, however deep; the rest is left out."""
    if "$ref" in schema:
        return shape(defined[schema["$ref"].rpartition("/")[2]], defined)
    if "properties" in schema:
        return {name: shape(part, defined) for name, part in schema["properties"].items()}
    parts = schema.get("anyOf", [schema["items"]] if "items" in schema else [])
    found = [inner for part in parts if (inner := shape(part, defined)) is not None]
    return found[0] if found else None


def shape_of(model: type[BaseModel]) -> Any:
    """Of what the client reads."""
    schema = model.model_json_schema(mode="serialization")
    return shape(schema, schema.get("$defs", {}))


def test_document_client_and_error_codes_say_the_same(document: dict[str, Any]):
    defined = document["components"]["schemas"]
    routes = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert {route for route in routes if route[0] not in FOR_OPERATORS} == set(SPOKEN)
    for (path, method), read in SPOKEN.items():
        operation = document["paths"][path][method]
        problem = operation["responses"].pop("default")["content"]["application/problem+json"]
        assert problem["schema"]["$ref"].endswith("/Problem")
        [content] = [said["content"] for said in operation["responses"].values()]
        if read is NDJSON:
            assert list(content) == ["application/x-ndjson"], path
        else:
            assert shape(content["application/json"]["schema"], defined) == shape_of(read), path
        if method == "post":
            bodies = operation["requestBody"]["content"]
            body = bodies.get("application/x-ndjson") or bodies["application/json"]
            assert set(shape(body["schema"], defined)) == TAKEN[path], path
    score = defined["ScoreRequest"]["properties"]
    assert score["order"]["enum"] == list(get_args(Order))
    assert score["depth"]["enum"] == list(get_args(Depth))
    codes = set(defined["Problem"]["properties"]["code"]["enum"])
    assert codes == set(BY_CODE) == {kind.code for kind in STATUSES}
    assert set(shape(defined["LineError"], defined)) == {"id", "line", "error"}


@pytest.fixture(scope="module")
async def engine(scripted: Callable[[], ScriptedEngine]) -> ScriptedEngine:
    return scripted()


@pytest.fixture(scope="module")
async def client(
    engine: ScriptedEngine,
    scripted: Callable[[], ScriptedEngine],
    paired_release: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AsyncClient]:
    nowhere = f"unix://{tmp_path_factory.mktemp('r')}/no.socket"
    app = create_app(
        Settings(engine="scripted", redis_url=SecretStr(nowhere), release=paired_release),
        engines=Engines(engine, OnDemandEngine(scripted())),
        metrics=Metrics(CollectorRegistry()),
    )
    async with (
        app.router.lifespan_context(app),
        AsyncClient("http://grm", transport=httpx.ASGITransport(app), timeout_s=20) as opened,
    ):
        yield opened


@pytest.mark.anyio
async def test_a_judgement_is_read_whole(client: AsyncClient, tmp_path: Path):
    file = tmp_path / "cat.jpg"
    Image.new("RGB", (64, 48), "teal").save(file)
    judgement = await client.score(
        "How many?", RESPONSES, [file, Image.open(file), file.read_bytes()], id="mine", order="both"
    )
    assert (judgement.id, judgement.status) == ("mine", "ok")
    assert judgement.preferred in (1, 2)
    assert judgement.probability is not None
    assert [verdict.order for verdict in judgement.verdicts] == ["given", "swapped"]
    assert judgement.order_consistent in (True, False)
    assert judgement.rubric is not None
    assert [criterion.name for criterion in judgement.rubric.criteria] == ["Accuracy", "Relevance"]
    assert judgement.release.purpose == "demo"
    assert judgement.timing.total_s >= judgement.timing.engine_s
    assert judgement.model_extra == {}


@pytest.mark.anyio
@pytest.mark.parametrize("question", ["How many?", "unreadable"])
async def test_what_the_service_answers_is_what_the_client_reads(
    question: str, client: AsyncClient
):
    judgement = await client.score(question, RESPONSES)
    answer = schemas.ScoreAnswer.model_validate(judgement.model_dump())
    assert answer.model_dump(mode="json") == judgement.model_dump(mode="json")
    asked = await client.score(question, RESPONSES, evaluators=["self", "proxy"])
    answer = schemas.ScoreAnswer.model_validate(asked.model_dump())
    assert answer.model_dump(mode="json") == asked.model_dump(mode="json")
    written = await client.rubric(question, RESPONSES)
    rubric = schemas.RubricAnswer.model_validate(written.model_dump())
    assert rubric.model_dump(mode="json") == written.model_dump(mode="json")
    verified = await client.verify(question, RESPONSES, rubric="1. Count (100%)", label=1)
    opinion = schemas.VerifyAnswer.model_validate(verified.model_dump())
    assert opinion.model_dump(mode="json") == verified.model_dump(mode="json")
    three = [*RESPONSES, "There are three."]
    ranked = await client.rank(question, three, evaluators=["self", "proxy"])
    ranking = schemas.RankAnswer.model_validate(ranked.model_dump())
    assert ranking.model_dump(mode="json") == ranked.model_dump(mode="json")


@pytest.mark.anyio
async def test_an_abstention_is_read_as_one(client: AsyncClient):
    judgement = await client.score("unreadable", RESPONSES)
    assert (judgement.status, judgement.reason) == ("abstain", "unreadable")
    assert (judgement.preferred, judgement.probability) == (None, None)
    written = await client.rubric("unreadable", RESPONSES)
    assert (written.status, written.rubric) == ("abstain", None)
    verified = await client.verify("unreadable", RESPONSES, rubric="1. Count (100%)", label=1)
    assert (verified.status, verified.reason) == ("abstain", "unreadable")
    assert (verified.preferred, verified.probability, verified.reward) == (None, None, None)


@pytest.mark.anyio
async def test_a_verification_says_whether_the_proxy_agrees_with_the_label(client: AsyncClient):
    written = await client.rubric("How many?", RESPONSES)
    assert written.rubric is not None
    plain, right, wrong = [
        await client.verify("How many?", RESPONSES, rubric=written.rubric, **label)
        for label in ({}, {"label": 1}, {"label": 2})
    ]
    assert plain.preferred in (1, 2)
    assert plain.reward is None
    assert {right.reward, wrong.reward} == {1.0, -1.0}
    assert right.reward == (1.0 if plain.preferred == 1 else -1.0)
    with pytest.raises(NotFound):
        await client.verify("How many?", RESPONSES, rubric=written.rubric, evaluator="nobody")


@pytest.mark.anyio
async def test_a_ranking_is_read_whole(client: AsyncClient):
    ranking = await client.rank("How many?", [*RESPONSES, "There are three."], seed=3, budget=3)
    assert sorted(ranking.ranking) == [0, 1, 2]
    assert [score.index for score in ranking.scores] == [0, 1, 2]
    assert sum(score.reward for score in ranking.scores) == pytest.approx(0)
    assert ranking.spent.comparisons == len(ranking.comparisons) == 3
    none = await client.rank("unreadable", RESPONSES)
    assert (none.status, none.reason, none.ranking, none.scores) == (
        "abstain",
        "unreadable",
        (),
        (),
    )


@pytest.mark.anyio
async def test_a_batch_is_read_whole(client: AsyncClient):
    lines = [
        {"id": "good", "question": "How many?", "responses": RESPONSES},
        {"id": "shrugs", "question": "unreadable", "responses": RESPONSES},
        {"id": "blank", "question": "How many?", "responses": ["One.", " "]},
        {"id": "long", "question": "too long", "responses": RESPONSES},
    ]
    results = {result.id: result async for result in client.batch(lines, depth="verdict")}
    found = {name: result.status for name, result in results.items()}
    assert found == {"good": "ok", "shrugs": "abstain", "blank": "error", "long": "error"}
    good, blank, long = (results[name] for name in ("good", "blank", "long"))
    assert isinstance(good, Judgement)
    assert good.evaluation is None
    assert isinstance(blank, FailedLine)
    assert isinstance(long, FailedLine)
    assert (type(blank.error), blank.line) == (InvalidRequest, 3)
    assert type(long.error) is ContextExceeded


@pytest.mark.anyio
async def test_a_written_rubric_can_be_given_back(client: AsyncClient):
    written = await client.rubric("How many?", RESPONSES)
    assert written.rubric is not None
    judgement = await client.score("How many?", RESPONSES, rubric=written.rubric, depth="verdict")
    assert judgement.rubric is not None
    assert judgement.rubric.id == written.rubric.id


@pytest.mark.anyio
async def test_every_error_arrives_as_its_class_with_its_request_id(client: AsyncClient):
    wrong = [
        (InvalidRequest, {"responses": ["One."]}),
        (InvalidRequest, {"order": "sideways"}),
        (ImageRejected, {"images": [b"no picture"]}),
        (PayloadTooLarge, {"responses": ["x" * 1_000_001, "Two."]}),
        (NotFound, {"evaluators": ["nobody"]}),
        (ContextExceeded, {"question": "too long"}),
    ]
    for kind, changes in wrong:
        asked = {"question": "How many?", "responses": RESPONSES} | changes
        with pytest.raises(kind) as raised:
            await client.score(**asked)  # pyright: ignore[reportArgumentType]
        assert raised.value.request_id is not None
        assert raised.value.request_id.startswith("req_")


@pytest.mark.anyio
async def test_an_engine_that_comes_back_in_time_is_waited_for_and_one_that_does_not_is_told(
    client: AsyncClient, engine: ScriptedEngine
):
    engine.fail()
    with pytest.raises(EngineUnavailable):
        await client.score("How many?", RESPONSES, timeout_s=1)
    await engine.start()
    assert (await client.score("How many?", RESPONSES)).status == "ok"


@pytest.mark.anyio
async def test_a_late_judgement_is_a_deadline(client: AsyncClient):
    with pytest.raises(DeadlineExceeded, match=r"no judgement within 1e-06 s"):
        await client.score("How many?", RESPONSES, timeout_s=1e-6)
