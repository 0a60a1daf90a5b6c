"""What a process has in hand to train segments of a study: its runs and their tree, texts, store, and the engine."""

import platform
from collections.abc import Callable

import torch

from replay_sweeps.config_builder import plain_values
from replay_sweeps.data.study_texts import find_texts
from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.errors import CannotGoOn
from replay_sweeps.files import fingerprint
from replay_sweeps.interrupt import StopFlag
from replay_sweeps.store.states import Store
from replay_sweeps.training.engine import Engine
from replay_sweeps.training.segment import train_segment
from replay_sweeps.tree.paths import Segment, StudyTree
from replay_sweeps.tree.planned_run import PlannedRun, initial_weights
from replay_sweeps.tree.study_plan import plan_runs
from replay_sweeps.workers.work_order import WorkOrder, keys_fingerprint

_engines: dict[str, Engine] = {}  # of this process, at most one: what was compiled is not compiled again


class WorkerContext:
    """The study of a work order, as rank 0 and the other ranks see it alike. Raises CannotGoOn where they do not."""

    def __init__(self, order: WorkOrder) -> None:
        self.order = order
        self.store = Store(order.store)
        # text is made for the targets of the whole grid at once, of which a budget may have left some out
        texts = find_texts(order.text_runs, order.store)
        if texts is None:
            raise CannotGoOn(f"the text of the study is not in {order.store}: start the study's command again")
        self.texts = texts
        self.tree = StudyTree(plan_runs(order.runs, texts, order.rates))
        if keys_fingerprint(self.tree.runs) != order.keys:
            raise CannotGoOn(
                f"the worker on {platform.node()} would name states otherwise than the command that started it: "
                "use the same versions of torch and replay-sweeps and a C++ compiler on both, or trainer.compile=false"
            )
        self._token_stores = texts.stores()

    def train(
        self, segment: Segment, ranks: Ranks, stop: StopFlag, on_step: Callable[[int], None] = lambda _: None
    ) -> None:
        """Train a segment, together with the other ranks where there are any; raises as `train_segment` does."""
        engine = self._engine_for(segment.run, ranks)
        try:
            train_segment(engine, segment, self._token_stores, self.store, stop, on_step)
        except (MemoryError, torch.OutOfMemoryError):
            _engines.clear()
            raise

    def _engine_for(self, run: PlannedRun, ranks: Ranks) -> Engine:
        """The engine of a run's shape: kept while it is the one in use, since a model may fill the memory."""
        shape = {**initial_weights(run.config, run.vocab_size), "init_seed": None}
        name = fingerprint([shape, run.numerics, plain_values(vars(run.config.trainer))])
        if name not in _engines:
            _engines.clear()
            peak = self.order.rates[f"{run.numerics['precision']}_flops"]
            _engines[name] = Engine(run.config, run.vocab_size, run.numerics, peak, ranks)
        return _engines[name]


def forget_engines() -> None:
    """Let go of the engine that this process holds, as when the ranks that it trains with are gone."""
    _engines.clear()
