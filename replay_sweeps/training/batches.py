"""The rows of a stretch as tensors: step by step, in micro-batches, each row with its weight in the step's loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from replay_sweeps.data.mixture import BatchRows, Mixture
from replay_sweeps.data.token_rows import StoreRows
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.distributed.ranks import ALONE, Ranks
from replay_sweeps.tree.paths import Segment

# step: int; tokens: [rows, T]; is_target: [rows]; weight: [rows]; and of a packed run loss_mask and segments: [rows, T]
Batch = dict[str, Any]
ROW_INPUTS = ("tokens", "loss_mask", "segments")  # what the row loss is computed from, where it is there


@dataclass(frozen=True)
class Batches:
    """The micro-batches of the steps of `work` that this rank computes, in order; iterating again begins anew.

    A row's `weight` is its share of the tokens that the step learns, times the number of micro-batches of the step, of
    all ranks: the mean over the micro-batches of sum(weight · row loss) is then the mean loss of the step's tokens,
    however it is cut.
    """

    work: Segment
    stores: Mapping[str, TokenStore]
    micro_rows: int
    ranks: Ranks = ALONE

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step on each rank."""
        return self.work.run.config.trainer.batch_rows // (self.micro_rows * self.ranks.world)

    def __len__(self) -> int:
        return (self.work.stop - self.work.start) * self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        run, length = self.work.run, self.work.run.config.trainer.row_length
        order = next(mix.target for piece in run.behaviour.pieces for mix in piece.mixes if mix.target)
        generic = StoreRows.open(self.stores[run.generic_store], length)
        target = StoreRows.open(self.stores[order.store], length)
        mixture = Mixture(run.schedule, order, len(target), len(generic), run.config.generic.order_seed)
        for step in range(self.work.start, self.work.stop):
            rows = mixture.batch(step)
            batch = self._rows(rows, target, generic)
            learned = batch["loss_mask"][:, 1:].sum(axis=1) if "loss_mask" in batch else np.ones(len(rows.row))
            factor = self.micro_batches * self.ranks.world
            batch["weight"] = (learned * (factor / learned.sum())).astype(np.float32)
            batch["is_target"] = rows.is_target
            for begin in range(self.ranks.rank * self.micro_rows, len(rows.row), self.ranks.world * self.micro_rows):
                part = slice(begin, begin + self.micro_rows)
                yield {"step": step, **{name: torch.from_numpy(values[part]) for name, values in batch.items()}}

    def _rows(self, rows: BatchRows, target: StoreRows, generic: StoreRows) -> dict[str, NDArray[Any]]:
        """The inputs of the row loss for all rows of a step; [rows, T] each."""
        shape = (len(rows.row), target.length)
        batch: dict[str, NDArray[Any]] = {"tokens": np.empty(shape, dtype=np.int64)}
        if self.work.run.config.packed:
            batch |= {"loss_mask": np.empty(shape, dtype=np.bool_), "segments": np.empty(shape, dtype=np.int64)}
        for store, mine in ((target, rows.is_target), (generic, ~rows.is_target)):
            batch["tokens"][mine] = store.read(rows.row[mine])
            if "segments" in batch:
                batch["loss_mask"][mine], batch["segments"][mine] = store.parts(rows.row[mine])
        return batch
