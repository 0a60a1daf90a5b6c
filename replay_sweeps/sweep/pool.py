"""One worker process: the engines it holds, the progress it shows, the study it works on."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from replay_sweeps.config import RunConfig, build
from replay_sweeps.errors import UserError
from replay_sweeps.files import fingerprint
from replay_sweeps.progress import Progress
from replay_sweeps.sweep.layout import lay_out
from replay_sweeps.sweep.plan import PlannedRun, initial_weights, plain_values
from replay_sweeps.sweep.store import Store
from replay_sweeps.sweep.texts import StudyTexts, find_texts
from replay_sweeps.sweep.worker import Ledger, Need, Work, work_until_done
from replay_sweeps.training.callbacks import StopFlag
from replay_sweeps.training.numerics import measured_rates, resolve
from replay_sweeps.training.segment import Engine

logger = logging.getLogger(__name__)

_engines: dict[str, Engine] = {}  # of this process, at most one: what was compiled is not compiled again


class Worker:
    """Works on a study until nothing is ready."""

    def __init__(self, runs: Sequence[RunConfig], store: Path) -> None:
        self.store = Store(store)
        texts = find_texts(runs, store)
        if texts is None:
            raise UserError(f"the text of the study is not in {store}: start the study's command again")
        self.texts: StudyTexts = texts
        self.rates = measured_rates(store)
        self.ledger = Ledger(lay_out(runs, texts, self.rates).runs, self.store)
        self.progress = Progress(len(runs))
        self.stop = StopFlag()
        self._stores = texts.stores()

    @classmethod
    def from_file(cls, file: Path) -> "Worker":
        """The worker that a work file asks for."""
        work = json.loads(file.read_text())
        return cls([build(RunConfig, run, []) for run in work["runs"]], Path(work["store"]))

    def work(self) -> None:
        """Train what is ready. Raises Interrupted, with the last whole step saved, on SIGINT and SIGTERM."""
        with self.stop.listening():
            try:
                work_until_done(self.ledger, self._train, self._scanned)
            finally:
                self.progress.close()

    def _scanned(self, needs: Sequence[Need | None]) -> None:
        unfinished = sum(
            sum(len(node.runs) for node in path.nodes)
            for path, need in zip(self.ledger.paths, needs, strict=True)
            if need
        )
        left = sum(need.stop - need.start for need in needs if need)
        self.progress.scanned(len(self.ledger.runs) - unfinished, left)

    def _train(self, work: Work) -> None:
        trainer = work.run.config.trainer
        engine = self._engine_for(work.run)
        step = trainer.batch_rows * trainer.row_length
        engine.train(work, self._stores, self.store, self.stop, lambda _: self.progress.stepped(step))

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
