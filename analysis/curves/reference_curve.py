"""The reference curve: the loss that N unique target tokens buy without replay, and its inverse."""

# Shape suffixes in names:
# ruff: noqa: N803, N806

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.caveats import Caveat
from analysis.curves.form_choice import FORMULAS, TOO_FEW_POINTS, FormFit, choose_form, examine_form
from analysis.curves.forms import PARAMETERS, Array, FormFits, fit_form
from analysis.curves.monotone import interpolate_log_tokens, interpolate_loss, monotone_knots
from analysis.curves.noise import Noise, noise_from_repeats, noise_of
from analysis.curves.points import checked_points, distinct_points, order_caveats
from analysis.errors import CurveError


class EffectiveTokens(float):
    """Target tokens that reach a loss: a number with the bounds that the reference points allow.

    Attributes: `at_least`, `at_most`, tokens: what the reference points alone allow where the loss lies outside them
    (0 and inf otherwise: no bound is needed).
    """

    at_least: float
    at_most: float

    def __new__(cls, tokens: float, at_least: float = 0.0, at_most: float = float("inf")) -> "EffectiveTokens":
        number = super().__new__(cls, tokens)
        number.at_least, number.at_most = at_least, at_most
        return number

    @property
    def extrapolated(self) -> bool:
        """Whether the loss lies outside the reference points."""
        return self.at_least > 0 or self.at_most < float("inf")

    @property
    def bound(self) -> str:
        """In words: "at most …" or "at least …" where the loss lies outside the reference points, else ""."""
        if not self.extrapolated:
            return ""
        return f"at least {self.at_least:.4g} tokens" if self.at_least > 0 else f"at most {self.at_most:.4g} tokens"

    @property
    def warnings(self) -> tuple[Caveat, ...]:
        """A warning where the loss lies outside the reference points."""
        if not self.extrapolated:
            return ()
        return (Caveat("extrapolation", f"outside the reference points: {self.bound}"),)

    @property
    def value(self) -> float:
        """The tokens as a plain float."""
        return float(self)

    def __repr__(self) -> str:
        return f"{float(self):.6g} tokens" + (f" (extrapolated; {self.bound})" if self.bound else "")

    __str__ = __repr__


