"""Which form of reference curve the points support: AICc, leave-one-out, and what to distrust about each."""

# Shape suffixes in names:
# ruff: noqa: N806

from dataclasses import dataclass

import numpy as np

from analysis.caveats import Caveat
from analysis.curves.forms import (
    EXPONENT_GRID_G,
    LARGEST_EXPONENT,
    PARAMETERS,
    Array,
    FormFits,
    explained_on_grid,
    fit_form,
    fit_form_huber,
)

FORMULAS = {"power_law": "A·N^(−B) + C", "pure_power_law": "A·N^(−B)", "log": "a − b·ln N"}
TOO_FEW_POINTS = ("few_points", "fewer_points_than_parameters")
# What says something of a form's parameters only: it matters where a loss is read off the form.
ABOUT_THE_FORM = (*TOO_FEW_POINTS, "degenerate", "not_identified", "bound_hit")


@dataclass(frozen=True)
class FormFit:
    """One form fitted to the reference points.

    Attributes: `parameters` as shown to a user (those of the logarithm where a power law degenerates into it); `rss`,
    weighted residual sum of squares (nats²); `noise`, residual standard deviation of one run (nats), None without
    degrees of freedom; `aicc`, +inf where there are too few points for it; `leave_one_out`, root mean square error
    (nats) of predicting each point from the others; `warnings`; `fits`, one replicate.
    """

    form: str
    parameters: dict[str, float]
    n_points: int
    rss: float
    noise: float | None
    aicc: float
    leave_one_out: float
    warnings: tuple[Caveat, ...]
    fits: FormFits

    @property
    def falls(self) -> bool:
        """Whether the fitted loss falls with target tokens, so that it can be inverted."""
        steep = self.fits.exponent_R[0] if self.form == "pure_power_law" else self.fits.slope_R[0]
        return bool(steep > 0)


def examine_form(
    form: str, log_tokens_n: Array, losses_n: Array, counts_n: Array, huber_delta: float | None
) -> FormFit:
    """Fit `form` (n distinct log tokens, mean losses in nats, runs behind each) and judge the fit."""
    if huber_delta is None:
        fits = fit_form(form, log_tokens_n, losses_n, counts_n)
    else:
        fits = fit_form_huber(form, log_tokens_n, losses_n, counts_n, huber_delta)
    n, p = len(losses_n), PARAMETERS[form]
    rss = float(fits.rss_R[0])
    # A floor of a nanonat per point: exact input would otherwise win by an infinite margin.
    scatter = max(rss / n, 1e-18)
    aicc = n * np.log(scatter) + 2 * (p + 1) + 2 * (p + 1) * (p + 2) / (n - p - 2) if n > p + 2 else np.inf
    return FormFit(
        form=form,
        parameters=_parameters_for_users(fits, log_tokens_n, losses_n, counts_n),
        n_points=n,
        rss=rss,
        noise=float(np.sqrt(rss / (n - p))) if n > p else None,
        aicc=float(aicc),
        leave_one_out=_leave_one_out(form, log_tokens_n, losses_n, counts_n),
        warnings=tuple(_form_caveats(fits, log_tokens_n, losses_n, counts_n)),
        fits=fits,
    )


def choose_form(candidates: list[FormFit]) -> tuple[FormFit, str]:
    """The form to extrapolate with, and why.

    The least AICc among the forms that have one. A form with too many parameters for AICc at this number of points is
    taken all the same where it predicts left-out points with less than half the error.
    """
    candidates = [fit for fit in candidates if fit.falls]
    ranked = [fit for fit in candidates if np.isfinite(fit.aicc)]
    if not ranked:
        simplest = min(candidates, key=lambda fit: (PARAMETERS[fit.form], fit.rss))
        return simplest, f"{simplest.n_points} points are too few for AICc: the form with the fewest parameters"
    best = min(ranked, key=lambda fit: fit.aicc)
    unranked = [fit for fit in candidates if not np.isfinite(fit.aicc)]
    for fit in unranked:
        if fit.leave_one_out < best.leave_one_out / 2 and not is_degenerate(fit.fits):
            return fit, (
                f"leaving each point out, {FORMULAS[fit.form]} errs by {fit.leave_one_out:.4f} nats, "
                f"{FORMULAS[best.form]} by {best.leave_one_out:.4f}"
            )
    why = f"least AICc ({best.aicc:.1f}) among " + ", ".join(f"{FORMULAS[f.form]} ({f.aicc:.1f})" for f in ranked)
    if unranked:
        names = ", ".join(FORMULAS[fit.form] for fit in unranked)
        why += f"; {names} has too many parameters for AICc on {best.n_points} points"
    return best, why


