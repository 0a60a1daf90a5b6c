"""What a worker tells the command that started it: what went wrong, or what it measured.

worker_process.py makes it, pool.py reads it.
"""

from dataclasses import asdict, dataclass
from typing import Any

from replay_sweeps.plan.timing import Timing


@dataclass(frozen=True)
class WorkerReport:
    """What a worker has to say besides what the store tells: what went wrong, or what it measured."""

    line: str | None = None  # what went wrong
    fatal: bool = False  # whether that concerns all workers
    timing: Timing | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, which every launcher can carry."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "WorkerReport":
        """The report that `to_json` described."""
        timing = Timing(**values["timing"]) if values["timing"] else None
        return cls(values["line"], values["fatal"], timing)
