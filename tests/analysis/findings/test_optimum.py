"""The best replay fraction, its interval, and its law over target and model size."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import analyse
from analysis.findings.optimum import Optimum, fit_optimum_law, smooth_optimum
from analysis.findings.study import Settings
from analysis.runs import checked_runs
from analysis.simulate import Truth, simulate_runs

FRACTIONS = np.array([0.0, 0.25, 0.5, 0.75, 0.875])


@given(best=st.floats(0.3, 0.8))
@settings(max_examples=40, deadline=None)
def test_the_vertex_of_a_parabola_in_stage_2_length_is_found(best):
    length = -np.log1p(-FRACTIONS)
    losses = 3 + (length + np.log1p(-best)) ** 2
    assert smooth_optimum(FRACTIONS, losses[None])[0] == pytest.approx(best, abs=1e-9)


@given(losses=st.lists(st.floats(3, 4), min_size=5, max_size=5))
@settings(max_examples=60, deadline=None)
def test_the_optimum_stays_within_what_was_tried(losses):
    value = smooth_optimum(FRACTIONS, np.array([losses]))[0]
    assert -1e-12 <= value <= 0.875 + 1e-12


def test_the_best_fraction_has_an_interval_that_holds_it():
    result = analyse(checked_runs(simulate_runs(Truth(noise=0.02), seeds=2), "table"), Settings(n_resamples=500))
    assert len(result.groups[0].optima) == 5
    for optimum in result.groups[0].optima:
        assert optimum.low <= 0.75 <= optimum.high


def test_a_best_fraction_at_the_end_of_what_was_tried_is_marked():
    runs = simulate_runs(replay_fractions=(0, 0.25, 0.5), replay_tokens=(8192,), seeds=2)
    optimum = analyse(checked_runs(runs, "table"), Settings(n_resamples=200)).groups[0].optima[0]
    assert optimum.edge and optimum.smooth == 0.5


def optimum_at(tokens: float, length: float, rng: np.random.Generator) -> Optimum:
    replay = -np.expm1(-length)
    replicates = -np.expm1(-(length + 0.05 * rng.standard_normal(500)))
    return Optimum(tokens, 1.0, replay, replay, replay, 3.0, replay, replicates, False)


def test_the_law_of_the_best_fraction_is_recovered_with_its_uncertainty():
    rng = np.random.default_rng(0)
    points = [
        (optimum_at(n, 1.5 - 0.2 * np.log(n / 8192) - 0.1 * np.log(p / 1e6), rng), p)
        for n in (4096, 8192, 16384, 32768)
        for p in (1e6, 4e6)
    ]
    law = fit_optimum_law(points, 0.9)
    assert law.coefficients["b"] == pytest.approx(-0.2, abs=1e-6)
    assert law.coefficients["c"] == pytest.approx(-0.1, abs=1e-6)
    assert law.intervals["b"][0] < -0.2 < law.intervals["b"][1]
    value, low, high = law.at(8192, 1e6)
    assert low < value < high and value == pytest.approx(-np.expm1(-1.5), abs=1e-6)
    with pytest.raises(ValueError, match="parameters"):
        law.at(8192)


def test_too_few_optima_give_no_law():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="three optima"):
        fit_optimum_law([(optimum_at(4096, 1, rng), 1e6)] * 2, 0.9)
    with pytest.raises(ValueError, match="several target or model sizes"):
        fit_optimum_law([(optimum_at(4096, 1, rng), 1e6)] * 3, 0.9)
    together = [(optimum_at(n, 1, rng), n * 10) for n in (4096, 8192, 16384)]
    with pytest.raises(ValueError, match="independently"):
        fit_optimum_law(together, 0.9)


def test_a_law_over_model_sizes_comes_from_all_groups():
    runs = pd.concat(
        [simulate_runs(Truth(best_replay=0.75), seeds=2), simulate_runs(seeds=2, seed=1, model="4m", parameters=4e6)],
        ignore_index=True,
    )
    runs["run_id"] = range(len(runs))
    law = analyse(checked_runs(runs, "table"), Settings(n_resamples=300)).optimum_law
    assert law is not None and set(law.coefficients) == {"a", "b", "c"} and law.n_points == 10
