"""Rows are counted, not sampled: every run sees exactly its target tokens, each exactly as often as it says."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replay_sweeps.data.mixture import Mixture, permutation
from replay_sweeps.schedule.behaviour import TargetOrder
from replay_sweeps.schedule.data_schedule import DataSchedule, room, stage2_alone, two_stages

fractions = st.fractions(0, 1, max_denominator=64)


@st.composite
def schedules(draw: st.DrawFn) -> DataSchedule:
    """Any schedule that fits, of up to a few hundred rows."""
    batch_rows = draw(st.integers(1, 9))
    target_rows, epochs = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    rho = draw(fractions.filter(lambda value: value < 1))
    if draw(st.booleans()):
        return stage2_alone(batch_rows, target_rows, epochs, rho)
    alpha = draw(fractions)
    assume(alpha > 0 or rho == 0)
    total = draw(st.integers(1, 60)) * batch_rows
    assume(room(total, target_rows, epochs, rho, alpha) is None)
    return two_stages(total, batch_rows, target_rows, epochs, rho, alpha)


def mixture_of(schedule: DataSchedule, order_seed: int = 0, subset_seed: int = 0, store_rows: int = 40) -> Mixture:
    order = TargetOrder("store", subset_seed, order_seed, schedule.target_rows)
    return Mixture(schedule, order, store_rows, schedule.total_rows, generic_seed=0)


@given(schedules())
def test_every_run_sees_each_target_row_exactly_e_times_and_no_generic_row_twice(schedule: DataSchedule) -> None:
    mixture = mixture_of(schedule)
    target: Counter[int] = Counter()
    generic: Counter[int] = Counter()
    for step in range(schedule.steps):
        batch = mixture.batch(step)
        assert len(batch.row) == schedule.batch_rows
        target.update(batch.row[batch.is_target].tolist())
        generic.update(batch.row[~batch.is_target].tolist())
    assert len(target) == schedule.target_rows
    assert set(target.values()) == {schedule.exposures // schedule.target_rows}
    assert set(generic.values()) <= {1}
    assert target.total() == schedule.exposures
    assert target.total() + generic.total() == schedule.total_rows


@given(schedules())
def test_every_prefix_of_a_stage_holds_its_share_of_target_rows_to_within_half_a_row(schedule: DataSchedule) -> None:
    before = schedule.target_rows_before(np.arange(schedule.total_rows + 1))
    assert set(np.diff(before)) <= {0, 1}
    ends = [stage.start_row for stage in schedule.stages[1:]] + [schedule.total_rows]
    for stage, end in zip(schedule.stages, ends, strict=True):
        for row in range(stage.start_row, end + 1):
            expected = stage.density * (row - stage.start_row)
            assert abs(int(before[row] - before[stage.start_row]) - expected) <= Fraction(1, 2)


@given(schedules(), st.integers(0, 5))
def test_the_generic_rows_of_a_run_do_not_depend_on_its_schedule(schedule: DataSchedule, seed: int) -> None:
    mixture = mixture_of(schedule)
    seen = np.concatenate([batch.row[~batch.is_target] for batch in map(mixture.batch, range(schedule.steps))])
    assert seen.tolist() == permutation(schedule.total_rows, 3, 0, 0)[: len(seen)].tolist()


@given(st.integers(1, 20), st.integers(0, 9))
def test_a_subset_is_a_prefix_of_the_subset_of_twice_its_size(rows: int, subset_seed: int) -> None:
    def subset(count: int) -> set[int]:
        schedule = stage2_alone(1, count, 1, Fraction(0))
        mixture = mixture_of(schedule, subset_seed=subset_seed)
        return {int(mixture.batch(step).row[0]) for step in range(schedule.steps)}

    assert subset(rows) < subset(2 * rows)


def test_each_epoch_is_a_fresh_permutation_and_seeds_differ() -> None:
    def order(seed: int) -> list[int]:
        schedule = stage2_alone(1, 20, 3, Fraction(0))
        mixture = mixture_of(schedule, order_seed=seed)
        return [int(mixture.batch(step).row[0]) for step in range(60)]

    epochs = [order(0)[20 * epoch : 20 * epoch + 20] for epoch in range(3)]
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(epochs[0])}
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert order(0) != order(1)


def test_a_batch_does_not_depend_on_the_batches_asked_for_before() -> None:
    schedule = two_stages(400, 8, 10, 8, Fraction(3, 4), Fraction(1, 2))
    steps = list(range(schedule.steps))
    forward = mixture_of(schedule)
    once = {step: forward.batch(step) for step in steps}
    backward = mixture_of(schedule)
    for step in reversed(steps):
        assert backward.batch(step).row.tolist() == once[step].row.tolist()
        assert backward.batch(step).is_target.tolist() == once[step].is_target.tolist()


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), fractions, fractions)
def test_what_does_not_fit_is_told_with_sizes_that_do(
    total: int, rows: int, epochs: int, rho: Fraction, alpha: Fraction
) -> None:
    assume(rho < 1)
    misfit = room(total, rows, epochs, rho, alpha)
    if misfit is None:
        schedule = two_stages(total, 1, rows, epochs, rho, alpha)
        assert schedule.stage2_row + schedule.stage2_rows == total
        return
    with pytest.raises(ValueError):
        two_stages(total, 1, rows, epochs, rho, alpha)
    assert misfit.needed_rows > misfit.total_rows
    # half a row of rounding in the length of stage 2 is why the hints are tried one unit smaller
    if misfit.largest_target_rows > 1:
        assert room(total, misfit.largest_target_rows - 1, epochs, rho, alpha) is None
    if misfit.largest_epochs > 1:
        assert room(total, rows, misfit.largest_epochs - 1, rho, alpha) is None
    if misfit.largest_replay_fraction is not None:
        assert misfit.largest_replay_fraction < rho or rho == 0


def test_the_stage_lengths_of_the_paper_follow_from_rho() -> None:
    # study 1: rho of 1/9, 1/5, 1/3, 1/2, 2/3, 3/4 make stage 2 1.125, 1.25, 1.5, 2, 3, 4 times as long
    for rho, times in [("0", 1), ("1/9", 1.125), ("1/5", 1.25), ("1/3", 1.5), ("1/2", 2), ("2/3", 3), ("3/4", 4)]:
        schedule = two_stages(1024 * 64, 64, 64, 8, Fraction(rho), Fraction(1))
        assert schedule.stage2_rows == 512 * times
        assert schedule.total_rows == 1024 * 64
