"""A worker: leases the next path of the tree that is ready, trains what the store lacks of it, until none is left."""

import logging
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path

from replay_sweeps.errors import CannotGoOn, DamagedFile, LostRank, storage_problem
from replay_sweeps.store.leases import Lease, Leases
from replay_sweeps.store.retention import drop_unneeded
from replay_sweeps.store.status import Missing, MissingWork, StudyStatus
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.state_name import StateName
from replay_sweeps.workers.work_order import PoolSettings

logger = logging.getLogger(__name__)

LAST_LINES = 20  # of a worker's log that are kept with a failure
MOST_ATTEMPTS = 3


def ready_paths(status: StudyStatus, missing: Missing) -> list[tuple[int, MissingWork]]:
    """The paths that can be trained and did not fail, the one with the most operations left first.

    The path with the most work left decides the total time, so it comes first.
    """
    ready = [(index, work) for index, work in enumerate(missing) if work and work.ready and not status.failed(index)]
    return sorted(
        ready, key=lambda item: -status.tree.paths[item[0]].run.flops_per_step * (item[1].stop - item[1].start)
    )


class PathWorker:
    """Trains ready paths, the longest chain first, until none is left that no other worker holds.

    A path whose parent state turns out damaged is planned again. Why a path failed is noted in the store. A worker ends
    early where more paths are ready than workers are alive: the next round is wider.
    """

    def __init__(
        self,
        status: StudyStatus,
        leases: Leases,
        train: Callable[[Segment, Lease], None],
        on_scan: Callable[[Missing], None] = lambda _: None,
        pool: PoolSettings | None = None,
        kept_for_others: Callable[[], Container[str] | None] = frozenset,
    ) -> None:
        self.status, self.tree, self.leases = status, status.tree, leases
        self.train, self.on_scan = train, on_scan
        self.pool, self.kept_for_others = pool or PoolSettings(), kept_for_others
        self.attempts: Counter[tuple[int, MissingWork]] = Counter()
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
            problem = storage_problem(error, self.status.store.folder)
            if problem is None:
                raise
            raise CannotGoOn(problem) from error

    def _next(self) -> bool:
        """Train one path; False when the worker's work is over."""
        missing = self.scan()
        ready = ready_paths(self.status, missing)
        if not ready or (self.pool.fail_fast and any(map(self.status.failed, range(len(missing))))):
            return False
        held = self.leases.held()
        free = [index for index, _ in ready if self.tree.lease_name(index) not in held]
        if self.trained and min(self.pool.workers, len(free)) > self.leases.workers():
            return False
        for index in free:
            lease = self.leases.acquire(self.tree.lease_name(index))
            if lease is not None:
                try:
                    self._work_on(index, lease)
                finally:
                    lease.release()
                return True
        return False

    def scan(self) -> Missing:
        """Look at the store, and drop what nothing waits for any more."""
        missing = self.status.missing()
        drop_unneeded(self.status, missing, self.pool.keep, self.kept_for_others)
        self.on_scan(missing)
        return missing

    def _work_on(self, index: int, lease: Lease) -> None:
        """Train a leased path, if it is still to be trained."""
        work = self.status.missing()[index]
        if work is None or not work.ready or self.status.failed(index):
            return
        end, run = self.tree.end(index), self.tree.paths[index].run
        if lease.owner.lost_workers > 1 and lease.previous_owner:
            reason = "its worker was killed, twice (killed from outside, or by the system when memory ran out)"
            self.status.store.record_failure(end, reason, last_lines(lease.previous_owner.log))
            logger.error("run %s failed: %s", run.run_id, reason)
            return
        self.attempts[index, work] += 1
        logger.debug("path %s: steps %d to %d of run %s", end.path, work.start, work.stop, run.run_id)
        try:
            if self.attempts[index, work] > MOST_ATTEMPTS:
                raise RuntimeError(
                    f"steps {work.start} to {work.stop} were trained three times and are not in the store"
                )
            self.train(self.status.segment(index, work), lease)
            self.trained += 1
        except CannotGoOn:
            raise
        except DamagedFile as error:
            logger.warning("%s; it is trained again from the nearest state before it", error)
        except LostRank as error:
            if self.attempts[index, work] > 1:
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
        self.status.store.record_failure(end, reason, last_lines(self.leases.log))


def last_lines(log: Path | str | None) -> str:
    """The end of a log file; empty where there is none."""
    try:
        return "\n".join(Path(log).read_text(errors="replace").splitlines()[-LAST_LINES:]) if log else ""
    except OSError:
        return ""
