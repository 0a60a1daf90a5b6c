"""One worker process: the engines it holds, the log and the progress it shows, the study it works on."""

import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from replay_sweeps.config import RunConfig
from replay_sweeps.errors import CannotGoOn, storage_problem
from replay_sweeps.files import fingerprint
from replay_sweeps.interrupt import Interrupted, StopFlag
from replay_sweeps.progress import Progress
from replay_sweeps.settings import build
from replay_sweeps.sweep.claims import Claim, Claims
from replay_sweeps.sweep.layout import lay_out
from replay_sweeps.sweep.ledger import Ledger, Need, Work
from replay_sweeps.sweep.plan import PlannedRun, initial_weights, plain_values
from replay_sweeps.sweep.store import Store
from replay_sweeps.sweep.texts import StudyTexts, find_texts
from replay_sweeps.sweep.worker import PathWorker, Pool
from replay_sweeps.training.numerics import resolve
from replay_sweeps.training.segment import Engine

logger = logging.getLogger(__name__)

_engines: dict[str, Engine] = {}  # of this process, at most one: what was compiled is not compiled again


class Worker:
    """Works on a study until nothing is ready."""

    def __init__(self, order: Mapping[str, Any], log: Path) -> None:
        runs = [build(RunConfig, run, []) for run in order["runs"]]
        folder = Path(order["store"])
        self.store = Store(folder)
        texts = find_texts(runs, folder)
        if texts is None:
            raise CannotGoOn(f"the text of the study is not in {folder}: start the study's command again")
        self.texts: StudyTexts = texts
        self.rates = order["rates"]
        self.ledger = Ledger(lay_out(runs, texts, self.rates).runs, self.store)
        keys = fingerprint([run.key(run.steps) for run in self.ledger.runs])
        if keys != order["keys"]:
            raise CannotGoOn(
                f"the worker on {platform.node()} would name states otherwise than the command that started it: "
                "use the same versions of torch and replay-sweeps and a C++ compiler on both, or trainer.compile=false"
            )
        self.in_process = order["in_process"]  # of the command: it shows progress, and stops with it
        self.progress = Progress(len(runs)) if self.in_process else None
        self.stop = StopFlag()
        self._stores = texts.stores()
        self._worker = PathWorker(
            self.ledger,
            Claims(folder, order["session"], log),
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
                if self.progress:
                    self.progress.close()

    def _scanned(self, needs: Sequence[Need | None]) -> None:
        if self.progress:
            self.progress.scanned(*self.ledger.progress(needs))

    def _train(self, work: Work, claim: Claim) -> None:
        trainer = work.run.config.trainer
        engine = self._engine_for(work.run)
        tokens = trainer.batch_rows * trainer.row_length

        def stepped(step: int) -> None:
            claim.step = step
            if self.progress:
                self.progress.stepped(tokens)

        try:
            engine.train(work, self._stores, self.store, self.stop, stepped)
        except (MemoryError, torch.OutOfMemoryError):
            _engines.clear()
            raise
        except SystemExit as error:
            if self.stop.signal is None:
                raise
            raise Interrupted(self.stop.signal) from error

    def _engine_for(self, run: PlannedRun) -> Engine:
        """The engine of a run's shape: kept while it is the one in use, since a model may fill the memory."""
        _, _, vocab_size = self.texts.of(run.config)
        numerics = resolve(run.config.trainer, self.rates)
        shape = {**initial_weights(run.config, vocab_size), "init_seed": None}
        name = fingerprint([shape, numerics, plain_values(vars(run.config.trainer))])
        if name not in _engines:
            _engines.clear()
            peak = self.rates[f"{numerics['precision']}_flops"]
            _engines[name] = Engine(run.config, vocab_size, numerics, peak)
        return _engines[name]


def work(file: Path) -> dict[str, Any] | None:
    """Do what is ready in the study that a work file describes: None, or a line on what went wrong and whether the
    whole pool is concerned.

    Plain data goes back, whatever happens, since what a launcher cannot carry would cost a whole round; the store
    knows the rest.
    """
    order = json.loads(file.read_text())
    log = Path(order["output"]) / "logs" / f"{platform.node()}-{os.getpid()}.log"
    try:
        with _logging_to(log):
            try:
                Worker(order, log).work()
            except CannotGoOn as error:
                return {"line": str(error), "fatal": True}
            except (Exception, SystemExit) as error:
                logger.debug("where the worker failed", exc_info=True)
                line = f"a worker on {platform.node()} failed: {type(error).__name__}: {error}".splitlines()[0]
                return {"line": f"{line} (see {log})", "fatal": False}
    except OSError as error:
        return {"line": storage_problem(error, log) or f"{log}: {error}", "fatal": True}
    return None


@contextmanager
def _logging_to(log: Path) -> Iterator[None]:
    """Also log, in all detail, to a file: its last lines are kept with a failure, even of a process that is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = logging.getLogger("replay_sweeps")
    level, others = ours.level, [handler for handler in ours.handlers if handler.level == logging.NOTSET]
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for other in others:
        other.setLevel(level)
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        for other in others:
            other.setLevel(logging.NOTSET)
        handler.close()
