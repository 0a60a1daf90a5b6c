"""Train a stretch of steps: parent state to child state, one function for every mode, model and size."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning

from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.distributed.strategy import placement
from replay_sweeps.errors import DamagedFile
from replay_sweeps.evaluation.loss import validation_loss
from replay_sweeps.interrupt import Interrupted, StopFlag
from replay_sweeps.store.state_files import read_optimizer, write_state
from replay_sweeps.store.states import SegmentRecord, Store
from replay_sweeps.training.batches import Batches
from replay_sweeps.training.callbacks import SegmentCallback
from replay_sweeps.training.engine import Engine
from replay_sweeps.training.lit_module import NonFiniteLoss, ReplayModule
from replay_sweeps.tree.paths import Segment

logger = logging.getLogger(__name__)
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # its import sets INFO: several lines for each stretch


def train_segment(
    engine: Engine,
    work: Segment,
    stores: Mapping[str, TokenStore],
    store: Store,
    stop: StopFlag,
    on_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Do the work: afterwards every state of `save_at` and every loss of `observe_at` is in the store.

    Raises DamagedFile when the parent state is damaged (it has then been dropped), NonFiniteLoss when training
    diverges, and Interrupted, having saved the last whole step, when `stop` is set.
    """
    _SegmentRun(engine, work, stores, store, stop, on_step).train()


DUE = -1  # in place of a signal's number: it is time to save


class _SegmentRun:
    """One call of `train_segment`."""

    def __init__(
        self,
        engine: Engine,
        work: Segment,
        stores: Mapping[str, TokenStore],
        store: Store,
        stop: StopFlag,
        on_step: Callable[[int], None],
    ) -> None:
        self.engine, self.work, self.stores, self.store, self.stop = engine, work, stores, store, stop
        self.parent = work.state(work.start) if work.start else None
        self.began = self.saved = time.perf_counter()
        config = work.run.config
        self.module = ReplayModule(
            engine.network,
            engine.row_loss,
            work.run.behaviour,
            config.optimizer,
            config.trainer.log_every_steps,
            engine.ranks,
        )
        self.batches = Batches(work, stores, engine.micro_rows, engine.ranks)
        self.callback = SegmentCallback(
            work.start,
            self.batches.micro_batches,
            config.trainer.tokens_per_step,
            engine.utilisation,
            self._at_state,
            on_step,
        )

    def train(self) -> None:
        work, engine = self.work, self.engine
        if self.parent is None:
            engine.load(work.run.config, None)
        else:
            parent = self.parent
            folder = Path(engine.ranks.on_rank_zero(lambda: str(self.store.open(parent)), DamagedFile))
            engine.load(work.run.config, folder)
            if work.stop > work.start:
                self.module.optimizer_state = read_optimizer(folder, engine.network)
        if work.stop == work.start:
            self._observe(work.start)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers, which are ours on purpose
            trainer = self._trainer()
            # Lightning's own agreement on SIGTERM waits for the GPU at each batch; ours is made in `_at_state`
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
            trainer.fit(self.module, train_dataloaders=self.batches)

    def _trainer(self) -> lightning.Trainer:
        engine = self.engine
        return lightning.Trainer(
            accelerator="gpu" if engine.device.type == "cuda" else "cpu",
            **placement(engine.ranks, engine.mesh),
            precision="bf16-mixed" if engine.precision == "bf16" else "32-true",
            deterministic=True,
            max_steps=self.work.stop - self.work.start,
            max_epochs=-1,
            accumulate_grad_batches=self.batches.micro_batches,
            gradient_clip_val=self.work.run.config.optimizer.gradient_clip,
            callbacks=[self.callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )

    def _at_state(self, step: int) -> None:
        if step == self.work.start:
            self.stop.take_signals()  # Lightning's handler would end training within a step
        self._observe(step)
        minutes = (time.perf_counter() - self.saved) / 60
        due = minutes >= self.work.run.config.trainer.save_every_minutes and step < self.work.stop
        signal = self.engine.ranks.broadcast_int(self.stop.signal or (DUE if due else 0))
        interrupted = signal not in (0, DUE)
        if step > self.work.start and (step in self.work.save_at or signal):
            self._save(step, self.work.save_at.get(step, True) or interrupted)
        if interrupted:
            raise Interrupted(signal)

    def _observe(self, step: int) -> None:
        engine, config = self.engine, self.work.run.config
        state = self.work.state(step) if step in self.work.observe_at else None
        for store in sorted(self.work.observe_at.get(step, ())):
            assert state
            if engine.ranks.broadcast_int(self.store.observation(state, store) is None):
                loss = validation_loss(
                    engine.row_loss,
                    self.stores[store],
                    config.trainer.row_length,
                    engine.micro_rows,
                    engine.device,
                    engine.autocast(),
                    config.packed,
                    engine.ranks,
                )
                if engine.mesh is not None:
                    engine.row_loss.reshard()  # a forward pass that no backward pass follows leaves weights whole
                if not math.isfinite(loss["loss"]):
                    raise NonFiniteLoss(f"the validation loss is {loss['loss']} after {step} steps")
                if engine.ranks.is_rank_zero:
                    self.store.observe(state, store, loss)

    def _save(self, step: int, resumable: bool) -> None:
        """Keep the state: rank 0 does, with the shards of all ranks where the model is sharded."""
        engine, series = self.engine, self.callback.flush()
        optimizer = self.module.optimizers(use_pl_optimizer=False) if resumable else None

        def write(folder: Path) -> None:
            if engine.mesh is not None:
                engine.ranks.broadcast_object(str(folder))
            write_state(folder, engine.network, optimizer)  # type: ignore[arg-type]

        state, now = self.work.state(step), time.perf_counter()
        if engine.ranks.is_rank_zero:
            parent, key = (self.parent.step, self.parent.key) if self.parent else (0, None)
            segment_record = SegmentRecord(parent, key, series, engine.conditions, now - self.began)
            self.store.put(state, segment_record, write, resumable)
            if engine.mesh is not None:
                engine.ranks.broadcast_object(None)
        elif engine.mesh is not None:
            while folder := engine.ranks.broadcast_object():
                write_state(Path(folder), engine.network, optimizer)  # type: ignore[arg-type]
        self.parent, self.began, self.saved = state, time.perf_counter(), time.perf_counter()
