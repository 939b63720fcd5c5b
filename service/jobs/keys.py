"""What jobs keep on Redis, under which key and for how long.

    proxy_grm:jobs:active             set of the jobs that have not ended
    proxy_grm:jobs:deadlines          sorted set: when each job is forgotten
    proxy_grm:job:{<tenant>:<id>}           hash: state, counts, times, source
    proxy_grm:job:{<tenant>:<id>}:chunks    stream: one entry a chunk that is not finished;
                                            its consumer group holds the leases
    proxy_grm:job:{<tenant>:<id>}:fences    hash: how often each of them was leased
    proxy_grm:job:{<tenant>:<id>}:lines:<n>     the chunk's lines, compressed
    proxy_grm:job:{<tenant>:<id>}:results:<n>   hash: results of a chunk in work, by line number
    proxy_grm:job:{<tenant>:<id>}:packed:<n>    results of a finished chunk, compressed
    proxy_grm:job:{<tenant>:<id>}:completed     list: finished chunks in the order of finishing

Lines go when their chunk is finished; stream and fences when the job ends. The rest is deleted
`jobs.retention_s` after the job's end, or `jobs.unfinished_s` after it came in when it never
ends; an upload that broke off, an hour after its last chunk. A worker does that: no key has an
expiry of its own, for Redis would evict those when its memory runs short, and a cache may be
lost where a result may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SCRIPTS = Path(__file__).parent / "scripts"

ACTIVE = "proxy_grm:jobs:active"
DEADLINES = "proxy_grm:jobs:deadlines"
GROUP = "workers"
SOURCE = -1
"""In the stream of a job that names a source: not a chunk, but reading that source."""


@dataclass(frozen=True, slots=True)
class JobKeys:
    """A job and the names of its keys. Braces keep them together on a Redis Cluster.

    Attributes:
        tenant: whose it is; another tenant cannot name it.
    """

    tenant: str
    id: str

    @property
    def member(self) -> str:
        """The job in the sets of all jobs."""
        return f"{self.id} {self.tenant}"

    @classmethod
    def of_member(cls, member: bytes) -> Self:
        """The job that a member of those sets names."""
        job_id, _, tenant = member.decode().partition(" ")
        return cls(tenant, job_id)

    @property
    def job(self) -> str:
        """State, counts, times."""
        return f"proxy_grm:job:{{{self.tenant}:{self.id}}}"

    @property
    def chunks(self) -> str:
        """The stream of what is to be done."""
        return f"{self.job}:chunks"

    @property
    def fences(self) -> str:
        """How often each chunk was leased."""
        return f"{self.job}:fences"

    @property
    def completed(self) -> str:
        """Finished chunks."""
        return f"{self.job}:completed"

    def lines(self, chunk: int) -> str:
        """What came in."""
        return f"{self.job}:lines:{chunk}"

    def results(self, chunk: int) -> str:
        """Results of a chunk in work."""
        return f"{self.job}:results:{chunk}"

    def packed(self, chunk: int) -> str:
        """Results of a finished chunk."""
        return f"{self.job}:packed:{chunk}"


def script(name: str) -> str:
    """The text of one of the Lua scripts beside this module; each runs as one step in Redis."""
    return (_SCRIPTS / f"{name}.lua").read_text()
