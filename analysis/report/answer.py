"""The answer in plain language: what replay is worth, and what to distrust."""

from collections.abc import Callable

import numpy as np

from analysis.curves.multiplier import EffectiveDataMultiplier, shown_interval
from analysis.findings.recommendation import Recommendation, recommend
from analysis.findings.study import Findings, GroupFindings, Headline
from analysis.findings.tables import best


def shown_tokens(tokens: float) -> str:
    """A number of tokens in words: "16 thousand", "4.1 million"."""
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if tokens >= size:
            return f"{tokens / size:.3g}{word}"
    return f"{tokens:.3g}"


def shown_share(fraction: float) -> str:
    """A fraction in per cent: 0.875 → "87.5 %", 1/9 → "11.1 %"."""
    return f"{round(100 * fraction, 1):g} %"


def answer(findings: Findings) -> str:
    """The first sentence of a report: what replay is worth in the group where most was tried."""
    first = findings.groups[0]
    return group_answer(first, recommend(findings, first))


def group_answer(group: GroupFindings, advice: Recommendation | None) -> str:
    """What replay is worth in one group, in one sentence; or why nothing can be said. It agrees with the advice."""
    if group.headline is None:
        return _without_multiplier(group)
    headline, result = group.headline, group.headline.multiplier
    row = headline.row
    where = f"On {shown_tokens(row['target_tokens'])} target tokens"
    how = f"replaying {shown_share(row['replay_fraction'])}"
    if row["stage2_allocation"] < 1:
        how += f" (with {shown_share(1 - row['stage2_allocation'])} of the target data in stage 1)"
    if row["target_loss"] >= row["baseline_target_loss"]:
        return (
            f"{where}, no replay fraction that was tried beats training without replay: the best, "
            f"{shown_share(row['replay_fraction'])}, is worth {worth(result)}."
        )
    if result.low < 1:
        low, high = shown_share(headline.rho_low), shown_share(headline.rho_high)
        doubt = f"these runs cannot tell it from no gain, and any ρ from {low} to {high} may be best"
        return f"{where}, {how} is worth {worth(result)}; {doubt}."
    against = ", against an untuned baseline" if headline.untuned else ""
    if advice is not None and advice.verdict == "undecided":
        return f"{where}, {how} is worth {worth(result)}{against}; the losses themselves cannot be told apart yet."
    return f"{where}, {how} is worth {worth(result)}{against}; {_range(headline)}."


def recommended(group: GroupFindings, found: Recommendation | None) -> str:
    """What to do in a group, in two sentences at most; what would settle or sharpen it in the last."""
    if found is None:
        return f"Recommendation: none. {_without_multiplier(group)}"
    rho = shown_share(found.best_replay)
    interval = f"{100 * found.level:g} %: {found.gain_low:+.3f} to {found.gain_high:+.3f}"
    interval = interval if np.isfinite(found.gain_low) else "nothing tells the noise"
    losses = f"{found.target_loss:.3f} instead of {found.baseline_target_loss:.3f} nats"
    losses += f", a gain of {found.gain:+.3f} ({interval})"
    if found.verdict == "replay":
        text = (
            f"Recommendation: replay {rho}{_also(found.replay_range, found.best_replay, shown_share)}{_epochs(found)}: "
            f"target loss {losses}"
        )
    elif found.verdict == "no_replay":
        text = f"Recommendation: do not replay{_epochs(found)}: replaying {rho} ends in a target loss of {losses}"
    else:
        text = (
            f"Recommendation: these runs cannot tell whether to replay. At {rho}{_epochs(found)}, the target loss is "
            f"{losses}"
        )
    if found.generic_loss is not None and found.baseline_generic_loss is not None:
        text += f"; generic loss with replay {found.generic_loss:.3f}, without {found.baseline_generic_loss:.3f}"
    if not found.settle:
        return f"{text}."
    what = "What would settle it" if found.verdict == "undecided" else "What would sharpen it"
    return f"{text}. {what}: {'; '.join(found.settle)}."


