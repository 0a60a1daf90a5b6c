"""The pool of workers: rounds of as many as there are ready paths, through the launcher, until nothing is left."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from replay_sweeps.errors import CannotGoOn, storage_problem
from replay_sweeps.progress import Progress
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.status import MissingWork, StudyStatus
from replay_sweeps.workers.work_order import PoolSettings, WorkerReport
from replay_sweeps.workers.worker import ready_paths

logger = logging.getLogger(__name__)

IDLE_ROUNDS = 3  # rounds without any progress after which the launcher is given up
LOOK_EVERY = 0.5  # seconds between looks at other workers' leases


class WorkerPool:
    """The command's side of the pool: it starts workers, waits for those of other commands, and never trains itself."""

    def __init__(
        self, status: StudyStatus, leases: Leases, pool: PoolSettings, start: Callable[[int], Sequence[Any]]
    ) -> None:
        self.status, self.leases, self.pool = status, leases, pool
        self.start = start  # starts so many workers, waits for them, gives what they returned

    def run(self, progress: Progress | None) -> None:
        """Until every path is done, failed, or behind a failed one; at the first failure with `fail_fast`.

        Raises CannotGoOn when a worker could not write, or when workers end again and again without doing anything.
        """
        idle, before = 0, None
        while True:
            missing = self.status.missing()
            if progress:
                progress.scanned(*self.status.progress(missing))
            ready = ready_paths(self.status, missing)
            if not ready or (self.pool.fail_fast and any(map(self.status.failed, range(len(missing))))):
                return
            held = self.leases.held()
            free = sum(self.status.tree.lease_name(index) not in held for index, _ in ready)
            if not free:
                time.sleep(LOOK_EVERY)
                continue
            idle = idle + 1 if missing == before else 0
            reports = self.run_round(min(self.pool.workers, free), progress)
            before = missing
            if idle >= IDLE_ROUNDS or any(report.fatal for report in reports):
                lines = dict.fromkeys(report.line for report in reports if report.line)
                raise CannotGoOn(*(lines or ["the workers end without training anything: see the study's logs/"]))

    def run_round(self, workers: int, progress: Progress | None) -> list[WorkerReport]:
        """Start so many workers and wait for them."""
        with _ShownProgress(self.status, self.leases, progress):
            return reports_of(lambda: self.start(workers), self.status.store.folder)


def reports_of(start: Callable[[], Sequence[Any]], store: Path) -> list[WorkerReport]:
    """The reports of workers that a launcher starts and waits for, of those that had something to say; or why the
    launcher failed."""
    try:
        return [report for job in start() if (report := _report(job))]
    except Exception as error:  # whatever a launcher raises when a job is lost: the store tells what is done
        problem = storage_problem(error, store)
        line = problem or f"the launcher failed: {type(error).__name__}: {error}".splitlines()[0]
        logger.warning("%s", line)
        return [WorkerReport(line, fatal=bool(problem))]


def _report(job: Any) -> WorkerReport | None:
    try:
        value = job.return_value
    except Exception as error:
        return WorkerReport(f"a worker failed: {type(error).__name__}: {error}".splitlines()[0])
    return WorkerReport.from_json(value) if isinstance(value, dict) else None


class _ShownProgress:
    """Shows progress from the store and the leases while workers elsewhere do the work."""

    def __init__(self, status: StudyStatus, leases: Leases, progress: Progress | None) -> None:
        self.status, self.leases, self.progress = status, leases, progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True, name="progress")

    def __enter__(self) -> None:
        if self.progress:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.progress:
            self._thread.join()

    def _show(self) -> None:
        assert self.progress
        pause = 1.0
        while not self._over.wait(pause):
            began = time.monotonic()
            missing = self.status.missing()
            runs, left = self.status.progress(missing)
            held = self.leases.held()
            left -= sum(self._steps_ahead(index, work, held) for index, work in enumerate(missing) if work)
            self.progress.seen(runs, left, self.status.tree.runs[0].tokens_per_step)
            pause = max(1.0, 20 * (time.monotonic() - began))

    def _steps_ahead(self, index: int, work: MissingWork, held: dict[str, int]) -> int:
        """Steps that a worker has trained of a path since the state that was saved last."""
        step = held.get(self.status.tree.lease_name(index), 0) if held else 0
        return max(0, min(step, work.stop) - work.start)
