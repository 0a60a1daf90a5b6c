"""Train one segment of steps, from its parent state to its last state: one function for every mode, model and size."""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning

from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.distributed.strategy import trainer_placement
from replay_sweeps.errors import DamagedFile
from replay_sweeps.evaluation.loss import validation_loss
from replay_sweeps.interrupt import Interrupted, StopFlag
from replay_sweeps.models.quiet import quiet_libraries
from replay_sweeps.store.state_files import read_optimizer
from replay_sweeps.store.states import Store
from replay_sweeps.training.batches import Batches
from replay_sweeps.training.callbacks import SegmentCallback
from replay_sweeps.training.engine import Engine
from replay_sweeps.training.lit_module import NonFiniteLoss, ReplayModule
from replay_sweeps.training.state_saver import StateSaver
from replay_sweeps.tree.paths import Segment

SAVE_IS_DUE = -1  # what rank 0 broadcasts in place of a signal's number when `save_every_minutes` have passed


def train_segment(
    engine: Engine,
    segment: Segment,
    token_stores: Mapping[str, TokenStore],
    store: Store,
    stop: StopFlag,
    on_step: Callable[[int], None] = lambda _: None,
) -> None:
    """Train `segment`: afterwards every state of `save_at` and every loss of `observe_at` is in the store.

    Raises DamagedFile when the parent state is damaged (the store has then dropped it), NonFiniteLoss when training
    diverges, and Interrupted when `stop` is set; the state after the last whole step has then been saved.
    """
    quiet_libraries()
    trainer_config, ranks = segment.run.config.trainer, engine.ranks
    saver = StateSaver(engine, segment, store)
    parent_folder = _load_weights(engine, segment, store)
    if segment.start == segment.stop:
        _observe(engine, segment, segment.start, token_stores, store)
        return
    module = ReplayModule(
        engine.network,
        engine.row_loss,
        segment.run.behaviour,
        segment.run.config.optimizer,
        trainer_config.log_every_steps,
        ranks,
    )
    if parent_folder is not None:
        module.optimizer_state = read_optimizer(parent_folder, engine.network)

    def at_state(step: int) -> None:
        """Observe the state after `step` steps, save it where that is asked or due, and end where a signal came."""
        if step == segment.start:
            stop.take_signals()  # Lightning's handler would end training in the middle of a step
        _observe(engine, segment, step, token_stores, store)
        due = saver.minutes_since_save() >= trainer_config.save_every_minutes and step < segment.stop
        signal = ranks.broadcast_int(stop.signal or (SAVE_IS_DUE if due else 0))
        interrupted = signal not in (0, SAVE_IS_DUE)
        if step > segment.start and (step in segment.save_at or signal):
            resumable = segment.save_at.get(step, True) or interrupted
            saver.save(step, callback.take_series(), module.adamw() if resumable else None)
        if interrupted:
            raise Interrupted(signal)

    batches = Batches(segment, token_stores, engine.micro_rows, ranks)
    callback = SegmentCallback(
        segment.start,
        batches.micro_batches,
        trainer_config.tokens_per_step,
        engine.mfu_per_token_rate,
        at_state,
        on_step,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers, which are ours on purpose
        _trainer(engine, segment, batches.micro_batches, callback).fit(module, train_dataloaders=batches)


def _load_weights(engine: Engine, segment: Segment, store: Store) -> Path | None:
    """Give the network the weights that the segment starts from; returns the parent state's folder, where it has one.

    Raises DamagedFile on all ranks.
    """
    if not segment.start:
        engine.load(segment.run.config, None)
        return None
    parent = segment.state(segment.start)
    folder = Path(engine.ranks.on_rank_zero(lambda: str(store.open_state(parent)), DamagedFile))
    engine.load(segment.run.config, folder)
    return folder


def _trainer(engine: Engine, segment: Segment, micro_batches: int, callback: SegmentCallback) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="gpu" if engine.device.type == "cuda" else "cpu",
        **trainer_placement(engine.ranks, engine.mesh),
        precision="bf16-mixed" if engine.precision == "bf16" else "32-true",
        deterministic=True,
        max_steps=segment.stop - segment.start,
        max_epochs=-1,
        accumulate_grad_batches=micro_batches,
        gradient_clip_val=segment.run.config.optimizer.gradient_clip,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    # Lightning lets the ranks agree on SIGTERM at each batch, which waits for the GPU; `at_state` does so once a step
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    return trainer


def _observe(engine: Engine, segment: Segment, step: int, token_stores: Mapping[str, TokenStore], store: Store) -> None:
    """Put the validation losses that are asked of the state after `step` steps into the store, where they are missing.

    Raises NonFiniteLoss.
    """
    config = segment.run.config
    for validation_set in sorted(segment.observe_at.get(step, ())):
        state = segment.state(step)
        if not engine.ranks.broadcast_int(store.observation(state, validation_set) is None):
            continue
        loss = validation_loss(
            engine.row_loss,
            token_stores[validation_set],
            config.trainer.row_length,
            engine.micro_rows,
            engine.device,
            engine.autocast(),
            config.packed,
            engine.ranks,
        )
        if engine.mesh is not None:
            engine.row_loss.reshard()  # a forward pass without a backward pass leaves the weights gathered
        if not math.isfinite(loss["loss"]):
            raise NonFiniteLoss(f"the validation loss is {loss['loss']} after {step} steps")
        if engine.ranks.is_rank_zero:
            store.save_observation(state, validation_set, loss)
