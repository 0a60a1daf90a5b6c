"""What the command tells a worker: the study that it works on, as a JSON file."""

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import build, plain_values
from replay_sweeps.files import fingerprint, write_atomically
from replay_sweeps.store.retention import Keep
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.tree.study_plan import StudyPlan


@dataclass(frozen=True)
class PoolSettings:
    """How the workers of a study work together."""

    workers: int = 1  # as many as a round may have
    fail_fast: bool = False  # stop at the first run that fails
    keep: Keep = "leaves"  # trained states that stay when nothing waits for them


@dataclass(frozen=True)
class WorkOrder:
    """The study that a worker works on. Paths are absolute, so that a worker may start anywhere."""

    store: Path
    output: Path
    session: str  # one name for each command that starts workers
    in_process: bool  # whether the one worker is the command itself
    measure: bool  # time a few steps instead of working
    pool: PoolSettings
    rates: dict[str, Any]  # of the machine that started the command
    keys: str  # hash of the keys of all runs: both sides must name states alike
    runs: tuple[RunConfig, ...]
    text_runs: tuple[RunConfig, ...]  # runs that together name all of the study's text

    @classmethod
    def of(cls, plan: StudyPlan, measure: bool = False) -> "WorkOrder":
        """The order for workers that train the runs of a plan, or that measure them."""
        study, first = plan.study, plan.study.runs[0]
        assert plan.texts is not None and plan.rates is not None
        return cls(
            store=study.store.absolute(),
            output=study.output.absolute(),
            session=uuid.uuid4().hex,
            in_process=study.in_process,
            measure=measure,
            pool=PoolSettings(study.workers, first.fail_fast, first.keep_states),
            rates=dict(plan.rates),
            keys=keys_fingerprint(plan.runs),
            runs=study.runs,
            text_runs=plan.texts.runs,
        )

    @property
    def rendezvous(self) -> Path:
        """Where the tasks of a job find each other: a folder of each launch, since systems give job numbers again."""
        return self.output / ".ranks" / self.session

    def write(self, file: Path) -> None:
        """Write the order as JSON."""
        values = {**vars(self), "store": str(self.store), "output": str(self.output), "pool": asdict(self.pool)}
        for name in ("runs", "text_runs"):
            values[name] = [plain_values(asdict(run)) for run in values[name]]
        write_atomically(file, json.dumps(values).encode())

    @classmethod
    def read(cls, file: Path) -> "WorkOrder":
        """The order that `write` wrote."""
        values = json.loads(file.read_text())
        for name in ("runs", "text_runs"):
            values[name] = tuple(build(RunConfig, run, []) for run in values[name])
        for name in ("store", "output"):
            values[name] = Path(values[name])
        return cls(**{**values, "pool": PoolSettings(**values["pool"])})


def keys_fingerprint(runs: tuple[PlannedRun, ...]) -> str:
    """A hash of the names of the last states of all runs."""
    return fingerprint([run.key(run.steps) for run in runs])