def admissible_forms(candidates: list[FormFit]) -> list[FormFit]:
    """The forms that the points do not speak against.

    Falling, with as many points as parameters, AICc within 6 of the least, leave-one-out error at most 3 times the
    least (each where it can be computed).
    """
    able = [fit for fit in candidates if fit.falls and fit.n_points >= PARAMETERS[fit.form]]
    least_aicc = min((fit.aicc for fit in able), default=np.inf)
    least_error = min((fit.leave_one_out for fit in able), default=np.inf)
    return [
        fit
        for fit in able
        if (np.isinf(fit.aicc) or fit.aicc <= least_aicc + 6)
        and (np.isinf(fit.leave_one_out) or fit.leave_one_out <= 3 * least_error + 1e-9)
    ]


def _leave_one_out(form: str, log_tokens_n: Array, losses_n: Array, counts_n: Array) -> float:
    n = len(losses_n)
    if n <= PARAMETERS[form]:
        return float("inf")
    weights_nn = counts_n * (1 - np.eye(n))
    fits = fit_form(form, log_tokens_n, np.broadcast_to(losses_n, (n, n)), weights_nn)
    errors_n = np.diagonal(fits.loss_at(log_tokens_n)) - losses_n
    return float(np.sqrt(np.mean(errors_n**2)))


def power_law_parameters(fits: FormFits) -> dict[str, float]:
    """A, B, C (tokens and nats) of the first replicate; not finite where B = 0."""
    slope, exponent, offset = float(fits.slope_R[0]), float(fits.exponent_R[0]), float(fits.offset_R[0])
    if exponent == 0:
        return {"A": float("inf"), "B": 0.0, "C": float("-inf")}
    return {
        "A": slope / exponent * float(np.exp(exponent * fits.centre)),
        "B": exponent,
        "C": offset - slope / exponent,
    }


def is_degenerate(fits: FormFits) -> bool:
    """Whether a power law with offset is a logarithm in disguise: no exponent, or a loss below zero at the end."""
    return fits.form == "power_law" and not power_law_parameters(fits)["C"] >= 0


def _parameters_for_users(fits: FormFits, log_tokens_n: Array, losses_n: Array, counts_n: Array) -> dict[str, float]:
    if fits.form == "pure_power_law":
        exponent = float(fits.exponent_R[0])
        return {"A": float(fits.offset_R[0] * np.exp(exponent * fits.centre)), "B": exponent}
    if fits.form == "power_law" and not is_degenerate(fits):
        return power_law_parameters(fits)
    line = fit_form("log", log_tokens_n, losses_n, counts_n)
    slope = float(line.slope_R[0])
    return {"a": float(line.offset_R[0]) + slope * line.centre, "b": slope}


def _form_caveats(fits: FormFits, log_tokens_n: Array, losses_n: Array, counts_n: Array) -> list[Caveat]:
    n, p = len(losses_n), PARAMETERS[fits.form]
    caveats = []
    if n < p:
        text = f"{n} points cannot fix the {p} parameters of {FORMULAS[fits.form]}"
        caveats.append(Caveat("fewer_points_than_parameters", text))
    elif n < p + 3:
        text = (
            f"{n} points for the {p} parameters of {FORMULAS[fits.form]} leave "
            f"{n - p} degree{'s' if n - p != 1 else ''} of freedom"
        )
        caveats.append(Caveat("few_points", text))
    if is_degenerate(fits):
        text = (
            "the best A·N^(−B) + C has B → 0 and C below 0 nats, a logarithm in disguise; "
            "its A, B and C mean nothing, the logarithm's parameters are shown"
        )
        caveats.append(Caveat("degenerate", text))
    if fits.form != "log" and fits.exponent_R[0] >= LARGEST_EXPONENT:
        caveats.append(Caveat("bound_hit", f"the exponent B stands at the largest that is tried, {LARGEST_EXPONENT:g}"))
    if n > p and fits.form == "power_law":
        caveats.extend(_identifiability(log_tokens_n, losses_n, counts_n))
    return caveats


def _identifiability(log_tokens_n: Array, losses_n: Array, counts_n: Array) -> list[Caveat]:
    """A caveat where the profile likelihood of B is flat: its 90 % interval includes 0 or the upper bound."""
    from scipy.special import stdtrit

    centred_n = losses_n - np.average(losses_n, weights=counts_n)
    x_n = log_tokens_n - log_tokens_n.mean()
    total = (counts_n * centred_n**2).sum()
    root_n1 = np.sqrt(counts_n)[:, None]
    explained_G = np.maximum(explained_on_grid("power_law", root_n1 * centred_n[:, None], root_n1, x_n)[0], 0.0)
    rss_G = total - explained_G**2
    dof = len(losses_n) - PARAMETERS["power_law"]
    floor = max(float(rss_G.min()), 1e-18 * len(losses_n))
    plausible_G = rss_G <= floor * (1 + stdtrit(dof, 0.95) ** 2 / dof)
    low, high = EXPONENT_GRID_G[plausible_G][[0, -1]]
    if low > 0 and high < LARGEST_EXPONENT:
        return []
    upper = f"{high:.2g}" if high < LARGEST_EXPONENT else f"at least {high:.2g}"
    text = f"the profile likelihood of B is flat, any value from {low:.2g} to {upper} fits as well (90 %)"
    return [Caveat("not_identified", text)]
