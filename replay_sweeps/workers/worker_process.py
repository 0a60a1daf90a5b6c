"""One worker process: the log and the progress it shows, the study it works on, the ranks that train with it."""

import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from replay_sweeps.errors import CannotGoOn, storage_problem
from replay_sweeps.interrupt import Interrupted, StopFlag
from replay_sweeps.plan.timing import measure
from replay_sweeps.progress import Progress
from replay_sweeps.store.leases import Lease, Leases
from replay_sweeps.store.status import Missing, StudyStatus
from replay_sweeps.store.study_records import kept_for_others
from replay_sweeps.tree.paths import Segment
from replay_sweeps.workers.rank_group import RankGroup, TasksLost
from replay_sweeps.workers.rank_process import run_rank
from replay_sweeps.workers.submitit_tasks import current_task
from replay_sweeps.workers.work_order import WorkOrder
from replay_sweeps.workers.worker import PathWorker
from replay_sweeps.workers.worker_context import WorkerContext
from replay_sweeps.workers.worker_log import logging_to
from replay_sweeps.workers.worker_report import WorkerReport

logger = logging.getLogger(__name__)


class WorkerProcess:
    """Works on a study until nothing is ready."""

    def __init__(self, file: Path, order: WorkOrder, log: Path) -> None:
        self.context = WorkerContext(order)
        self.status = StudyStatus(self.context.tree, self.context.store)
        self.group = RankGroup(file, order.rendezvous)
        self.in_process = order.in_process  # of the command: it shows progress, and stops with it
        self.progress = Progress(len(order.runs)) if order.in_process else None
        self.stop = StopFlag()
        self._worker = PathWorker(
            self.status,
            Leases(order.store, order.session, log),
            self._train_leased,
            self._scanned,
            order.pool,
            lambda: kept_for_others(order.store, order.runs[0].study.name, order.output),
        )

    def work(self) -> None:
        """Train what is ready; when asked to stop, save the last whole step.

        Raises Interrupted in the command's own process; elsewhere it is this worker alone that was asked, and the next
        round goes on.
        """
        with self.stop.listening():
            try:
                self._worker.work()
            except Interrupted:
                if self.in_process:
                    raise
                logger.info("the worker was asked to stop; its last step is saved")
            except TasksLost as lost:
                logger.info("%s; the next round starts new ones", lost)
            finally:
                self.group.close()
                if self.progress:
                    self.progress.close()

    def measure(self) -> WorkerReport:
        """The seconds that steps, validation and the rest take here (see `plan.timing`), or that it was stopped."""
        run, self.progress = self.context.tree.runs[0], None
        target, _, _ = self.context.texts.of(run.config)
        with self.stop.listening():
            try:
                return WorkerReport(timing=measure(run, target.report.tokens, self._train))
            except Interrupted:
                if self.in_process:
                    raise
                return WorkerReport("the worker was asked to stop while it measured")
            finally:
                self.group.close()

    def _scanned(self, missing: Missing) -> None:
        if self.progress:
            self.progress.scanned(*self.status.progress(missing))

    def _train_leased(self, segment: Segment, lease: Lease) -> None:
        def note_step(step: int) -> None:
            lease.step = step

        self._train(segment, note_step)

    def _train(self, segment: Segment, on_step: Callable[[int], None]) -> None:
        def stepped(step: int) -> None:
            on_step(step)
            if self.progress:
                self.progress.stepped(segment.run.tokens_per_step)

        ranks = self.group.start_or_reuse(segment.run.config.trainer)
        try:
            with self.group.train(segment, self.context.tree):
                self.context.train(segment, ranks, self.stop, stepped)
        except SystemExit as error:
            if self.stop.signal is None:
                raise
            raise Interrupted(self.stop.signal) from error


def work(file: Path) -> dict[str, Any] | None:
    """Do what is ready in the study of a work order. Returns None on success, else a `WorkerReport` as JSON values.

    Plain data goes back, whatever happens, since what a launcher cannot carry would cost a whole round; the store
    knows the rest.
    """
    order = WorkOrder.read(file)
    this_task = current_task()
    if this_task and not this_task.ranks.is_rank_zero:
        if address := this_task.wait_for_address(order.rendezvous):
            run_rank(str(file), this_task.ranks, address, len(os.sched_getaffinity(0)))
        return None
    log = order.output / "logs" / f"{platform.node()}-{os.getpid()}.log"
    report = None
    try:
        with logging_to(log):
            try:
                report = _work(file, order, log)
            finally:
                if this_task:
                    this_task.write_no_more_work(order.rendezvous)
    except OSError as error:
        report = WorkerReport(storage_problem(error, log) or f"{log}: {error}", fatal=True)
    return report.to_json() if report else None


def _work(file: Path, order: WorkOrder, log: Path) -> WorkerReport | None:
    try:
        worker = WorkerProcess(file, order, log)
        if order.measure:
            return worker.measure()
        worker.work()
    except CannotGoOn as error:
        return WorkerReport(str(error), fatal=True)
    except (Exception, SystemExit) as error:
        logger.debug("where the worker failed", exc_info=True)
        line = f"a worker on {platform.node()} failed: {type(error).__name__}: {error}".splitlines()[0]
        return WorkerReport(f"{line} (see {log})")
    return None
