"""The rows of a stretch as tensors: step by step, in micro-batches, each row with its weight in the step's loss."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from replay_sweeps.data.mixture import Mixture
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.sweep.ledger import Work

Batch = dict[str, Any]  # step: int; tokens: [rows, T]; is_target: [rows]; weight: [rows]


@dataclass(frozen=True)
class Batches:
    """The micro-batches of the steps of `work`, in order; iterating again begins anew.

    A row's `weight` is its share of the tokens that the step learns, times the number of micro-batches of the step: the
    mean over the micro-batches of sum(weight · row loss) is then the mean loss of the step's tokens, however it is cut.
    """

    work: Work
    stores: Mapping[str, TokenStore]
    micro_rows: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step."""
        return self.work.run.config.trainer.batch_rows // self.micro_rows

    def __len__(self) -> int:
        return (self.work.stop - self.work.start) * self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        run, length = self.work.run, self.work.run.config.trainer.row_length
        order = next(mix.target for piece in run.behaviour.pieces for mix in piece.mixes if mix.target)
        generic = self.stores[run.generic_store].open()
        target = self.stores[order.store].open()
        mixture = Mixture(
            run.schedule, order, len(target) // length, len(generic) // length, run.config.generic.order_seed
        )
        for step in range(self.work.start, self.work.stop):
            rows = mixture.batch(step)
            tokens = np.empty((len(rows.row), length), dtype=np.int64)
            for i, (row, is_target) in enumerate(zip(rows.row, rows.is_target, strict=True)):
                tokens[i] = (target if is_target else generic)[row * length : (row + 1) * length]
            weight = np.full(len(tokens), self.micro_batches / len(tokens), dtype=np.float32)
            for begin in range(0, len(tokens), self.micro_rows):
                part = slice(begin, begin + self.micro_rows)
                yield {
                    "step": step,
                    "tokens": torch.from_numpy(tokens[part]),
                    "is_target": torch.from_numpy(rows.is_target[part]),
                    "weight": torch.from_numpy(weight[part]),
                }
