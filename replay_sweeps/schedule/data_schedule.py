"""Which rows of a run are target rows: exact counts, spread evenly, as a pure function of the row.

A run is a sequence of rows, `batch_rows` of them a step. A stage is a stretch of rows with one share of target rows;
of its first k rows, round(k * density) are target rows (error diffusion). So every prefix of a stage holds its share
to within half a row, the whole stage holds it exactly, and neither sampling nor blocks truncate small shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """Rows from `start_row` to the next stage, of which the share `density` are target rows, evenly spread."""

    start_row: int
    density: Fraction

    def target_rows(self, rows: Rows) -> Rows:
        """How many target rows are among the first `rows` rows of this stage (element by element)."""
        p, q = self.density.numerator, self.density.denominator
        return (2 * rows * p + q) // (2 * q)


@dataclass(frozen=True)
class DataSchedule:
    """The rows of one run: N, E, T, rho and alpha (docs/vocabulary.md) in whole rows and steps.

    `target_rows` is N in rows and `exposures` N·E; `stage2_row` is where stage 2 begins (equal to `total_rows` when
    there is no stage 2); the step in which it begins may hold rows of both stages.
    """

    stages: tuple[Stage, ...]
    total_rows: int
    batch_rows: int
    target_rows: int
    exposures: int
    stage2_row: int
    stage2_rows: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.total_rows // self.batch_rows

    @property
    def stage2_step(self) -> int:
        """The step in which stage 2 begins."""
        return self.stage2_row // self.batch_rows

    @property
    def realised_replay_fraction(self) -> float:
        """Generic rows among the rows after the start of stage 2, counted."""
        rows = self.total_rows - self.stage2_row
        target = int(
            self.target_rows_before(np.array(self.total_rows)) - self.target_rows_before(np.array(self.stage2_row))
        )
        return 1 - target / rows if rows else 0.0

    def target_rows_before(self, row: Rows) -> Rows:
        """How many target rows come before each of the given rows of the run (0 … total_rows)."""
        row = np.asarray(row, dtype=np.int64)
        count = np.zeros_like(row)
        ends = [stage.start_row for stage in self.stages[1:]] + [self.total_rows]
        for stage, end in zip(self.stages, ends, strict=True):
            count = count + stage.target_rows(np.clip(row, stage.start_row, end) - stage.start_row)
        return count


def two_stages(
    total_rows: int,
    batch_rows: int,
    target_rows: int,
    epochs: int,
    replay_fraction: Fraction,
    stage2_allocation: Fraction,
) -> DataSchedule:
    """Stage 1, then stage 2 with replay; T is fixed, so more replay makes stage 1 shorter.

    Raises ValueError when stage 2 and the target rows of stage 1 do not fit into `total_rows`; see `misfit`.
    """
    exposures = target_rows * epochs
    stage2_target = round(stage2_allocation * exposures)
    stage2_rows = round(stage2_target / (1 - replay_fraction))
    stage1_rows, stage1_target = total_rows - stage2_rows, exposures - stage2_target
    if stage1_target > stage1_rows or stage1_rows < 0:
        raise ValueError(f"needs {stage2_rows + stage1_target} rows of {total_rows}")
    stages = [Stage(0, Fraction(stage1_target, stage1_rows))] if stage1_rows else []
    if stage2_rows:
        stages.append(Stage(stage1_rows, 1 - replay_fraction))
    return DataSchedule(tuple(stages), total_rows, batch_rows, target_rows, exposures, stage1_rows, stage2_rows)


def stage2_alone(batch_rows: int, target_rows: int, epochs: int, replay_fraction: Fraction) -> DataSchedule:
    """A run that starts from a given model: stage 2 only, T = N·E/(1-rho), the last step filled with generic rows."""
    exposures = target_rows * epochs
    stage2_rows = round(exposures / (1 - replay_fraction))
    total_rows = -(-stage2_rows // batch_rows) * batch_rows
    stages: Sequence[Stage] = [Stage(0, 1 - replay_fraction)]
    if total_rows > stage2_rows:
        stages = [*stages, Stage(stage2_rows, Fraction(0))]
    return DataSchedule(tuple(stages), total_rows, batch_rows, target_rows, exposures, 0, stage2_rows)


@dataclass(frozen=True)
class Misfit:
    """A cell whose stage 2 does not fit, and what would: the largest N, E and rho, each with the others as given."""

    needed_rows: int
    total_rows: int
    largest_target_rows: int
    largest_epochs: int
    largest_replay_fraction: Fraction | None


def misfit(
    total_rows: int, target_rows: int, epochs: int, replay_fraction: Fraction, stage2_allocation: Fraction
) -> Misfit | None:
    """None when d + (1-alpha)·N·E/T <= 1 in whole rows, else by how much it fails and what would fit."""
    exposures = target_rows * epochs
    stage2_target = round(stage2_allocation * exposures)
    needed = round(stage2_target / (1 - replay_fraction)) + exposures - stage2_target
    if needed <= total_rows:
        return None
    rows_per_exposure = stage2_allocation / (1 - replay_fraction) + 1 - stage2_allocation
    left = total_rows - (exposures - stage2_target)
    largest_rho = 1 - Fraction(stage2_target, left) if left > 0 else None
    return Misfit(
        needed_rows=needed,
        total_rows=total_rows,
        largest_target_rows=int(total_rows / (epochs * rows_per_exposure)),
        largest_epochs=int(total_rows / (target_rows * rows_per_exposure)),
        largest_replay_fraction=largest_rho if largest_rho is not None and largest_rho >= 0 else None,
    )
