"""Learning rates at each step, against the formulas of the schedules."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.schedule.learning_rate import LRSchedule

laws = st.builds(
    LRSchedule,
    law=st.sampled_from(["wsd", "cosine", "linear", "constant"]),
    peak=st.floats(1e-5, 1e-1),
    final=st.just(0.0),
    warmup_steps=st.integers(0, 30),
    cooldown_steps=st.integers(0, 30),
    cooldown_shape=st.sampled_from(["linear", "1-sqrt"]),
)


def rates(law: LRSchedule, start: int, stop: int) -> list[float]:
    pieces = law.pieces(start, stop)
    return [next(rate for first, rate in reversed(pieces) if first <= step).at(step) for step in range(start, stop)]


@given(laws, st.integers(0, 50), st.integers(1, 100))
def test_a_schedule_rises_to_its_peak_then_never_rises_and_no_step_is_wasted(
    law: LRSchedule, start: int, steps: int
) -> None:
    values = rates(law, start, start + steps)
    top = values.index(max(values))
    assert all(a <= b for a, b in pairwise(values[: top + 1]))
    assert all(a >= b for a, b in pairwise(values[top:]))
    assert all(0 < value <= law.peak * (1 + 1e-12) for value in values)  # 1e-12: rounding of one division


def test_wsd_is_flat_until_its_cooldown_whatever_the_cooldown_is() -> None:
    short, long = (rates(LRSchedule("wsd", 1.0, 0.0, 4, cooldown), 0, 100) for cooldown in (10, 30))
    assert short[:70] == long[:70]
    assert short[4:90] == [1.0] * 86
    assert short[95] == pytest.approx(1 - 6 / 11)
    assert rates(LRSchedule("wsd", 1.0, 0.0, 4, 10, "1-sqrt"), 0, 100)[95] == pytest.approx(1 - math.sqrt(6 / 11))


def test_warm_up_reaches_the_peak_at_its_last_step() -> None:
    assert rates(LRSchedule("constant", 2.0, 0.0, 4), 10, 16) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_cosine_ends_near_its_final_rate() -> None:
    values = rates(LRSchedule("cosine", 1.0, 0.1, 0), 0, 999)
    assert values[499] == pytest.approx(0.55)  # half-way between peak and final
    assert values[-1] == pytest.approx(0.1, abs=1e-5)  # one step before the end of the curve
