"""The forms of a reference curve, fitted by variable projection to many replicates at once.

Shape suffixes: R replicates, n points, K queried losses, G values on the grid of exponents.

Every form is linear in its scale (and offset) once the exponent B is fixed, so that a fit is a search in one dimension
(Golub and Pereyra 1973; arXiv 2603.22339 for scaling laws). The power law with offset is held as

    L(N) = c − s·g_B(ln N),   g_B(x) = (1 − exp(−B·x)) / B,   so that A = s / B, C = c − s / B,

which passes into the logarithm L = c − s·ln N as B → 0: where A·N^(−B) + C degenerates (B → 0, A and C → ±∞), these
parameters stay finite and mean something.
"""

# Shape suffixes in names:
# ruff: noqa: N803, N806, N815

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LARGEST_EXPONENT = 4.0
EXPONENT_GRID_G: Array = np.concatenate([[0.0], np.geomspace(8e-3, LARGEST_EXPONENT, 39)])
PARAMETERS = {"power_law": 3, "pure_power_law": 2, "log": 2}
_LARGEST_LOG_TOKENS = 690.0
_BLOCK = 1000


@dataclass(frozen=True)
class FormFits:
    """Fits of one form to R replicates, in centred log tokens.

    Attributes: `form`; `centre`, the mean of ln N; `offset_R`, `slope_R`, `exponent_R`, the parameters c, s ≥ 0 and B
    of the module's text (for "pure_power_law": L = c·exp(−B·x), slope unused); `rss_R`, the weighted residual sum of
    squares (nats²).
    """

    form: str
    centre: float
    offset_R: Array
    slope_R: Array
    exponent_R: Array
    rss_R: Array

    def loss_at(self, log_tokens_K: Array) -> Array:
        """Losses (R, K) in nats at log tokens of shape (K,) or (R, K)."""
        x_RK = np.atleast_2d(log_tokens_K - self.centre)
        exponent_R1 = self.exponent_R[:, None]
        if self.form == "pure_power_law":
            return self.offset_R[:, None] * np.exp(-exponent_R1 * x_RK)
        return self.offset_R[:, None] - self.slope_R[:, None] * box_cox(x_RK, exponent_R1)

    def log_tokens_at(self, loss_RK: Array) -> Array:
        """Log tokens (R, K) at which the curves reach the losses.

        +inf where the curve never gets that low, −inf where a flat curve never gets that high.
        """
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.form == "pure_power_law":
                x_RK = np.log(self.offset_R[:, None] / loss_RK) / self.exponent_R[:, None]
            else:
                gain_RK = (self.offset_R[:, None] - loss_RK) / self.slope_R[:, None]
                x_RK = inverse_box_cox(gain_RK, self.exponent_R[:, None])
        x_RK = np.where(np.isnan(x_RK), 0.0, x_RK)
        x_RK = np.where(x_RK > _LARGEST_LOG_TOKENS, np.inf, np.where(x_RK < -_LARGEST_LOG_TOKENS, -np.inf, x_RK))
        return x_RK + self.centre


def box_cox(x: Array, exponent: Array) -> Array:
    """g_B(x) = (1 − exp(−B·x)) / B, and x where B = 0."""
    safe = np.where(exponent == 0, 1.0, exponent)
    return np.where(exponent == 0, x, -np.expm1(-safe * x) / safe)


def inverse_box_cox(gain: Array, exponent: Array) -> Array:
    """The x with g_B(x) = gain; +inf where gain ≥ 1/B, which no x reaches."""
    safe = np.where(exponent == 0, 1.0, exponent)
    change = -safe * gain
    reached = np.where(change > -1, -np.log1p(np.where(change > -1, change, 0.0)) / safe, np.inf)
    return np.where(exponent == 0, gain, reached)


def _box_cox_derivatives(x: Array, exponent: Array) -> tuple[Array, Array, Array]:
    """g_B(x), dg_B/dB and d²g_B/dB²; by their series where |B·x| is small."""
    t = exponent * x
    small = np.abs(t) < 2e-2
    t[small] = 1.0
    less = np.expm1(-t)
    value = -less / t
    first = (less + t + t * less) / (t * t)
    second = -(1 + less + 2 * first) / t
    if small.any():
        t = (exponent * x)[small]
        value[small] = 1 + t * (-1 / 2 + t * (1 / 6 + t * (-1 / 24 + t * (1 / 120 - t / 720))))
        first[small] = -1 / 2 + t * (1 / 3 + t * (-1 / 8 + t * (1 / 30 + t * (-1 / 144 + t / 840))))
        second[small] = 1 / 3 + t * (-1 / 4 + t * (1 / 10 + t * (-1 / 36 + t / 168)))
    square = x * x
    return x * value, square * first, square * x * second


