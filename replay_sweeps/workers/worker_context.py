"""What a process needs to train stretches of a study: its runs and paths, texts and states, and the engine it holds."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import build, plain_values
from replay_sweeps.data.study_texts import StudyTexts, find_texts
from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.errors import CannotGoOn
from replay_sweeps.files import fingerprint
from replay_sweeps.interrupt import StopFlag
from replay_sweeps.models.numerics import resolve
from replay_sweeps.store.states import Store
from replay_sweeps.store.status import Ledger
from replay_sweeps.training.engine import Engine
from replay_sweeps.training.segment import train_segment
from replay_sweeps.tree.layout import lay_out
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.planned_run import PlannedRun, initial_weights

_engines: dict[str, Engine] = {}  # of this process, at most one: what was compiled is not compiled again


class Workplace:
    """The study of a work file, as the leader and the other ranks see it alike. Raises CannotGoOn where they do not."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.runs = [build(RunConfig, run, []) for run in order["runs"]]
        folder = Path(order["store"])
        self.store = Store(folder)
        # text is made for the targets of the whole grid at once, of which a budget may have left some out
        texts = find_texts([build(RunConfig, run, []) for run in order["texts"]], folder)
        if texts is None:
            raise CannotGoOn(f"the text of the study is not in {folder}: start the study's command again")
        self.texts: StudyTexts = texts
        self.rates = order["rates"]
        self.ledger = Ledger(lay_out(self.runs, texts, self.rates).runs, self.store)
        keys = fingerprint([run.key(run.steps) for run in self.ledger.runs])
        if keys != order["keys"]:
            raise CannotGoOn(
                f"the worker on {platform.node()} would name states otherwise than the command that started it: "
                "use the same versions of torch and replay-sweeps and a C++ compiler on both, or trainer.compile=false"
            )
        self._stores = texts.stores()

    def train(
        self, work: Segment, ranks: Ranks, stop: StopFlag, on_step: Callable[[int], None] = lambda _: None
    ) -> None:
        """Train a stretch, together with the other ranks where there are any; raises as `train_segment` does."""
        engine = self._engine_for(work.run, ranks)
        try:
            train_segment(engine, work, self._stores, self.store, stop, on_step)
        except (MemoryError, torch.OutOfMemoryError):
            _engines.clear()
            raise

    def _engine_for(self, run: PlannedRun, ranks: Ranks) -> Engine:
        """The engine of a run's shape: kept while it is the one in use, since a model may fill the memory."""
        _, _, vocab_size = self.texts.of(run.config)
        numerics = resolve(run.config.trainer, run.config.model, self.rates)
        shape = {**initial_weights(run.config, vocab_size), "init_seed": None}
        name = fingerprint([shape, numerics, plain_values(vars(run.config.trainer))])
        if name not in _engines:
            _engines.clear()
            peak = self.rates[f"{numerics['precision']}_flops"]
            _engines[name] = Engine(run.config, vocab_size, numerics, peak, ranks)
        return _engines[name]


def forget_engines() -> None:
    """Let go of the engine that this process holds, as when the ranks that it trains with are gone."""
    _engines.clear()
