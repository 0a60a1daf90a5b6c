"""The rows of a segment as tensors: step by step, in micro-batches, each row with its weight in the step's loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from replay_sweeps.data.mixture import BatchRows, Mixture
from replay_sweeps.data.token_rows import TokenRows
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.distributed.ranks import ALONE, Ranks
from replay_sweeps.tree.paths import Segment

# step: int; tokens: [rows, T]; is_target: [rows]; weight: [rows]; of a packed run also loss_mask, segments: [rows, T]
Batch = dict[str, Any]
ROW_INPUTS = ("tokens", "loss_mask", "segments")  # the inputs of the row loss, in order; plain rows have tokens alone


@dataclass(frozen=True)
class Batches:
    """The micro-batches of the steps of `segment` that this rank computes, in order; iterating again begins anew.

    A row's `weight` is its share of the tokens that the step learns, times the number of micro-batches of the step on
    all ranks. So the mean over the micro-batches of sum(weight · row loss) is the mean loss of the step's tokens,
    whatever the number of micro-batches and ranks.
    """

    segment: Segment
    token_stores: Mapping[str, TokenStore]
    micro_rows: int
    ranks: Ranks = ALONE

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step on each rank."""
        return self.segment.run.config.trainer.batch_rows // (self.micro_rows * self.ranks.world)

    def __len__(self) -> int:
        return (self.segment.stop - self.segment.start) * self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        run, length = self.segment.run, self.segment.run.config.trainer.row_length
        order = next(mix.target for piece in run.behaviour.pieces for mix in piece.mixes if mix.target)
        generic = TokenRows.open(self.token_stores[run.generic_store], length)
        target = TokenRows.open(self.token_stores[order.store], length)
        mixture = Mixture(run.schedule, order, len(target), len(generic), run.config.generic.order_seed)
        for step in range(self.segment.start, self.segment.stop):
            rows = mixture.batch(step)
            batch = self._read(rows, target, generic)
            learned = batch["loss_mask"][:, 1:].sum(axis=1) if "loss_mask" in batch else np.ones(len(rows.row))
            factor = self.micro_batches * self.ranks.world
            batch["weight"] = (learned * (factor / learned.sum())).astype(np.float32)
            batch["is_target"] = rows.is_target
            for begin in range(self.ranks.rank * self.micro_rows, len(rows.row), self.ranks.world * self.micro_rows):
                part = slice(begin, begin + self.micro_rows)
                yield {"step": step, **{name: torch.from_numpy(values[part]) for name, values in batch.items()}}

    def _read(self, rows: BatchRows, target: TokenRows, generic: TokenRows) -> dict[str, NDArray[Any]]:
        """The inputs of the row loss for all rows of a step; [rows, T] each."""
        shape = (len(rows.row), target.length)
        batch: dict[str, NDArray[Any]] = {"tokens": np.empty(shape, dtype=np.int64)}
        if self.segment.run.config.packed:
            batch |= {"loss_mask": np.empty(shape, dtype=np.bool_), "segments": np.empty(shape, dtype=np.int64)}
        for store, in_store in ((target, rows.is_target), (generic, ~rows.is_target)):
            batch["tokens"][in_store] = store.read(rows.row[in_store])
            if "segments" in batch:
                batch["loss_mask"][in_store], batch["segments"][in_store] = store.parts(rows.row[in_store])
        return batch
