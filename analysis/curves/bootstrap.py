"""Replicates of a reference curve and of the losses that are read off it, thousands at once.

Shape suffixes: R replicates, n reference points, K cells (the losses that are inverted).
"""

# Shape suffixes in names:
# ruff: noqa: N803, N806

from collections.abc import Callable

import numpy as np

from analysis.curves.forms import PARAMETERS, Array
from analysis.curves.reference_curve import ReferenceCurve

RESAMPLINGS = ("gaussian", "residual")


def replicate_log_tokens(
    curve: ReferenceCurve,
    losses_K: Array,
    counts_K: Array,
    point_K: Array,
    n_resamples: int = 4000,
    seed: int = 0,
    resampling: str = "gaussian",
) -> tuple[Array, Array]:
    """ln N_eff (R, K) and losses (R, K) of cells in replicates of the whole study.

    Each replicate draws a noise level from what the noise estimate leaves open, σ* = σ·√(ν/χ²_ν) (so that few degrees
    of freedom widen the interval as Student's t does), then a new loss for every cell and reference point, and fits
    the curve again.

    Args: `losses_K`, mean nats; `counts_K`, runs behind each; `point_K`, the reference point that a cell is (its
    replicate is shared), or −1; `resampling`, "gaussian" errors or draws from the curve's "residual"s. Needs
    `curve.noise`.
    """
    if curve.noise is None:
        raise ValueError("the curve has no estimate of noise to draw replicates from")
    rng = np.random.default_rng(seed)
    dof = curve.noise.dof
    sigma_R1 = curve.noise.sigma * np.sqrt(dof / rng.chisquare(dof, size=(n_resamples, 1)))
    draw = _error_source(curve, resampling)
    n = len(curve.losses)
    error_Rn = sigma_R1 * draw(rng, (n_resamples, n)) / np.sqrt(curve.counts)
    error_RK = sigma_R1 * draw(rng, (n_resamples, len(losses_K))) / np.sqrt(counts_K)
    shared_K = point_K >= 0
    error_RK[:, shared_K] = error_Rn[:, point_K[shared_K]]
    losses_RK = losses_K + error_RK
    return curve.log_tokens(curve.fitted_losses() + error_Rn, losses_RK), losses_RK


def percentile_interval(log_ratio_R: Array, level: float) -> tuple[float, float]:
    """The central interval of ratios (low, high) from replicates of their logarithm.

    It is open where it is not finite: `low` may be 0 and `high` infinite.
    """
    clean_R = np.where(np.isnan(log_ratio_R), 0.0, log_ratio_R)
    tail = (1 - level) / 2
    low, high = np.quantile(clean_R, [tail, 1 - tail], method="inverted_cdf")
    return float(np.exp(low)), float(np.exp(min(high, 709.0))) if high < 690 else float("inf")


def _error_source(curve: ReferenceCurve, resampling: str) -> Callable[[np.random.Generator, tuple[int, int]], Array]:
    """A function (rng, shape) → errors of unit variance: standard normal, or drawn from the curve's residuals."""
    if resampling not in RESAMPLINGS:
        raise ValueError(f"resampling must be one of {', '.join(RESAMPLINGS)}, not {resampling!r}")
    if resampling == "gaussian" or curve.form not in PARAMETERS:
        return lambda rng, shape: rng.standard_normal(shape)
    pool = (curve.losses - curve.form_losses()) * np.sqrt(curve.counts)
    pool = pool - pool.mean()
    pool = pool / np.sqrt(np.mean(pool**2))
    return lambda rng, shape: rng.choice(pool, size=shape)
