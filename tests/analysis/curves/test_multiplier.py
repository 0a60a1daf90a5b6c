"""The multiplier on the paper's points, its interval, and what it says where the points do not reach."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import CurveError, ReferenceCurve, effective_data_multiplier
from analysis.curves.multiplier import interval_text, multiplier_text
from analysis.curves.noise import Noise
from tests.analysis.helpers import FLAN_LOSSES, FLAN_TOKENS, warning_codes

FINE_TUNING = {"candidate": 3.51, "baseline": 3.65354}
MID_TRAINING = {"candidate": 3.35773, "baseline": 3.44407}


def flan(form: str = "power_law") -> ReferenceCurve:
    return ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, form=form)


@pytest.mark.parametrize(("losses", "value"), ((FINE_TUNING, 1.87), (MID_TRAINING, 2.06)))
def test_the_papers_headlines_come_out_to_two_decimals(losses, value):
    result = effective_data_multiplier(flan(), **losses)
    assert round(result.value, 2) == value
    assert 0 < result.low < result.value < result.high
    assert result.level == 0.9
    assert any("extrapolat" in warning for warning in result.warnings)


def test_the_papers_baseline_lies_outside_its_points_and_gives_a_bound():
    result = effective_data_multiplier(flan(), **FINE_TUNING)
    assert result.extrapolated and result.baseline_tokens.extrapolated and not result.candidate_tokens.extrapolated
    assert result.at_least == pytest.approx(float(result.candidate_tokens) / 1.0)
    assert multiplier_text(result) == "at least 1.19× (extrapolated: 1.87×)"


def test_every_admissible_form_is_shown():
    result = effective_data_multiplier(flan(), **MID_TRAINING)
    assert result.by_form.keys() == {"power_law", "pure_power_law", "log"}
    assert result.by_form["power_law"] == pytest.approx(result.value)


def test_auto_interpolates_inside_the_points():
    result = effective_data_multiplier(flan("auto"), **MID_TRAINING)
    assert not result.extrapolated
    assert result.value == pytest.approx(2.599, abs=0.01)


@pytest.mark.parametrize("form", ("auto", "power_law", "log", "monotone"))
def test_a_candidate_below_every_point_gets_a_lower_bound(form):
    result = effective_data_multiplier(flan(form), candidate=3.2, baseline=3.41444)
    assert result.extrapolated and result.at_least == pytest.approx(16 / float(result.baseline_tokens))
    assert "at least" in multiplier_text(result)
    assert result.at_most == np.inf


def test_losses_beyond_the_same_end_have_no_bound():
    result = effective_data_multiplier(flan("auto"), candidate=3.7, baseline=3.8)
    assert (result.at_least, result.at_most) == (0.0, np.inf) and result.extrapolated


def test_an_interval_without_an_upper_end_says_so():
    result = effective_data_multiplier(flan(), candidate=3.25, baseline=3.41444)
    assert np.isinf(result.high) and result.low > 0
    assert "one_sided" in warning_codes(result.warnings)
    assert interval_text(result.low, result.high, 0.9).startswith("90 %: at least")


def test_without_any_noise_estimate_the_interval_is_unbounded_and_says_so():
    curve = ReferenceCurve.fit([1, 2], [3.5, 3.3])
    result = effective_data_multiplier(curve, candidate=3.35, baseline=3.45)
    assert (result.low, result.high) == (0.0, np.inf)
    assert "no_interval" in warning_codes(result.warnings)
    assert interval_text(result.low, result.high, 0.9) == "90 %: unbounded"


def test_degenerate_points_give_a_finite_multiplier_near_the_logarithms(recwarn):
    losses = [2.601, 2.682, 2.749, 2.811, 2.872]
    curve = ReferenceCurve.fit(FLAN_TOKENS, losses, form="power_law")
    line = ReferenceCurve.fit(FLAN_TOKENS, losses, form="log")
    pair = {"candidate": 2.65, "baseline": 2.95}
    result = effective_data_multiplier(curve, **pair)
    assert result.value == pytest.approx(effective_data_multiplier(line, **pair).value, rel=0.1)
    assert "degenerate" in warning_codes(result.warnings)
    assert not recwarn.list


def test_more_seeds_narrow_the_interval():
    one = effective_data_multiplier(flan("auto"), **MID_TRAINING)
    pair = {"candidate": [3.35, 3.3577, 3.3655, 3.3577], "baseline": [3.4363, 3.4441, 3.4519, 3.4441]}
    four = effective_data_multiplier(flan("auto"), **pair)
    assert four.high / four.low < one.high / one.low


def test_seed_noise_that_is_known_replaces_the_scatter():
    points = (FLAN_TOKENS, FLAN_LOSSES)
    known = ReferenceCurve.fit(*points, seed_noise=Noise(0.001, 20, "elsewhere"))
    result = effective_data_multiplier(known, **MID_TRAINING)
    assert result.high / result.low < 1.2


def test_a_form_far_from_its_points_is_not_trusted_with_the_seeds_noise():
    curve = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, "log", seed_noise=Noise(0.001, 20, "elsewhere"))
    assert "lack_of_fit" in warning_codes(curve.warnings)
    assert curve.noise is not None and curve.noise.sigma > 0.02


def test_the_same_seed_gives_the_same_interval():
    first, second = (effective_data_multiplier(flan(), **MID_TRAINING, seed=4) for _ in range(2))
    assert (first.low, first.high) == (second.low, second.high)


def test_a_higher_level_gives_a_wider_interval():
    narrow, wide = (effective_data_multiplier(flan(), **MID_TRAINING, level=level) for level in (0.5, 0.95))
    assert wide.low <= narrow.low and wide.high >= narrow.high


@given(factor=st.floats(1e-3, 1e9))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_tokens_does_not_matter(factor):
    curve = ReferenceCurve.fit(np.array(FLAN_TOKENS) * factor, FLAN_LOSSES, form="power_law")
    result = effective_data_multiplier(curve, **MID_TRAINING, n_resamples=300)
    same = effective_data_multiplier(flan(), **MID_TRAINING, n_resamples=300)
    assert result.value == pytest.approx(same.value, rel=1e-5)
    assert result.low == pytest.approx(same.low, rel=1e-3)


@given(loss=st.floats(3.0, 4.0))
@settings(max_examples=15, deadline=None)
def test_a_run_is_worth_itself_once(loss):
    result = effective_data_multiplier(flan("auto"), candidate=loss, baseline=loss, n_resamples=200)
    assert result.value == pytest.approx(1.0)


@given(candidate=st.floats(3.0, 4.0), baseline=st.floats(3.0, 4.0))
@settings(max_examples=25, deadline=None)
def test_value_lies_within_what_the_points_allow(candidate, baseline):
    result = effective_data_multiplier(flan("auto"), candidate=candidate, baseline=baseline, n_resamples=200)
    assert result.at_least * (1 - 1e-9) <= result.value <= result.at_most * (1 + 1e-9)
    assert (result.value >= 1 - 1e-9) == (candidate <= baseline)


@pytest.mark.parametrize("bad", (float("nan"), float("inf"), []))
def test_losses_that_are_no_numbers_are_refused(bad):
    with pytest.raises(CurveError, match="finite"):
        effective_data_multiplier(flan(), candidate=bad, baseline=3.4)


def test_residual_and_gaussian_bootstraps_agree_roughly():
    results = [effective_data_multiplier(flan(), **MID_TRAINING, resampling=r) for r in ("gaussian", "residual")]
    assert results[0].low == pytest.approx(results[1].low, rel=0.3)
