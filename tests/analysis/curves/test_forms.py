"""Fits of the forms against independent solvers, and what must not change them: units, shifts, weights."""

# Shape suffixes in names:
# ruff: noqa: N806

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares, minimize_scalar

from analysis.curves.forms import (
    EXPONENT_GRID_G,
    FormFits,
    box_cox,
    explained_derivatives,
    fit_form,
    fit_form_huber,
    inverse_box_cox,
)

FORMS = ("power_law", "pure_power_law", "log")
LOG_TOKENS = np.log([1.0, 2.0, 4.0, 8.0, 16.0])

falling_losses = st.lists(st.floats(0.005, 0.4), min_size=5, max_size=5).map(
    lambda drops: 3.0 + np.cumsum(drops[::-1])[::-1]
)
exponents = st.one_of(st.just(0.0), st.floats(1e-12, 3.5))


def fitted_losses(fits: FormFits) -> np.ndarray:
    return fits.loss_at(LOG_TOKENS)[0]


@pytest.mark.parametrize("form", FORMS)
@given(losses=falling_losses, tokens=st.floats(0.3, 50))
@settings(max_examples=40, deadline=None)
def test_inverse_undoes_the_curve(form, losses, tokens):
    fits = fit_form(form, LOG_TOKENS, losses)
    loss = fits.loss_at(np.log([tokens]))
    if fits.slope_R[0] * np.exp(-fits.exponent_R[0] * np.log(tokens)) > 1e-6:
        assert fits.log_tokens_at(loss)[0, 0] == pytest.approx(np.log(tokens), abs=1e-6)