def _basis(form: str, x: Array, exponent: Array) -> tuple[Array, Array, Array]:
    """The basis function of `form` at exponent B and its first two derivatives in B."""
    if form == "pure_power_law":
        value = np.exp(-exponent * x)
        return value, -x * value, x**2 * value
    value, first, second = _box_cox_derivatives(x, exponent)
    return -value, -first, -second


def _inner(first_nR: Array, second_nR: Array) -> Array:
    return np.einsum("nr,nr->r", first_nR, second_nR)


def explained_derivatives(
    form: str, y_nR: Array, root_nR: Array, x_n1: Array, exponent_R: Array, bases: tuple[Array, ...] | None = None
) -> tuple[Array, Array]:
    """First and second derivative (R,) in B of ln(explained sum of squares) = 2·ln⟨y, b⟩ − ln⟨b, b⟩.

    `root_nR`, roots of the weights, (n, R) or (n, 1); `y_nR`, losses times them, centred where the form has an offset:
    the basis then need be centred in ⟨b, b⟩ only.
    """
    bases = _basis(form, x_n1, exponent_R[None, :]) if bases is None else bases
    b, b_1, b_2 = (root_nR * basis for basis in bases)
    cov, cov_1, cov_2 = _inner(y_nR, b), _inner(y_nR, b_1), _inner(y_nR, b_2)
    square, square_1, square_2 = _inner(b, b), _inner(b, b_1), _inner(b_1, b_1) + _inner(b, b_2)
    if form != "pure_power_law":
        total = (root_nR**2).sum(axis=0)
        mean, mean_1, mean_2 = (_inner(root_nR, basis) / total for basis in (b, b_1, b_2))
        square = square - total * mean**2
        square_1 = square_1 - total * mean * mean_1
        square_2 = square_2 - total * (mean_1**2 + mean * mean_2)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope_y, slope_b = cov_1 / cov, square_1 / square
        gradient = 2 * (slope_y - slope_b)
        curvature = 2 * (cov_2 / cov - slope_y**2 - square_2 / square + 2 * slope_b**2)
    return np.where(np.isfinite(gradient), gradient, 0.0), np.where(np.isfinite(curvature), curvature, 0.0)


def explained_on_grid(form: str, y_nR: Array, root_nR: Array, x_n: Array) -> Array:
    """The root of the sum of squares that each exponent on the grid explains (R, G); below 0 where the loss rises.

    Arguments as those of `explained_derivatives`.
    """
    b_nG = _basis(form, x_n[:, None], EXPONENT_GRID_G[None, :])[0]
    weights_nR = root_nR**2
    square_RG = weights_nR.T @ b_nG**2
    if form != "pure_power_law":
        square_RG = square_RG - (weights_nR.T @ b_nG) ** 2 / weights_nR.sum(axis=0)[:, None]
    if len(square_RG) == 1:
        root_RG = y_nR.T @ (root_nR * b_nG / np.sqrt(square_RG))
    else:
        root_RG = (root_nR * y_nR).T @ b_nG / np.sqrt(square_RG)
    return root_RG


