"""One worker process: the log and the progress it shows, the study it works on, the ranks that train with it."""

import json
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from replay_sweeps.errors import CannotGoOn, storage_problem
from replay_sweeps.interrupt import Interrupted, StopFlag
from replay_sweeps.plan.timing import measure
from replay_sweeps.progress import Progress
from replay_sweeps.store.leases import Lease, Leases
from replay_sweeps.store.status import Need
from replay_sweeps.tree.paths import Segment
from replay_sweeps.workers.rank_group import Group
from replay_sweeps.workers.rank_process import follow
from replay_sweeps.workers.submitit_tasks import task
from replay_sweeps.workers.worker import PathWorker, Pool
from replay_sweeps.workers.worker_context import Workplace
from replay_sweeps.workers.worker_log import logging_to

logger = logging.getLogger(__name__)


class Worker:
    """Works on a study until nothing is ready."""

    def __init__(self, file: Path, order: Mapping[str, Any], log: Path) -> None:
        self.place = Workplace(order)
        self.ledger = self.place.ledger
        self.group = Group(file, meeting(order))
        self.in_process = order["in_process"]  # of the command: it shows progress, and stops with it
        self.progress = Progress(len(self.place.runs)) if self.in_process else None
        self.stop = StopFlag()
        self._worker = PathWorker(
            self.ledger,
            Leases(self.place.store.folder, order["session"], log),
            self._train,
            self._scanned,
            Pool(order["workers"], order["fail_fast"], order["keep_states"]),
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
            finally:
                self.group.close()
                if self.progress:
                    self.progress.close()

    def measure(self) -> dict[str, Any]:
        """The seconds that steps, validation and the rest take here (see `sweep.measure`), or that it was stopped."""
        run, self.progress = self.ledger.runs[0], None
        target, _, _ = self.place.texts.of(run.config)
        with self.stop.listening():
            try:
                return {"timing": asdict(measure(run, target.report.tokens, self._train))}
            except Interrupted:
                if self.in_process:
                    raise
                return {"line": "the worker was asked to stop while it measured", "fatal": False}
            finally:
                self.group.close()

    def _scanned(self, needs: Sequence[Need | None]) -> None:
        if self.progress:
            self.progress.scanned(*self.ledger.progress(needs))

    def _train(self, work: Segment, lease: Lease) -> None:
        trainer = work.run.config.trainer
        tokens = trainer.tokens_per_step

        def stepped(step: int) -> None:
            lease.step = step
            if self.progress:
                self.progress.stepped(tokens)

        ranks = self.group.ready(trainer)
        try:
            with self.group.train(work, self.ledger):
                self.place.train(work, ranks, self.stop, stepped)
        except SystemExit as error:
            if self.stop.signal is None:
                raise
            raise Interrupted(self.stop.signal) from error


def meeting(order: Mapping[str, Any]) -> Path:
    """Where the tasks of a job find each other: a folder of each launch, since systems give numbers of jobs again."""
    return Path(order["output"]) / ".ranks" / str(order["session"])


def work(file: Path) -> dict[str, Any] | None:
    """Do what is ready in the study that a work file describes: None, or a line on what went wrong and whether the
    whole pool is concerned. Where the file asks to measure only, what was measured.

    Plain data goes back, whatever happens, since what a launcher cannot carry would cost a whole round; the store
    knows the rest.
    """
    order = json.loads(file.read_text())
    mine = task()
    if mine and not mine.ranks.is_rank_zero:
        if address := mine.address(meeting(order)):
            follow(str(file), mine.ranks, address, len(os.sched_getaffinity(0)))
        return None
    log = Path(order["output"]) / "logs" / f"{platform.node()}-{os.getpid()}.log"
    try:
        with logging_to(log):
            try:
                worker = Worker(file, order, log)
                if order["measure"]:
                    return worker.measure()
                worker.work()
            except CannotGoOn as error:
                return {"line": str(error), "fatal": True}
            except (Exception, SystemExit) as error:
                logger.debug("where the worker failed", exc_info=True)
                line = f"a worker on {platform.node()} failed: {type(error).__name__}: {error}".splitlines()[0]
                return {"line": f"{line} (see {log})", "fatal": False}
            finally:
                if mine:
                    mine.leave(meeting(order))
    except OSError as error:
        return {"line": storage_problem(error, log) or f"{log}: {error}", "fatal": True}
    return None
