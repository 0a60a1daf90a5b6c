"""Rounds: as many workers as there are ready paths, through the configured launcher, until nothing is left."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from replay_sweeps.errors import CannotGoOn, storage_problem
from replay_sweeps.progress import Progress
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.status import Ledger, Need
from replay_sweeps.workers.worker import Pool, ready_paths

logger = logging.getLogger(__name__)

IDLE_ROUNDS = 3  # rounds without any progress after which the launcher is given up
Answer = dict[str, Any]  # what a worker says: a line, and whether it concerns all workers
LOOK_EVERY = 0.5  # seconds between looks at other workers' claims


class Rounds:
    """The sweeper's side of a pool: starts workers, waits for those of other commands, never trains itself."""

    def __init__(self, ledger: Ledger, leases: Leases, pool: Pool, start: Callable[[int], Sequence[Any]]) -> None:
        self.ledger, self.leases, self.pool = ledger, leases, pool
        self.start = start  # starts so many workers, waits for them, gives what they returned

    def run(self, progress: Progress | None) -> None:
        """Until every path is done, failed, or behind a failed one; at the first failure with `fail_fast`.

        Raises CannotGoOn when a worker could not write, or when workers end again and again without doing anything.
        """
        idle, before = 0, None
        while True:
            needs = self.ledger.needs()
            if progress:
                progress.scanned(*self.ledger.progress(needs))
            ready = ready_paths(self.ledger, needs)
            if not ready or (self.pool.fail_fast and any(map(self.ledger.failed, range(len(needs))))):
                return
            held = self.leases.held()
            free = sum(self.ledger.lease_name(index) not in held for index, _ in ready)
            if not free:
                time.sleep(LOOK_EVERY)
                continue
            idle = idle + 1 if needs == before else 0
            said = self._round(min(self.pool.workers, free), progress)
            before = needs
            if idle >= IDLE_ROUNDS or any(answer["fatal"] for answer in said):
                lines = dict.fromkeys(answer["line"] for answer in said)
                raise CannotGoOn(*(lines or ["the workers end without training anything: see the study's logs/"]))

    def _round(self, workers: int, progress: Progress | None) -> list[Answer]:
        """Start so many workers and wait for them: what they said, where they had to say something."""
        with _Watch(self.ledger, self.leases, progress):
            return answers(lambda: self.start(workers), self.ledger.store.folder)


def answers(start: Callable[[], Sequence[Any]], store: Path) -> list[Answer]:
    """What workers that a launcher starts and waits for said, where they had to say something; or why it failed."""
    try:
        return [answer for job in start() if (answer := _answer(job))]
    except Exception as error:  # whatever a launcher raises when a job is lost: the store tells what is done
        problem = storage_problem(error, store)
        line = problem or f"the launcher failed: {type(error).__name__}: {error}".splitlines()[0]
        logger.warning("%s", line)
        return [{"line": line, "fatal": bool(problem)}]


def _answer(job: Any) -> Answer | None:
    try:
        value = job.return_value
    except Exception as error:
        return {"line": f"a worker failed: {type(error).__name__}: {error}".splitlines()[0], "fatal": False}
    return value if isinstance(value, dict) else None


class _Watch:
    """Shows progress from the store and the claims while workers elsewhere do the work."""

    def __init__(self, ledger: Ledger, leases: Leases, progress: Progress | None) -> None:
        self.ledger, self.leases, self.progress = ledger, leases, progress
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watch")

    def __enter__(self) -> None:
        if self.progress:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.progress:
            self._thread.join()

    def _watch(self) -> None:
        assert self.progress
        pause = 1.0
        while not self._over.wait(pause):
            began = time.monotonic()
            needs = self.ledger.needs()
            runs, left = self.ledger.progress(needs)
            held = self.leases.held()
            left -= sum(self._ahead(index, need, held) for index, need in enumerate(needs) if need)
            self.progress.seen(runs, left, self._tokens_per_step())
            pause = max(1.0, 20 * (time.monotonic() - began))

    def _ahead(self, index: int, need: Need, held: dict[str, int]) -> int:
        step = held.get(self.ledger.lease_name(index), 0) if held else 0
        return max(0, min(step, need.stop) - need.start)

    def _tokens_per_step(self) -> int:
        trainer = self.ledger.runs[0].config.trainer
        return trainer.tokens_per_step