@dataclass(frozen=True)
class ReferenceCurve:
    """L(N), fitted to tuned runs without replay (study 4 of the paper; `fit` makes one).

    Attributes: `form`, chosen or asked for; `requested`; `reason`, why this form; `target_tokens` (n,), distinct and
    rising; `losses` (n,), mean nats at each; `counts` (n,), runs behind each; `parameters` of the form, in tokens and
    nats; `alternatives`, every form that was examined; `noise` of one run's loss, None where nothing tells it;
    `seed_noise`, that part which repeated runs tell; `warnings`, strings "code: text" (`Caveat`s).
    """

    form: str
    requested: str
    reason: str
    target_tokens: Array
    losses: Array
    counts: Array
    parameters: dict[str, float]
    alternatives: tuple[FormFit, ...]
    noise: Noise | None
    seed_noise: Noise | None
    huber_delta: float | None
    warnings: tuple[Caveat, ...]

    @classmethod
    def fit(
        cls,
        target_tokens: Sequence[float] | Array,
        losses: Sequence[float] | Array,
        form: str = "auto",
        *,
        counts: Sequence[float] | Array | None = None,
        seed_noise: Noise | None = None,
        huber_delta: float | None = None,
    ) -> "ReferenceCurve":
        """Fit the curve.

        Args: `target_tokens`, unique tokens N > 0; `losses`, nats, one for each (repeated N are averaged and tell the
        noise); `form`, "power_law" (A·N^(−B) + C, the paper's), "pure_power_law" (C = 0), "log", "monotone" (no form,
        valid inside the range) or "auto": interpolation inside the range, and beyond it the form that AICc and
        leave-one-out choose; `counts`, runs behind each loss; `seed_noise`, where it is known from elsewhere;
        `huber_delta`, nats: Huber's loss with this threshold instead of least squares.

        Raises CurveError where the points allow no curve: fewer than two sizes, values that are no numbers, losses
        that do not fall.
        """
        tokens, losses_n, counts_n = checked_points(target_tokens, losses, counts, form)
        seed_noise = seed_noise or noise_from_repeats(tokens, losses_n)
        tokens, losses_n, counts_n, caveats = distinct_points(tokens, losses_n, counts_n)
        if len(tokens) < 2:
            raise CurveError(f"a reference curve needs at least two target sizes; there is only {tokens[0]:g} tokens")
        examined = _examined(form, np.log(tokens), losses_n, counts_n, huber_delta)
        chosen, reason = _fit_to_use(form, examined)
        caveats += order_caveats(tokens, losses_n)
        caveats += [c for c in chosen.warnings if form != "monotone" or c.code in TOO_FEW_POINTS]
        residual = None
        if chosen.noise is not None:
            dof = len(tokens) - PARAMETERS[chosen.form]
            residual = Noise(chosen.noise, dof, "the scatter of the reference points about the curve")
        noise, lack_of_fit = _noise_for(form, seed_noise, residual)
        return cls(
            form="monotone" if form == "monotone" else chosen.form,
            requested=form,
            reason=reason,
            target_tokens=tokens,
            losses=losses_n,
            counts=counts_n,
            parameters={} if form == "monotone" else chosen.parameters,
            alternatives=tuple(examined),
            noise=noise,
            seed_noise=seed_noise,
            huber_delta=huber_delta,
            warnings=tuple(caveats + lack_of_fit),
        )

    @property
    def interpolates(self) -> bool:
        """Whether losses inside the range are inverted by monotone interpolation, not through the form."""
        return self.requested in ("auto", "monotone")

    @property
    def token_range(self) -> tuple[float, float]:
        """The target tokens (lowest, highest) inside which nothing is extrapolated."""
        if self.interpolates:
            knots_n, _ = self._knots()
            return float(np.exp(knots_n[0])), float(np.exp(knots_n[-1]))
        return float(self.target_tokens[0]), float(self.target_tokens[-1])

    def loss_at(self, target_tokens: float | Sequence[float] | Array) -> Any:
        """Loss in nats at a number of target tokens, or an array of losses for an array of them."""
        x_K = np.log(np.atleast_1d(np.asarray(target_tokens, dtype=float)))
        if self.interpolates:
            knots_n, fitted_n = self._knots()
            loss_K = interpolate_loss(knots_n, fitted_n, x_K, self._beyond())
        else:
            loss_K = self._fits().loss_at(x_K)[0]
        return float(loss_K[0]) if np.ndim(target_tokens) == 0 else loss_K

    def effective_tokens(self, loss: float) -> EffectiveTokens:
        """N_eff = L⁻¹(loss): how many unique target tokens reach `loss` (nats) without replay.

        Outside the reference points the result is flagged and carries a bound; +inf where the form never gets so low.
        """
        if not np.isfinite(loss):
            raise CurveError(f"a loss must be a finite number of nats, not {loss}")
        log_tokens = self.log_tokens(self.losses[None], np.array([[float(loss)]]))[0, 0]
        low, high = self.token_range
        tokens = float(np.exp(log_tokens)) if log_tokens < 700 else float("inf")
        outside_low, outside_high = self.outside(np.array([loss]))
        if outside_low[0]:
            return EffectiveTokens(tokens, at_most=low)
        if outside_high[0]:
            return EffectiveTokens(tokens, at_least=high)
        return EffectiveTokens(tokens)

    def outside(self, losses_K: Array) -> tuple[Any, Any]:
        """Which losses lie above (worth less than the smallest size) and below (more than the largest) the curve."""
        if self.interpolates:
            _, fitted_n = self._knots()
            top, bottom = fitted_n[0], fitted_n[-1]
        else:
            top, bottom = self._fits().loss_at(np.log(self.target_tokens[[0, -1]]))[0]
        slack = 1e-12 * (1 + abs(top))
        return losses_K > top + slack, losses_K < bottom - slack

    def log_tokens(self, losses_Rn: Array, query_RK: Array) -> Array:
        """ln N_eff (R, K) of queried losses, by this curve's method through replicates (R, n) of its points."""
        if self.interpolates:
            knots_Rn, fitted_Rn = monotone_knots(np.log(self.target_tokens), losses_Rn, self.counts)
            beyond = self._fit_to(losses_Rn) if self.requested == "auto" else None
            return interpolate_log_tokens(knots_Rn, fitted_Rn, query_RK, beyond)
        return self._fit_to(losses_Rn).log_tokens_at(query_RK)

    def _fit_to(self, losses_Rn: Array) -> FormFits:
        """The form through replicates (R, n) of the points; through the points themselves it is fitted once."""
        if np.array_equal(losses_Rn, self.losses[None]):
            return self._fit_to_own_points
        return fit_form(self.form, np.log(self.target_tokens), losses_Rn, self._weights())

    @cached_property
    def _fit_to_own_points(self) -> FormFits:
        return fit_form(self.form, np.log(self.target_tokens), self.losses[None], self._weights())

    def fitted_losses(self) -> Array:
        """Losses (n,) of the curve at its own points, nats: about which replicates are drawn."""
        return self.losses if self.interpolates else self.form_losses()

    def form_losses(self) -> Array:
        """Losses (n,) of the form at the curve's own points, nats."""
        return self._fits().loss_at(np.log(self.target_tokens))[0]

    def _weights(self) -> Array:
        if self.huber_delta is None or self.form == "monotone":
            return self.counts
        size_n = np.abs(self.form_losses() - self.losses)
        return self.counts * np.minimum(1.0, self.huber_delta / np.maximum(size_n, 1e-300))

    def _fits(self) -> FormFits:
        return next(fit for fit in self.alternatives if fit.form == self.form).fits

    def _beyond(self) -> FormFits | None:
        return None if self.requested == "monotone" else self._fits()

    def _knots(self) -> tuple[Array, Array]:
        knots_Rn, fitted_Rn = monotone_knots(np.log(self.target_tokens), self.losses[None], self.counts)
        return knots_Rn[0], fitted_Rn[0]


