"""Monotone interpolation in log N: no form, valid inside the range of the reference points only.

Shape suffixes: R replicates, n points, K queries.
"""

# Shape suffixes in names:
# ruff: noqa: N803, N806

import numpy as np

from analysis.curves.forms import Array, FormFits


def monotone_knots(log_tokens_n: Array, losses_Rn: Array, weights_n: Array) -> tuple[Array, Array]:
    """The knots of the falling curves nearest to the points: log tokens (R, n) and losses (R, n).

    Points out of order are pooled (isotonic regression, by its min–max formula) and stand at their block's mean log
    tokens and mean loss; the points of a block repeat one knot.
    """
    n = len(log_tokens_n)
    if (np.diff(losses_Rn, axis=1) < 0).all():
        return np.broadcast_to(log_tokens_n, losses_Rn.shape), losses_Rn
    total = np.concatenate([[0.0], np.cumsum(weights_n)])
    zero_R1 = np.zeros((len(losses_Rn), 1))
    sum_Rn = np.hstack([zero_R1, np.cumsum(weights_n * losses_Rn, axis=1)])
    log_sum = np.concatenate([[0.0], np.cumsum(weights_n * log_tokens_n)])
    # With losses falling in i: fitted_i = min over a ≤ i of max over b ≥ i of mean(a … b).
    fitted_Rn = np.full(losses_Rn.shape, np.inf)
    for start in range(n):
        mean_Rb = (sum_Rn[:, start + 1 :] - sum_Rn[:, [start]]) / (total[start + 1 :] - total[start])
        tail_max_Rb = np.maximum.accumulate(mean_Rb[:, ::-1], axis=1)[:, ::-1]
        fitted_Rn[:, start:] = np.minimum(fitted_Rn[:, start:], tail_max_Rb)
    near = 1e-12 * (1 + np.abs(fitted_Rn))
    same_left_Rn = np.hstack([zero_R1 > 1, np.abs(np.diff(fitted_Rn, axis=1)) <= near[:, 1:]])
    index_n = np.arange(n)
    first_Rn = np.maximum.accumulate(np.where(same_left_Rn, 0, index_n), axis=1)
    ends_Rn = np.hstack([~same_left_Rn[:, 1:], zero_R1 < 1])
    last_Rn = np.minimum.accumulate(np.where(ends_Rn, index_n, n)[:, ::-1], axis=1)[:, ::-1]
    knots_Rn = (log_sum[last_Rn + 1] - log_sum[first_Rn]) / (total[last_Rn + 1] - total[first_Rn])
    return knots_Rn, fitted_Rn


def interpolate_log_tokens(knots_Rn: Array, fitted_Rn: Array, loss_RK: Array, beyond: FormFits | None) -> Array:
    """Log tokens (R, K) at which the falling piecewise linear curves reach the losses.

    Beyond the end knots the curve follows the form `beyond`, shifted in log tokens so that it passes through the end
    knot; without a form the end knot itself, a bound, is returned.
    """
    n = knots_Rn.shape[1]
    passed_RK = (fitted_Rn[:, None, :] >= loss_RK[:, :, None]).sum(axis=2)
    left_RK, right_RK = np.clip(passed_RK - 1, 0, n - 1), np.clip(passed_RK, 0, n - 1)
    loss_left_RK = np.take_along_axis(fitted_Rn, left_RK, axis=1)
    drop_RK = loss_left_RK - np.take_along_axis(fitted_Rn, right_RK, axis=1)
    share_RK = np.clip((loss_left_RK - loss_RK) / np.where(drop_RK > 0, drop_RK, 1.0), 0.0, 1.0)
    start_RK = np.take_along_axis(knots_Rn, left_RK, axis=1)
    result_RK = start_RK + np.where(drop_RK > 0, share_RK, 0.0) * (
        np.take_along_axis(knots_Rn, right_RK, axis=1) - start_RK
    )
    if beyond is None:
        return result_RK
    for end, outside_RK in ((0, loss_RK > fitted_Rn[:, :1]), (-1, loss_RK < fitted_Rn[:, -1:])):
        if outside_RK.any():
            form_end_R1 = beyond.log_tokens_at(fitted_Rn[:, [end]])
            form_RK = beyond.log_tokens_at(loss_RK)
            step_RK = np.where(np.isinf(form_RK), form_RK, form_RK - np.where(np.isinf(form_end_R1), 0, form_end_R1))
            step_RK = np.where(np.isinf(form_end_R1), np.inf if end else -np.inf, step_RK)
            result_RK = np.where(outside_RK, knots_Rn[:, [end]] + step_RK, result_RK)
    return result_RK


def interpolate_loss(knots_n: Array, fitted_n: Array, log_tokens_K: Array, beyond: FormFits | None) -> Array:
    """Losses (K,) of one falling piecewise linear curve; beyond its ends as `interpolate_log_tokens`."""
    result_K = np.interp(log_tokens_K, knots_n, fitted_n)
    if beyond is None:
        return result_K
    for end, outside_K in ((0, log_tokens_K < knots_n[0]), (-1, log_tokens_K > knots_n[-1])):
        form_end = beyond.log_tokens_at(fitted_n[None, [end]])[0, 0]
        if outside_K.any() and np.isfinite(form_end):
            shifted_K = log_tokens_K[outside_K] - knots_n[end] + form_end
            result_K[outside_K] = beyond.loss_at(shifted_K)[0]
    return result_K
