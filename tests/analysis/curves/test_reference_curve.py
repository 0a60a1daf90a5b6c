"""A reference curve and its inverse: chosen forms, bounds, warnings, and points that allow no curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import CurveError, ReferenceCurve
from tests.analysis.helpers import FLAN_LOSSES, FLAN_TOKENS, warning_codes

# Losses of a domain whose least-squares power law degenerates: nearly straight in ln N, bent the wrong way at its end.
DEGENERATE_LOSSES = [2.601, 2.682, 2.749, 2.811, 2.872]

drops = st.lists(st.floats(0.005, 0.4), min_size=2, max_size=9)


@st.composite
def falling_points(draw):
    steps = draw(drops)
    gaps = draw(st.lists(st.floats(0.3, 2), min_size=len(steps), max_size=len(steps)))
    tokens = np.exp(np.cumsum([0.0, *gaps])) * 1000
    losses = 2.5 + np.cumsum([*steps, 0.0][::-1])[::-1]
    return tokens, losses


def test_the_papers_curve_is_found_from_its_points():
    curve = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, form="power_law")
    assert curve.form == "power_law"
    assert curve.parameters["B"] == pytest.approx(0.6124, abs=1e-3)
    assert curve.parameters["C"] == pytest.approx(3.2024, abs=1e-3)
    assert {"few_points", "not_identified"} <= warning_codes(curve.warnings)


def test_auto_says_why_it_chose_a_form_on_five_points():
    curve = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES)
    assert curve.form in ("log", "pure_power_law", "power_law")
    assert "AICc" in curve.reason and "5 points" in curve.reason
    assert {fit.form for fit in curve.alternatives} == {"log", "pure_power_law", "power_law"}


def test_auto_takes_the_offset_where_many_points_show_it():
    tokens = np.geomspace(1, 256, 9)
    noise = 0.002 * np.random.default_rng(0).standard_normal(9)
    curve = ReferenceCurve.fit(tokens, 3.0 + 0.8 * tokens**-0.6 + noise)
    assert curve.form == "power_law"
    assert curve.parameters["B"] == pytest.approx(0.6, abs=0.1)


def test_auto_takes_an_exact_power_law_even_from_five_points():
    tokens = np.array([1.0, 2, 4, 8, 16])
    curve = ReferenceCurve.fit(tokens, 3.0 + 0.8 * tokens**-0.6)
    assert curve.form == "power_law" and "leaving each point out" in curve.reason


@pytest.mark.parametrize("form", ("auto", "power_law", "log", "monotone"))
@given(points=falling_points(), share=st.floats(0.02, 0.98))
@settings(max_examples=30, deadline=None)
def test_loss_and_effective_tokens_are_inverse(form, points, share):
    curve = ReferenceCurve.fit(*points, form)
    loss = float(curve.loss_at(points[0][0]) * (1 - share) + curve.loss_at(points[0][-1]) * share)
    tokens = curve.effective_tokens(loss)
    assert curve.loss_at(float(tokens)) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("form", ("auto", "power_law", "pure_power_law", "log", "monotone"))
@given(points=falling_points(), share=st.floats(0.05, 0.95), factor=st.floats(1e-3, 1e6))
@settings(max_examples=30, deadline=None)
def test_effective_tokens_scale_with_the_unit_of_tokens(form, points, share, factor):
    tokens, losses = points
    loss = losses[0] * (1 - share) + losses[-1] * share
    one = ReferenceCurve.fit(tokens, losses, form).effective_tokens(loss)
    other = ReferenceCurve.fit(tokens * factor, losses, form).effective_tokens(loss)
    if 0 < one < 1e12:
        assert float(other) == pytest.approx(float(one) * factor, rel=1e-4)


@pytest.mark.parametrize("form", ("power_law", "log", "monotone"))
@given(points=falling_points(), share=st.floats(0.05, 0.95), shift=st.floats(-2, 40))
@settings(max_examples=30, deadline=None)
def test_effective_tokens_do_not_change_where_all_losses_shift(form, points, share, shift):
    tokens, losses = points
    loss = losses[0] * (1 - share) + losses[-1] * share
    one = ReferenceCurve.fit(tokens, losses, form).effective_tokens(loss)
    other = ReferenceCurve.fit(tokens, losses + shift, form).effective_tokens(loss + shift)
    if 0 < one < 1e12:
        assert float(other) == pytest.approx(float(one), rel=1e-4)


@pytest.mark.parametrize("form", ("auto", "power_law", "pure_power_law", "log", "monotone"))
@given(points=falling_points(), pair=st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)))
@settings(max_examples=30, deadline=None)
def test_a_lower_loss_is_never_worth_less(form, points, pair):
    tokens, losses = points
    curve = ReferenceCurve.fit(tokens, losses, form)
    low, high = (losses[0] + (losses[-1] - losses[0]) * share for share in sorted(pair, reverse=True))
    assert float(curve.effective_tokens(low)) >= float(curve.effective_tokens(high)) * (1 - 1e-9)


@given(points=falling_points(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_order_of_points_is_irrelevant(points, seed):
    tokens, losses = points
    shuffled = np.random.default_rng(seed).permutation(len(tokens))
    one = ReferenceCurve.fit(tokens, losses, "power_law")
    other = ReferenceCurve.fit(tokens[shuffled], losses[shuffled], "power_law")
    assert one.parameters == other.parameters and one.warnings == other.warnings


def test_interpolation_passes_through_points_in_order():
    curve = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, form="monotone")
    for tokens, loss in zip(FLAN_TOKENS, FLAN_LOSSES, strict=True):
        assert float(curve.effective_tokens(loss)) == pytest.approx(tokens)
        assert not curve.effective_tokens(loss).extrapolated


def test_points_out_of_order_are_pooled_and_said():
    curve = ReferenceCurve.fit([1, 2, 4, 8], [3.5, 3.3, 3.4, 3.1], form="monotone")
    assert "not_monotone" in warning_codes(curve.warnings)
    assert float(curve.effective_tokens(3.35)) == pytest.approx(np.sqrt(8), rel=1e-9)
    assert curve.loss_at(np.sqrt(8)) == pytest.approx(3.35)


@pytest.mark.parametrize(("loss", "words"), ((3.7, "at most 1 tokens"), (3.2, "at least 16 tokens")))
def test_losses_outside_the_points_are_flagged_with_a_bound(loss, words):
    for form in ("auto", "power_law", "log", "monotone"):
        tokens = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, form).effective_tokens(loss)
        assert tokens.extrapolated and tokens.bound == words and "extrapolation" in warning_codes(tokens.warnings)


def test_extrapolation_continues_the_interpolation_without_a_jump():
    curve = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES)
    for end, loss in ((16, 3.2712), (1, 3.54749)):
        assert float(curve.effective_tokens(loss - 1e-7)) == pytest.approx(end, rel=1e-4)
        assert float(curve.effective_tokens(loss + 1e-7)) == pytest.approx(end, rel=1e-4)


def test_a_loss_that_the_form_never_reaches_is_worth_infinitely_many_tokens():
    tokens = ReferenceCurve.fit(FLAN_TOKENS, FLAN_LOSSES, form="power_law").effective_tokens(3.1)
    assert np.isinf(tokens) and tokens.extrapolated


def test_a_degenerate_power_law_is_named_and_its_parameters_are_the_logarithms():
    curve = ReferenceCurve.fit(FLAN_TOKENS, DEGENERATE_LOSSES, form="power_law")
    line = ReferenceCurve.fit(FLAN_TOKENS, DEGENERATE_LOSSES, form="log")
    assert "degenerate" in warning_codes(curve.warnings)
    assert set(curve.parameters) == {"a", "b"}
    assert all(abs(value) < 100 for value in curve.parameters.values())
    assert float(curve.effective_tokens(2.7)) == pytest.approx(float(line.effective_tokens(2.7)), rel=0.05)


def test_an_exponent_at_its_bound_is_named():
    curve = ReferenceCurve.fit([1, 2, 4, 8], [9.0, 3.0, 2.9999, 2.9998], form="power_law")
    assert "bound_hit" in warning_codes(curve.warnings)


def test_fewer_points_than_parameters_is_a_warning_not_an_error():
    curve = ReferenceCurve.fit([1, 2], [3.5, 3.3], form="power_law")
    assert "fewer_points_than_parameters" in warning_codes(curve.warnings)
    assert float(curve.effective_tokens(3.4)) == pytest.approx(np.sqrt(2), rel=1e-6)


def test_repeated_sizes_are_averaged_and_tell_the_noise():
    curve = ReferenceCurve.fit([1, 1, 2, 2, 4, 4], [3.52, 3.5, 3.4, 3.42, 3.31, 3.3], form="log")
    assert list(curve.target_tokens) == [1, 2, 4] and list(curve.counts) == [2, 2, 2]
    assert curve.losses[0] == pytest.approx(3.51)
    assert curve.seed_noise is not None and curve.seed_noise.dof == 3


@pytest.mark.parametrize(
    ("tokens", "losses", "words"),
    (
        ([1, 2, 4], [3, float("nan"), 2], "finite"),
        ([1, -2, 4], [3, 2.5, 2], "above zero"),
        ([0, 2, 4], [3, 2.5, 2], "above zero"),
        ([8], [3.0], "at least two target sizes"),
        ([8, 8], [3.0, 3.1], "at least two target sizes"),
        ([1, 2, 4], [3, 3, 3], "do not fall"),
        ([1, 2, 4], [3, 3.1, 3.2], "do not fall"),
        ([1, 2], [3, 2, 1], "do not go with"),
        ([], [], "no reference points"),
        (["a", "b"], [3, 2], "must be numbers"),
    ),
)
def test_points_without_a_curve_are_refused_with_a_reason(tokens, losses, words):
    for form in ("auto", "power_law", "monotone"):
        with pytest.raises(CurveError, match=words):
            ReferenceCurve.fit(tokens, losses, form)


def test_an_unknown_form_is_refused_with_the_known_ones():
    with pytest.raises(CurveError, match="power_law"):
        ReferenceCurve.fit([1, 2], [3, 2], "cubic")


def test_a_million_points_are_fitted_in_bounded_time():
    rng = np.random.default_rng(0)
    tokens = rng.uniform(1e3, 1e6, 1_000_000)
    curve = ReferenceCurve.fit(tokens, 3 + 5 * tokens**-0.3 + 0.01 * rng.standard_normal(len(tokens)))
    assert len(curve.target_tokens) <= 64 and "binned" in warning_codes(curve.warnings)
    assert float(curve.effective_tokens(3 + 5 * 1e5**-0.3)) == pytest.approx(1e5, rel=0.02)


def test_huber_is_chosen_by_its_threshold():
    tokens = np.geomspace(1, 64, 9)
    losses = 3.0 + 0.8 * tokens**-0.5
    losses[4] += 0.5
    robust = ReferenceCurve.fit(tokens, losses, "power_law", huber_delta=0.005)
    assert robust.parameters["B"] == pytest.approx(0.5, abs=0.05)
    assert float(robust.effective_tokens(3.2)) == pytest.approx((0.8 / 0.2) ** 2, rel=0.1)
