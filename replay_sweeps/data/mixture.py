"""The order of the data: which target and generic rows are in each batch, a pure function of the step."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.schedule.behaviour import TargetOrder
from replay_sweeps.schedule.data_schedule import DataSchedule, Rows


def mixed_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit integers that looks random (the finaliser of SplitMix64; Steele et al., 2014)."""
    x = values + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permutation(size: int, *seeds: int) -> Rows:
    """A permutation of range(size) that depends on the seeds alone, not on a library's generator or version."""
    state = np.zeros(1, dtype=np.uint64)
    for seed in seeds:
        state = mixed_bits(state ^ np.uint64(seed % 2**64))
    return np.argsort(mixed_bits(mixed_bits(np.arange(size, dtype=np.uint64)) ^ state), kind="stable").astype(np.int64)


# Each permutation's seeds start with its purpose, so that equal seeds of two purposes give different orders.
SUBSET, EPOCH, GENERIC = 1, 2, 3


@dataclass(frozen=True)
class BatchRows:
    """Where the rows of one step come from: `row[i]` of the target store where `is_target[i]`, else of the generic."""

    is_target: NDArray[np.bool_]
    row: Rows


@dataclass
class Mixture:
    """The batches of one run.

    `target_store_rows` and `generic_store_rows` are the whole rows of the two stores. The N target rows of a subset
    seed are a prefix of the 2N rows of the same seed. Each epoch of the target is a fresh permutation. The generic
    cursor counts generic rows alone, so the k-th generic row of a run does not depend on its schedule.
    """

    schedule: DataSchedule
    order: TargetOrder
    target_store_rows: int
    generic_store_rows: int
    generic_seed: int
    _cache: dict[tuple[int, ...], Rows] = field(default_factory=dict, repr=False)

    def batch(self, step: int) -> BatchRows:
        """The rows of an optimizer step (0-based)."""
        begin = step * self.schedule.batch_rows
        before = self.schedule.target_rows_before(np.arange(begin, begin + self.schedule.batch_rows + 1))
        is_target = np.diff(before) > 0
        exposure = before[:-1]
        generic = np.arange(begin, begin + self.schedule.batch_rows) - exposure
        row = np.empty(self.schedule.batch_rows, dtype=np.int64)
        row[is_target] = self._target_rows(exposure[is_target])
        row[~is_target] = self._generic_rows(generic[~is_target])
        return BatchRows(is_target, row)

    def _target_rows(self, exposures: Rows) -> Rows:
        """Rows of the target store, by how many target rows the run has seen before each."""
        if not len(exposures):
            return exposures
        subset = self._permutation(self.target_store_rows, SUBSET, self.order.subset_seed)[: self.order.rows]
        return subset[self._rows_at(exposures, self.order.rows, EPOCH, self.order.order_seed)]

    def _generic_rows(self, cursor: Rows) -> Rows:
        """Rows of the generic store, by how many generic rows the run has seen before each."""
        return self._rows_at(cursor, self.generic_store_rows, GENERIC, self.generic_seed)

    def _rows_at(self, cursor: Rows, size: int, purpose: int, seed: int) -> Rows:
        """The rows of range(size) at these places of an endless series of passes, each pass a fresh permutation."""
        row = np.empty_like(cursor)
        for epoch in np.unique(cursor // size) if len(cursor) else ():
            here = cursor // size == epoch
            row[here] = self._permutation(size, purpose, seed, int(epoch))[cursor[here] % size]
        return row

    def _permutation(self, size: int, *seeds: int) -> Rows:
        if (size, *seeds) not in self._cache:
            epochs = [key for key in self._cache if key[1] == EPOCH]
            if seeds[0] == EPOCH and len(epochs) > 1:  # a past epoch is not needed again
                del self._cache[min(epochs)]
            self._cache[(size, *seeds)] = permutation(size, *seeds)
        return self._cache[(size, *seeds)]
