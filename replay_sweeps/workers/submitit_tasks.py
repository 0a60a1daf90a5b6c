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

START_TIMEOUT = 600.0  # seconds within which all tasks of a job have started


@dataclass(frozen=True)
class SubmititTask:
    """This process as one of the tasks of a job.

    The tasks find rank 0 by a file in the rendezvous folder: it holds the address of rank 0's store, or null when rank
    0 trains nothing (more).
    """

    ranks: Ranks
    job: str

    def _address_file(self, rendezvous: Path) -> Path:
        return rendezvous / f"{self.job}.json"

    def start_store(self, rendezvous: Path) -> dist.TCPStore:
        """On rank 0: start the store through which the tasks meet, and write its address."""
        store = dist.TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
        host = platform.node() if self.ranks.nodes > 1 else "127.0.0.1"
        write_atomically(self._address_file(rendezvous), json.dumps([host, store.port]).encode())
        return store

    def wait_for_address(self, rendezvous: Path) -> tuple[str, int] | None:
        """On another rank: the address of rank 0's store; None where rank 0 trains nothing (more).

        Raises LostRank where rank 0 writes neither within START_TIMEOUT.
        """
        began = time.monotonic()
        while time.monotonic() - began < START_TIMEOUT:
            try:
                address = json.loads(self._address_file(rendezvous).read_text())
                return (address[0], address[1]) if address else None
            except FileNotFoundError:
                time.sleep(0.2)
        raise LostRank(f"rank 0 of job {self.job} did not say where it is within {START_TIMEOUT:.0f} seconds")

    def remove_address(self, rendezvous: Path) -> None:
        """On rank 0: the group has ended, its address leads nowhere."""
        self._address_file(rendezvous).unlink(missing_ok=True)

    def write_no_more_work(self, rendezvous: Path) -> None:
        """On rank 0: let a task that still waits for an address end."""
        write_atomically(self._address_file(rendezvous), b"null")


def current_task() -> SubmititTask | None:
    """This process as one of several tasks of a submitit job; None where it is the only task, or in no job."""
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
    return SubmititTask(Ranks(job.global_rank, job.num_tasks, job.local_rank, job.num_nodes), f"{job.job_id}-{restart}")