def _epochs(found: Recommendation) -> str:
    if found.target_epochs is None or found.epochs_range is None:
        return ""
    number = f"{found.target_epochs:g} epoch{'' if found.target_epochs == 1 else 's'}"
    return f", {number}{_also(found.epochs_range, found.target_epochs, lambda value: f'{value:g}')}"


def _also(between: tuple[float, float], chosen: float, shown: Callable[[float], str]) -> str:
    """The other values that may be as good, in words."""
    low, high = between
    if low == high == chosen:
        return ""
    return f" ({shown(low)} to {shown(high)} cannot be told from it)"


def worth(result: EffectiveDataMultiplier) -> str:
    """The multiplier in words, with its interval; outside the reference points the bound first."""
    interval = shown_interval(result.low, result.high, result.level, digits=1)
    value = f"{result.value:.1f}×" if np.isfinite(result.value) else "unbounded"
    if not result.extrapolated:
        return f"{value} ({interval}) the target data"
    bounds = []
    if result.at_least > 0:
        bounds.append(f"at least {result.at_least:.1f}×")
    if np.isfinite(result.at_most):
        bounds.append(f"at most {result.at_most:.1f}×")
    if not bounds:
        return f"an amount of target data that lies beyond the reference points (extrapolated: {value}, {interval})"
    return f"{' and '.join(bounds)} the target data (beyond the reference points; extrapolated: {value}, {interval})"


def _range(headline: Headline) -> str:
    low, high = headline.rho_low, headline.rho_high
    if low == high:
        return f"keep ρ near {shown_share(low)}, the best of those tried in nearly every resampling"
    return f"keep ρ between {shown_share(low)} and {shown_share(high)}"


def _without_multiplier(group: GroupFindings) -> str:
    reason = group.reason or "no run with replay has a run without replay at the same target size"
    table = group.multipliers
    replay = table[table["replay_fraction"] > 0] if len(table) else table
    if replay.empty:
        return f"What replay is worth cannot be said: {reason}."
    row = best(replay)
    change = row["target_loss"] - row["baseline_target_loss"]
    verb = "lowers" if change < 0 else "raises"
    return (
        f"On {shown_tokens(row['target_tokens'])} target tokens, replaying {shown_share(row['replay_fraction'])} "
        f"{verb} the target loss by {abs(change):.3f} nats; how much data that is worth cannot be said: {reason}."
    )


def all_warnings(findings: Findings) -> list[str]:
    """Warnings about the table, then about each group and its headline, each once."""
    found = list(findings.warnings)
    several = len(findings.groups) > 1
    for group in findings.groups:
        own = list(group.warnings) + _curve_warnings(group)
        if group.headline is not None:
            own += [w for w in group.headline.multiplier.warnings if w not in own]
            if group.headline.largest_tried:
                rho = shown_share(group.headline.row["replay_fraction"])
                own.append(f"edge_replay: the best replay fraction, {rho}, is the largest tried; more may be better")
            if group.headline.row["edge"]:
                own.append(f"edge: at the best replay fraction, {group.headline.row['edge']}; it may be worth more")
        if group.curve is None and several:
            own.append(f"no_curve: {group.reason}")
        found += [f"{warning} [{group.name}]" if several else warning for warning in own]
    return list(dict.fromkeys(found))


_ABOUT_THE_FORM = ("few_points", "fewer_points", "degenerate", "not_identified", "bound_hit")


def _curve_warnings(group: GroupFindings) -> list[str]:
    """Warnings of the curve; those about its form only where a loss was read off the form."""
    if group.curve is None:
        return []
    inside = group.headline is None or not group.headline.multiplier.extrapolated
    if group.curve.interpolates and inside:
        return [warning for warning in group.curve.warnings if not warning.startswith(_ABOUT_THE_FORM)]
    return list(group.curve.warnings)
