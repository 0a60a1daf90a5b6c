"""The effective data multiplier: how many times the target data a candidate's loss is worth."""

# Shape suffixes in names:
# ruff: noqa: N806

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis.caveats import Caveat
from analysis.curves.bootstrap import percentile_interval, replicate_log_tokens
from analysis.curves.form_choice import admissible_forms
from analysis.curves.forms import Array
from analysis.curves.noise import Noise, pooled_noise
from analysis.curves.reference_curve import EffectiveTokens, ReferenceCurve
from analysis.errors import CurveError


@dataclass(frozen=True)
class EffectiveDataMultiplier:
    """N_eff(candidate) / N_eff(baseline) with an interval (docs/vocabulary.md: effective data multiplier).

    Attributes: `value`; `low`, `high` at nominal `level` (low 0 or high infinite: open on that side);
    `candidate_tokens`, `baseline_tokens`; `at_least`, `at_most`: what the reference points alone allow where a loss
    lies outside them (0 and inf otherwise: no bound is needed); `extrapolated`; `by_form`, the value under every
    admissible form; `replicates_outside`, the share of replicates that left the reference points; `warnings`.
    """

    value: float
    low: float
    high: float
    level: float
    candidate_tokens: EffectiveTokens
    baseline_tokens: EffectiveTokens
    at_least: float
    at_most: float
    extrapolated: bool
    replicates_outside: float
    by_form: dict[str, float] = field(default_factory=dict)
    warnings: tuple[Caveat, ...] = ()

    def __str__(self) -> str:
        return f"{multiplier_text(self)} ({interval_text(self.low, self.high, self.level)})"


def multiplier_text(result: EffectiveDataMultiplier) -> str:
    """The value in words for a user: "1.87×", or a bound with the extrapolated value behind it."""
    if not result.extrapolated or not (result.at_least > 0 or result.at_most < np.inf):
        return f"{result.value:.2f}×" if np.isfinite(result.value) else "unbounded"
    bound = f"at least {result.at_least:.2f}×" if result.at_least > 0 else f"at most {result.at_most:.2f}×"
    if result.at_least > 0 and result.at_most < np.inf:
        bound = f"between {result.at_least:.2f}× and {result.at_most:.2f}×"
    value = f"extrapolated: {result.value:.2f}×" if np.isfinite(result.value) else "extrapolated: unbounded"
    return f"{bound} ({value})"


def interval_text(low: float, high: float, level: float, digits: int = 2) -> str:
    """An interval in words: "90 %: 1.30–1.80", or "90 %: at least 1.30" where it is open on one side."""
    percent = f"{100 * level:g} %"
    if low <= 0 and np.isinf(high):
        return f"{percent}: unbounded"
    if np.isinf(high) or high > 1e6:
        return f"{percent}: at least {low:.{digits}f}"
    if low <= 1e-6:
        return f"{percent}: at most {high:.{digits}f}"
    return f"{percent}: {low:.{digits}f}–{high:.{digits}f}"


def effective_data_multiplier(
    curve: ReferenceCurve,
    *,
    candidate: float | Sequence[float],
    baseline: float | Sequence[float],
    level: float = 0.9,
    n_resamples: int = 4000,
    seed: int = 0,
    resampling: str = "gaussian",
) -> EffectiveDataMultiplier:
    """How many times the baseline's effective target data the candidate's loss is worth.

    Args: `curve`, from tuned runs without replay; `candidate` and `baseline`, losses in nats, one or one per seed
    (averaged; their scatter joins the estimate of noise); `level`, nominal; `n_resamples`, `seed`, `resampling` of
    the bootstrap ("gaussian" or "residual"), which redraws curve, candidate and baseline.

    Raises CurveError where a loss is no finite number.
    """
    losses = [np.atleast_1d(np.asarray(values, dtype=float)) for values in (candidate, baseline)]
    if not all(len(values) and np.isfinite(values).all() for values in losses):
        raise CurveError("candidate and baseline must be finite losses in nats")
    if not 0 < level < 1:
        raise CurveError(f"level must lie between 0 and 1, not {level}")
    means = np.array([values.mean() for values in losses])
    counts = np.array([len(values) for values in losses], dtype=float)
    curve = _with_seeds(curve, losses)
    caveats = list(curve.warnings)
    low, high, share = 0.0, np.inf, 0.0
    if curve.noise is None:
        text = "no repeated runs and no scatter about the curve tell how noisy a loss is; the interval is unbounded"
        caveats.append(Caveat("no_interval", text))
    else:
        log_tokens_R2, _ = replicate_log_tokens(curve, means, counts, np.array([-1, -1]), n_resamples, seed, resampling)
        log_ratio_R = _log_ratio(log_tokens_R2[:, 0], log_tokens_R2[:, 1])
        low, high = percentile_interval(log_ratio_R, level)
        bottom, top = np.log(curve.token_range)
        share = float(((log_tokens_R2 < bottom - 1e-9) | (log_tokens_R2 > top + 1e-9)).any(axis=1).mean())
    return multiplier_of(curve, means, (low, high, level), share, caveats)