@given(x=st.floats(-6, 6), exponent=exponents)
@settings(deadline=None)
def test_box_cox_is_inverted_and_passes_into_the_logarithm(x, exponent):
    gain = box_cox(np.array([x]), np.array([exponent]))
    if np.exp(-exponent * x) > 1e-9:
        assert inverse_box_cox(gain, np.array([exponent]))[0] == pytest.approx(x, abs=1e-5)
    near_zero = box_cox(np.array([x]), np.array([1e-9]))
    assert near_zero[0] == pytest.approx(x, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
@given(losses=falling_losses, factor=st.floats(1e-6, 1e9))
@settings(max_examples=40, deadline=None)
def test_changing_the_unit_of_tokens_changes_nothing_but_the_unit(form, losses, factor):
    one, other = fit_form(form, LOG_TOKENS, losses), fit_form(form, LOG_TOKENS + np.log(factor), losses)
    np.testing.assert_allclose(other.loss_at(LOG_TOKENS + np.log(factor)), one.loss_at(LOG_TOKENS), atol=1e-7)


@pytest.mark.parametrize("form", ("power_law", "log"))
@given(losses=falling_losses, shift=st.floats(-2, 50))
@settings(max_examples=40, deadline=None)
def test_adding_a_constant_to_every_loss_shifts_the_curve(form, losses, shift):
    one, other = fit_form(form, LOG_TOKENS, losses), fit_form(form, LOG_TOKENS, losses + shift)
    np.testing.assert_allclose(fitted_losses(other), fitted_losses(one) + shift, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@given(losses=falling_losses)
@settings(max_examples=40, deadline=None)
def test_fitted_curves_fall(form, losses):
    line = fit_form(form, LOG_TOKENS, losses).loss_at(np.linspace(-2, 5, 50))[0]
    assert (np.diff(line) <= 1e-12).all()


def log_explained_gradient(form: str, losses_n: np.ndarray, exponent: float) -> tuple[float, float]:
    """d/dB and d²/dB² of ln(explained sum of squares) at LOG_TOKENS with equal weights."""
    x_n = LOG_TOKENS - LOG_TOKENS.mean()
    centred_n = losses_n if form == "pure_power_law" else losses_n - losses_n.mean()
    ones_n1 = np.ones((len(x_n), 1))
    first, second = explained_derivatives(form, centred_n[:, None], ones_n1, x_n[:, None], np.array([exponent]))
    return float(first[0]), float(second[0])


@pytest.mark.parametrize("form", ("power_law", "pure_power_law"))
@given(losses=falling_losses, exponent=st.one_of(st.floats(1e-4, 0.05), st.floats(0.05, 3.5)))
@settings(max_examples=60, deadline=None)
def test_derivatives_agree_with_finite_differences(form, losses, exponent):
    x_n = LOG_TOKENS - LOG_TOKENS.mean()

    def log_explained(at: float) -> float:
        if form == "pure_power_law":
            basis, y = np.exp(-at * x_n), losses
        else:
            basis = -box_cox(x_n, np.array(at))
            basis, y = basis - basis.mean(), losses - losses.mean()
        return float(2 * np.log(abs(basis @ y)) - np.log(basis @ basis))

    step = 1e-4 * (1 + exponent)
    first = (log_explained(exponent + step) - log_explained(exponent - step)) / (2 * step)
    exact, curvature = log_explained_gradient(form, losses, exponent)
    assert exact == pytest.approx(first, rel=1e-4, abs=1e-6)
    after, before = (log_explained_gradient(form, losses, exponent + s)[0] for s in (step, -step))
    assert curvature == pytest.approx((after - before) / (2 * step), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("form", ("power_law", "pure_power_law"))
def test_noisy_fits_agree_with_an_independent_solver(form):
    rng = np.random.default_rng(1)
    losses_Rn = 3.2 + 0.34 * np.exp(-0.6 * LOG_TOKENS) + 0.02 * rng.standard_normal((40, 5))
    fits = fit_form(form, LOG_TOKENS, losses_Rn)
    for index, losses in enumerate(losses_Rn):

        def rss(exponent: float, losses: np.ndarray = losses) -> float:
            basis = np.exp(-exponent * LOG_TOKENS)
            design = basis[:, None] if form == "pure_power_law" else np.column_stack([basis, np.ones(5)])
            solution = np.linalg.lstsq(design, losses, rcond=None)[0]
            # A rising curve is not admitted: its best falling neighbour is flat.
            if solution[0] <= 0:
                return float(((losses - losses.mean()) ** 2).sum())
            return float(((design @ solution - losses) ** 2).sum())

        starts = np.geomspace(1e-3, 4, 25)
        lowest = min(
            minimize_scalar(rss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).fun
            for low, high in pairwise(starts)
        )
        assert fits.rss_R[index] <= lowest * (1 + 1e-6) + 1e-15
        if 1e-2 < fits.exponent_R[index] < 3.9:
            assert fits.rss_R[index] == pytest.approx(lowest, rel=1e-6)


def test_weights_count_like_repeated_points():
    losses = np.array([3.55, 3.41, 3.37, 3.28, 3.27])
    weights = np.array([1.0, 2.0, 1.0, 3.0, 1.0])
    repeated = np.repeat(np.arange(5), weights.astype(int))
    weighted = fit_form("power_law", LOG_TOKENS, losses, weights)
    again = fit_form("power_law", LOG_TOKENS[repeated], losses[repeated])
    np.testing.assert_allclose(fitted_losses(weighted), fitted_losses(again), atol=1e-9)


def test_parameters_are_recovered_from_noisy_points():
    rng = np.random.default_rng(2)
    tokens = np.geomspace(1, 1000, 40)
    losses_Rn = 3.0 + 0.8 * tokens**-0.4 + 0.005 * rng.standard_normal((300, 40))
    fits = fit_form("power_law", np.log(tokens), losses_Rn)
    assert np.median(fits.exponent_R) == pytest.approx(0.4, abs=0.01)
    asymptote = fits.offset_R - fits.slope_R / fits.exponent_R
    assert np.median(asymptote) == pytest.approx(3.0, abs=0.01)


def test_huber_recovers_the_curve_that_least_squares_loses_to_an_outlier():
    tokens = np.geomspace(1, 64, 9)
    truth = 3.0 + 0.8 * tokens**-0.5
    losses = truth.copy()
    losses[4] += 0.5
    weights = np.ones(9)
    robust = fit_form_huber("power_law", np.log(tokens), losses, weights, 0.005)
    plain = fit_form("power_law", np.log(tokens), losses)
    assert np.abs(robust.loss_at(np.log(tokens))[0] - truth).max() < 0.02
    assert np.abs(plain.loss_at(np.log(tokens))[0] - truth).max() > 0.04


def test_huber_agrees_with_an_independent_solver():
    rng = np.random.default_rng(5)
    tokens = np.geomspace(1, 64, 8)
    delta = 0.01
    for _ in range(5):
        losses = 3.0 + 0.8 * tokens**-0.5 + 0.01 * rng.standard_t(2, 8)
        ours = fit_form_huber("power_law", np.log(tokens), losses, np.ones(8), delta)

        def residuals(p: np.ndarray, losses: np.ndarray = losses) -> np.ndarray:
            return p[0] * tokens ** -p[1] + p[2] - losses

        theirs = min(
            (least_squares(residuals, (0.8, b, 3.0), loss="huber", f_scale=delta, xtol=1e-15, ftol=1e-15, gtol=1e-15)
             for b in (0.2, 0.5, 1.0)), key=lambda fit: fit.cost,
        )  # fmt: skip
        assert ours.rss_R[0] <= 2 * theirs.cost * (1 + 1e-5)


def test_a_logarithm_is_a_power_law_with_exponent_zero():
    losses = 3.5 - 0.1 * LOG_TOKENS
    fits = fit_form("power_law", LOG_TOKENS, losses)
    assert fits.exponent_R[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(fitted_losses(fits), losses, atol=1e-9)


def test_losses_that_rise_give_a_flat_curve_without_an_inverse():
    fits = fit_form("power_law", LOG_TOKENS, 3.0 + 0.1 * LOG_TOKENS)
    assert fits.slope_R[0] == 0
    assert np.isinf(fits.log_tokens_at(np.array([[2.9, 9.0]]))).all()


def test_thousands_of_replicates_equal_their_single_fits():
    rng = np.random.default_rng(3)
    losses_Rn = 3.2 + 0.3 * np.exp(-0.5 * LOG_TOKENS) + 0.03 * rng.standard_normal((2500, 5))
    together = fit_form("power_law", LOG_TOKENS, losses_Rn)
    for index in (0, 7, 999, 1000, 2499):
        alone = fit_form("power_law", LOG_TOKENS, losses_Rn[index])
        assert together.rss_R[index] == pytest.approx(alone.rss_R[0], rel=1e-9, abs=1e-15)


def test_no_warning_escapes_from_extreme_points(recwarn):
    for losses in (
        [9e3, 5, 4, 4 - 1e-9, 4 - 2e-9],
        [3, 3 - 1e-15, 3 - 2e-15, 3 - 3e-15, 3 - 4e-15],
        [1e-9] * 4 + [0.0],
    ):
        for form in FORMS:
            fits = fit_form(form, np.log([1e-3, 1, 1e3, 1e9, 1e15]), np.array(losses))
            fits.log_tokens_at(np.array([[1e-9, 3.0, 1e9]]))
    assert len(EXPONENT_GRID_G) and not recwarn.list