def _examined(form: str, x_n: Array, losses_n: Array, counts_n: Array, delta: float | None) -> list[FormFit]:
    """Every form that the points can carry, and the one that was asked for whatever they can carry."""
    able = [f for f in PARAMETERS if form == f or len(x_n) >= PARAMETERS[f]]
    if losses_n.min() <= 0:
        if form == "pure_power_law":
            raise CurveError("A·N^(−B) cannot reach losses of zero or below")
        able.remove("pure_power_law")
    return [examine_form(f, x_n, losses_n, counts_n, delta) for f in able]


def _fit_to_use(form: str, examined: list[FormFit]) -> tuple[FormFit, str]:
    """The fit that was asked for, or the one that AICc and leave-one-out choose, and why."""
    falling = [fit for fit in examined if fit.falls]
    if not falling or (form in PARAMETERS and form not in [fit.form for fit in falling]):
        raise CurveError("the reference losses do not fall with target tokens: there is no curve to invert")
    if form in PARAMETERS:
        return next(fit for fit in examined if fit.form == form), f"{FORMULAS[form]} was asked for"
    chosen, reason = choose_form(examined)
    if form == "monotone":
        return chosen, "monotone interpolation in log N was asked for: nothing is known beyond the reference points"
    return chosen, f"monotone interpolation inside the range; beyond it {FORMULAS[chosen.form]}: {reason}"


def _noise_for(form: str, seeds: Noise | None, residual: Noise | None) -> tuple[Noise | None, list[Caveat]]:
    """The noise for intervals; where a form that was asked for misses the points by far more, that scatter instead."""
    if form in PARAMETERS and seeds and residual and seeds.dof >= 2 and residual.sigma > 3 * seeds.sigma:
        text = (
            f"the points lie {residual.sigma:.4f} nats about the form, "
            f"repeated runs differ by {seeds.sigma:.4f}; the interval uses the former"
        )
        return residual, [Caveat("lack_of_fit", text)]
    return noise_of(seeds, residual), []
