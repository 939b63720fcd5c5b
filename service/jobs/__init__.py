"""Scoring by the million: lines wait on Redis, workers send them to a gateway, results are kept."""

from service.jobs.chunks import Line, chunked
from service.jobs.job_store import JobState, JobStatus, JobStore, ResultOrder
from service.jobs.watching import JobWatch

__all__ = ["JobState", "JobStatus", "JobStore", "JobWatch", "Line", "ResultOrder", "chunked"]
