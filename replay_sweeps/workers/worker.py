"""A worker: claims the next path of the tree that is ready, trains what the store lacks of it, until none is left."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from replay_sweeps.errors import CannotGoOn, DamagedFile, LostRank, storage_problem
from replay_sweeps.store.leases import Lease, Leases
from replay_sweeps.store.status import Keep, Ledger, Need
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.state_name import StateName

logger = logging.getLogger(__name__)

LAST_LINES = 20  # of a worker's log that are kept with a failure
MOST_ATTEMPTS = 3


@dataclass(frozen=True)
class Pool:
    """What a worker knows of the pool that it belongs to."""

    workers: int = 1  # as many as a round may have
    fail_fast: bool = False
    keep: Keep = "leaves"


def ready_paths(ledger: Ledger, needs: Sequence[Need | None]) -> list[tuple[int, Need]]:
    """The paths that can be trained and did not fail, the one with the most work behind it first."""
    ready = [(i, need) for i, need in enumerate(needs) if need and need.ready and not ledger.failed(i)]
    return sorted(ready, key=lambda item: -ledger.cost(*item))


class PathWorker:
    """Trains ready paths, the longest chain first, until none is left that no other worker holds.

    A path whose parent state turns out damaged is planned again. Why a path failed is noted in the store. A worker ends
    early where more paths are ready than workers are alive: the next round is wider.
    """

    def __init__(
        self,
        ledger: Ledger,
        leases: Leases,
        train: Callable[[Segment, Lease], None],
        on_scan: Callable[[Sequence[Need | None]], None] = lambda _: None,
        pool: Pool | None = None,
    ) -> None:
        self.ledger, self.leases, self.train, self.on_scan = ledger, leases, train, on_scan
        self.pool = pool or Pool()
        self.attempts: Counter[tuple[int, Need]] = Counter()
        self.trained = 0

    def work(self) -> None:
        """Raises Interrupted as training does, and CannotGoOn where the store cannot be written."""
        try:
            here = self.leases.register_worker()
            try:
                while self._next():
                    pass
            finally:
                here.release()
        except OSError as error:
            problem = storage_problem(error, self.ledger.store.folder)
            if problem is None:
                raise
            raise CannotGoOn(problem) from error

    def _next(self) -> bool:
        """Train one path; False when the worker's work is over."""
        needs = self.scan()
        ready = ready_paths(self.ledger, needs)
        if not ready or (self.pool.fail_fast and any(map(self.ledger.failed, range(len(needs))))):
            return False
        held = self.leases.held()
        free = [index for index, _ in ready if self.ledger.lease_name(index) not in held]
        if self.trained and min(self.pool.workers, len(free)) > self.leases.workers():
            return False
        for index in free:
            lease = self.leases.acquire(self.ledger.lease_name(index))
            if lease is not None:
                try:
                    self._work_on(index, lease)
                finally:
                    lease.release()
                return True
        return False

    def scan(self) -> list[Need | None]:
        """Look at the store, and drop what nothing waits for any more."""
        needs = self.ledger.needs()
        for state in self.ledger.spent(needs, self.pool.keep):
            self.ledger.store.drop_state(state)
        self.on_scan(needs)
        return needs

    def _work_on(self, index: int, lease: Lease) -> None:
        """Train a claimed path, if it is still to be trained."""
        need = self.ledger.needs()[index]
        if need is None or not need.ready or self.ledger.failed(index):
            return
        end, run = self.ledger.end(index), self.ledger.paths[index].run
        if lease.owner.lost_workers > 1 and lease.previous_owner:
            reason = "its worker was killed, twice (killed from outside, or by the system when memory ran out)"
            self.ledger.store.record_failure(end, reason, last_lines(lease.previous_owner.log))
            logger.error("run %s failed: %s", run.run_id, reason)
            return
        self.attempts[index, need] += 1
        work = Segment(
            run, need.start, need.stop, self.ledger.save_at(index, need), self.ledger.observe_at(index, need)
        )
        logger.debug("path %s: steps %d to %d of run %s", end.path, need.start, need.stop, run.run_id)
        try:
            if self.attempts[index, need] > MOST_ATTEMPTS:
                raise RuntimeError(
                    f"steps {need.start} to {need.stop} were trained three times and are not in the store"
                )
            self.train(work, lease)
            self.trained += 1
        except CannotGoOn:
            raise
        except DamagedFile as error:
            logger.warning("%s; it is trained again from the nearest state before it", error)
        except LostRank as error:
            if self.attempts[index, need] > 1:
                self._fail(end, run.run_id, f"{error}, twice")
            else:
                logger.warning("%s; what it was at is trained again from the last state that was saved", error)
        except (Exception, SystemExit) as error:
            if storage_problem(error, ""):
                raise
            logger.debug("where it failed", exc_info=True)
            self._fail(end, run.run_id, f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": "))

    def _fail(self, end: StateName, run_id: str, reason: str) -> None:
        logger.error("run %s failed: %s", run_id, reason)
        self.ledger.store.record_failure(end, reason, last_lines(self.leases.log))


def last_lines(log: Path | str | None) -> str:
    """The end of a log file; empty where there is none."""
    try:
        return "\n".join(Path(log).read_text(errors="replace").splitlines()[-LAST_LINES:]) if log else ""
    except OSError:
        return ""
