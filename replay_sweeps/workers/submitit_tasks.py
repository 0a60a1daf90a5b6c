"""Ranks that a launcher started: the tasks of one submitit job, on one node or several (Slurm)."""

import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.errors import LostRank
from replay_sweeps.files import write_atomically

STARTING = 600.0  # seconds that the tasks of a job may start apart


@dataclass(frozen=True)
class Task:
    """This process as one of the tasks of a job."""

    ranks: Ranks
    job: str

    def _file(self, meeting: Path) -> Path:
        return meeting / f"{self.job}.json"

    def host(self, meeting: Path) -> dist.TCPStore:
        """Rank 0: the store over which the tasks find each other; where it is, a file in the folder `meeting` says."""
        store = dist.TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
        host = platform.node() if self.ranks.nodes > 1 else "127.0.0.1"
        write_atomically(self._file(meeting), json.dumps([host, store.port]).encode())
        return store

    def address(self, meeting: Path) -> tuple[str, int] | None:
        """Where rank 0 is; None where it has left. Raises LostRank where it says neither."""
        began = time.monotonic()
        while time.monotonic() - began < STARTING:
            try:
                said = json.loads(self._file(meeting).read_text())
                return (said[0], said[1]) if said else None
            except FileNotFoundError:
                time.sleep(0.2)
        raise LostRank(f"rank 0 of job {self.job} did not say where it is within {STARTING:.0f} seconds")

    def gone(self, meeting: Path) -> None:
        """Rank 0 is not to be found any more."""
        self._file(meeting).unlink(missing_ok=True)

    def leave(self, meeting: Path) -> None:
        """Rank 0 has nothing to train, or nothing more: a task that still looks for it may end."""
        write_atomically(self._file(meeting), b"null")


def task() -> Task | None:
    """This process as one of several tasks of a submitit job; None where it is the only one, or in no job."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return None
    import submitit

    try:
        job = submitit.JobEnvironment()
    except RuntimeError:
        return None
    if job.num_tasks == 1:
        return None
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return Task(Ranks(job.global_rank, job.num_tasks, job.local_rank, job.num_nodes), f"{job.job_id}-{restart}")