def _best_on_grid(form: str, y_nR: Array, root_nR: Array, x_n: Array) -> NDArray[np.intp]:
    """Index (R,) of the grid's best exponent, in blocks that stay in the cache and below BLAS' wish for threads."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, y_nR.shape[1], _BLOCK)]
    shared = root_nR.shape[1] == 1
    return np.concatenate(
        [
            explained_on_grid(form, y_nR[:, block], root_nR if shared else root_nR[:, block], x_n).argmax(axis=1)
            for block in blocks
        ]
    )


def _best_exponent(form: str, y_nR: Array, root_nR: Array, x_n: Array) -> Array:
    """The exponent (R,) that explains most: the best on the grid, then Newton's steps, halving where one leaves the
    bracket of grid neighbours; only replicates that still move are carried on."""
    best_R = _best_on_grid(form, y_nR, root_nR, x_n)
    exponent_R = EXPONENT_GRID_G[best_R]
    low_R = EXPONENT_GRID_G[np.maximum(best_R - 1, 0)]
    high_R = EXPONENT_GRID_G[np.minimum(best_R + 1, len(EXPONENT_GRID_G) - 1)]
    result_R = exponent_R.copy()
    active = np.arange(len(result_R))
    # The first step starts on the grid, where the bases are the same for all replicates.
    on_grid = _basis(form, x_n[:, None], EXPONENT_GRID_G[None, :])
    bases: tuple[Array, ...] | None = tuple(basis_nG[:, best_R] for basis_nG in on_grid)
    for _ in range(60):
        gradient_R, curvature_R = explained_derivatives(form, y_nR, root_nR, x_n[:, None], exponent_R, bases)
        bases = None
        low_R = np.where(gradient_R >= 0, exponent_R, low_R)
        high_R = np.where(gradient_R <= 0, exponent_R, high_R)
        with np.errstate(divide="ignore", invalid="ignore"):
            step_R = exponent_R - gradient_R / curvature_R
        safe_R = (curvature_R < 0) & (step_R >= low_R) & (step_R <= high_R)
        step_R = np.where(safe_R, step_R, (low_R + high_R) / 2)
        moved_R = np.abs(step_R - exponent_R) > 1e-7 * (1 + exponent_R) * safe_R + 1e-13
        result_R[active] = step_R
        if not moved_R.any():
            break
        active, exponent_R, low_R, high_R = active[moved_R], step_R[moved_R], low_R[moved_R], high_R[moved_R]
        y_nR = y_nR[:, moved_R]
        root_nR = root_nR if root_nR.shape[1] == 1 else root_nR[:, moved_R]
    return result_R


def fit_form(form: str, log_tokens_n: Array, losses_Rn: Array, weights_Rn: Array | None = None) -> FormFits:
    """Weighted least-squares fits of `form` to R rows of losses, all at once.

    Args: `form`, "power_law", "pure_power_law" or "log"; `log_tokens_n` (n,), ln of tokens; `losses_Rn` (R, n) nats;
    `weights_Rn` (n,) or (R, n), inverse relative variances, default 1. Slopes are held at s ≥ 0: where losses do not
    fall with tokens the fitted curve is flat.
    """
    y_nR = np.ascontiguousarray(np.atleast_2d(np.asarray(losses_Rn, dtype=float)).T)
    weights = np.ones(len(y_nR)) if weights_Rn is None else np.asarray(weights_Rn, dtype=float)
    w_nR = np.ascontiguousarray(np.atleast_2d(weights).T)
    centre = float(np.mean(log_tokens_n))
    x_n = log_tokens_n - centre
    root_nR = np.sqrt(w_nR)
    if form == "pure_power_law":
        exponent_R = _best_exponent(form, root_nR * y_nR, root_nR, x_n)
        basis_nR = np.exp(-exponent_R * x_n[:, None])
        weighted_nR = w_nR * basis_nR
        offset_R = _inner(weighted_nR, y_nR) / _inner(weighted_nR, basis_nR)
        residual_nR = y_nR - offset_R * basis_nR
        return FormFits(form, centre, offset_R, offset_R, exponent_R, (w_nR * residual_nR**2).sum(axis=0))
    total_R = w_nR.sum(axis=0)
    mean_R = (w_nR * y_nR).sum(axis=0) / total_R
    y_nR = y_nR - mean_R
    wy_nR = w_nR * y_nR
    exponent_R = np.zeros(y_nR.shape[1]) if form == "log" else _best_exponent(form, root_nR * y_nR, root_nR, x_n)
    gain_nR = box_cox(x_n[:, None], exponent_R)
    gain_mean_R = (w_nR * gain_nR).sum(axis=0) / total_R
    centred_nR = gain_nR - gain_mean_R
    slope_R = np.maximum(-_inner(wy_nR, centred_nR) / (w_nR * centred_nR**2).sum(axis=0), 0.0)
    residual_nR = y_nR + slope_R * centred_nR
    offset_R = mean_R + slope_R * gain_mean_R
    return FormFits(form, centre, offset_R, slope_R, exponent_R, (w_nR * residual_nR**2).sum(axis=0))


def fit_form_huber(form: str, log_tokens_n: Array, losses_n: Array, weights_n: Array, delta: float) -> FormFits:
    """The fit of `form` that minimises Huber's loss with threshold `delta` (nats), from many starts.

    Each step minimises the quadratic that lies above Huber's loss at the current residuals, globally in (c, s, B), so
    the loss never rises; the starts are the least-squares fit and one fit without each point. Returns one fit (R = 1).
    """
    starts_Rn = (
        np.vstack([weights_n, weights_n * (1 - np.eye(len(losses_n)))]) if len(losses_n) > 3 else weights_n[None]
    )
    y_Rn = np.broadcast_to(losses_n, starts_Rn.shape)
    fits = fit_form(form, log_tokens_n, y_Rn, starts_Rn)
    for _ in range(100):
        size_Rn = np.abs(y_Rn - fits.loss_at(log_tokens_n))
        factor_Rn = np.minimum(1.0, delta / np.maximum(size_Rn, 1e-300))
        following = fit_form(form, log_tokens_n, y_Rn, weights_n * factor_Rn)
        moved = np.abs(following.loss_at(log_tokens_n) - fits.loss_at(log_tokens_n)).max()
        fits = following
        if moved < 1e-13:
            break
    size_Rn = np.abs(y_Rn - fits.loss_at(log_tokens_n))
    huber_Rn = np.where(size_Rn <= delta, size_Rn**2, delta * (2 * size_Rn - delta))
    best = int((weights_n * huber_Rn).sum(axis=1).argmin())
    pick = slice(best, best + 1)
    return FormFits(
        form,
        fits.centre,
        fits.offset_R[pick],
        fits.slope_R[pick],
        fits.exponent_R[pick],
        (weights_n * huber_Rn).sum(axis=1)[pick],
    )
