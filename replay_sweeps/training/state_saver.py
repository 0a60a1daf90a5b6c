"""Saves the states of one segment, each with the record of the steps that led to it from the state before."""

import time
from pathlib import Path

import torch

from replay_sweeps.store.state_files import write_state
from replay_sweeps.store.states import SegmentRecord, Series, Store
from replay_sweeps.training.engine import Engine
from replay_sweeps.tree.paths import Segment


class StateSaver:
    """Rank 0 writes each state. The other ranks add their shards where the model is sharded."""

    def __init__(self, engine: Engine, segment: Segment, store: Store) -> None:
        self.engine, self.segment, self.store = engine, segment, store
        self.parent = segment.state(segment.start) if segment.start else None
        self._last_save = time.perf_counter()  # at first: when the segment began

    def minutes_since_save(self) -> float:
        """Minutes since the last state was saved, or since the segment began."""
        return (time.perf_counter() - self._last_save) / 60

    def save(self, step: int, series: Series, optimizer: torch.optim.Optimizer | None) -> None:
        """Save the state after `step` steps, with the training series since the state before.

        Without an optimizer the weights alone are saved, and training cannot go on from them.
        """
        state, seconds = self.segment.state(step), time.perf_counter() - self._last_save
        ranks, sharded = self.engine.ranks, self.engine.mesh is not None

        def write(folder: Path) -> None:
            if sharded:
                ranks.broadcast_object(str(folder))  # each folder that rank 0 opens, the other ranks write into too
            write_state(folder, self.engine.network, optimizer)

        if ranks.is_rank_zero:
            parent_step, parent_key = (self.parent.step, self.parent.key) if self.parent else (0, None)
            record = SegmentRecord(parent_step, parent_key, series, self.engine.conditions, seconds)
            self.store.save_state(state, record, write, resumable=optimizer is not None)
            if sharded:
                ranks.broadcast_object(None)
        elif sharded:
            while folder := ranks.broadcast_object():
                write_state(Path(folder), self.engine.network, optimizer)
        self.parent, self._last_save = state, time.perf_counter()