def multiplier_of(
    curve: ReferenceCurve,
    losses: Array,
    interval: tuple[float, float, float],
    replicates_outside: float,
    caveats: list[Caveat],
) -> EffectiveDataMultiplier:
    """The multiplier of two `losses` (candidate, baseline) whose `interval` (low, high, level) is known.

    Adds value, bounds, the values under other forms, and what to distrust beside `caveats`.
    """
    tokens = [curve.effective_tokens(float(loss)) for loss in losses]
    logs = [np.log(np.maximum(float(t), 1e-300)) for t in tokens]
    value = float(np.exp(np.minimum(_log_ratio(logs[0], logs[1]), 709.0)))
    value = float("inf") if np.isinf(tokens[0]) and np.isfinite(tokens[1]) else value
    at_least, at_most = certain_bounds(curve, losses)
    caveats = caveats + _extrapolation_caveats(losses, tokens)
    low, high, level = interval
    if curve.form == "monotone" and tokens[0].extrapolated and losses[0] < losses[1]:
        high = np.inf
    if replicates_outside > 0.05 and not any(t.extrapolated for t in tokens):
        text = (
            f"{100 * replicates_outside:.0f} % of the bootstrap replicates left the reference "
            "points: the interval rests in part on extrapolation"
        )
        caveats.append(Caveat("interval_extrapolates", text))
    if np.isinf(high) and low > 0:
        caveats.append(Caveat("one_sided", "the interval has no upper end"))
    by_form = _value_by_form(curve, losses)
    finite = [v for v in by_form.values() if np.isfinite(v)]
    if len(finite) > 1 and max(finite) > 1.25 * min(finite):
        spread = ", ".join(f"{name} {v:.2f}×" for name, v in by_form.items())
        caveats.append(Caveat("form_matters", f"the admissible forms differ: {spread}"))
    return EffectiveDataMultiplier(
        value=value,
        low=low,
        high=high,
        level=level,
        candidate_tokens=tokens[0],
        baseline_tokens=tokens[1],
        at_least=at_least,
        at_most=at_most,
        extrapolated=any(t.extrapolated for t in tokens),
        replicates_outside=replicates_outside,
        by_form=by_form,
        warnings=tuple(caveats),
    )


def certain_bounds(curve: ReferenceCurve, losses: Array) -> tuple[float, float]:
    """(at least, at most) for the ratio of N_eff of `losses` (candidate, baseline) from the reference points alone.

    (0, inf) where both losses lie inside (nothing to bound) or beyond the same end (nothing is known).
    """
    above, below = curve.outside(losses)
    if not (above.any() or below.any()):
        return 0.0, np.inf
    low, high = curve.token_range
    inside = [float(curve.effective_tokens(float(loss))) for loss in losses]
    lowest = [0.0 if above[i] else high if below[i] else inside[i] for i in range(2)]
    highest = [low if above[i] else np.inf if below[i] else inside[i] for i in range(2)]
    at_least = 0.0 if np.isinf(highest[1]) else lowest[0] / highest[1]
    at_most = np.inf if lowest[1] == 0 else highest[0] / lowest[1]
    return at_least, at_most


def _log_ratio(log_candidate: Array, log_baseline: Array) -> Array:
    """Difference of log tokens; 0 where both are equally infinite."""
    with np.errstate(invalid="ignore"):
        ratio = np.asarray(log_candidate) - np.asarray(log_baseline)
    return np.where(np.isnan(ratio), 0.0, ratio)


def _with_seeds(curve: ReferenceCurve, losses: list[Array]) -> ReferenceCurve:
    """The curve with the scatter of candidate and baseline over seeds in its noise."""
    dof = sum(len(values) - 1 for values in losses)
    if dof == 0:
        return curve
    variance = sum(((values - values.mean()) ** 2).sum() for values in losses) / dof
    more = pooled_noise(curve.seed_noise, Noise(float(np.sqrt(variance)), dof, "the seeds of candidate and baseline"))
    return ReferenceCurve.fit(
        curve.target_tokens,
        curve.losses,
        curve.requested,
        counts=curve.counts,
        seed_noise=more,
        huber_delta=curve.huber_delta,
    )


def _extrapolation_caveats(losses: Array, tokens: list[EffectiveTokens]) -> list[Caveat]:
    caveats = []
    for name, loss, effective in zip(("candidate", "baseline"), losses, tokens, strict=True):
        if effective.extrapolated:
            side = "below" if effective.at_least > 0 else "above"
            text = f"the {name}'s loss {loss:.4f} lies {side} the reference points; it is worth {effective.bound}"
            caveats.append(Caveat("extrapolation", text))
    return caveats


def _value_by_form(curve: ReferenceCurve, losses: Array) -> dict[str, float]:
    values = {}
    for fit in admissible_forms(list(curve.alternatives)):
        log_candidate, log_baseline = fit.fits.log_tokens_at(losses[None])[0]
        ratio = float(_log_ratio(log_candidate, log_baseline))
        values[fit.form] = float(np.exp(ratio)) if ratio < 690 else float("inf")
    return values
