"""The answer in plain language: what replay is worth, and what to distrust."""

from collections.abc import Callable

import numpy as np

from analysis.caveats import Caveat
from analysis.curves.form_choice import ABOUT_THE_FORM
from analysis.curves.multiplier import EffectiveDataMultiplier, interval_text
from analysis.findings.headline import Headline
from analysis.findings.recommendation import Recommendation
from analysis.findings.study import Findings, GroupFindings
from analysis.findings.tables import best
from analysis.findings.tuning import edges_text


def tokens_text(tokens: float) -> str:
    """A number of tokens in words: "16 thousand", "4.1 million"."""
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if tokens >= size:
            return f"{tokens / size:.3g}{word}"
    return f"{tokens:.3g}"


def percent_text(fraction: float) -> str:
    """A fraction in per cent: 0.875 → "87.5 %", 1/9 → "11.1 %"."""
    return f"{round(100 * fraction, 1):g} %"


def answer(findings: Findings) -> str:
    """The first sentence of a report: what replay is worth in the group where most was tried."""
    return group_answer(findings.groups[0])


def group_answer(group: GroupFindings) -> str:
    """What replay is worth in one group, in one sentence; or why nothing can be said.

    It promises no more than the group's recommendation does.
    """
    if group.headline is None:
        return _without_multiplier(group)
    headline, result = group.headline, group.headline.multiplier
    row = headline.row
    where = f"On {tokens_text(row['target_tokens'])} target tokens"
    how = f"replaying {percent_text(row['replay_fraction'])}"
    if row["stage2_allocation"] < 1:
        how += f" (with {percent_text(1 - row['stage2_allocation'])} of the target data in stage 1)"
    if row["target_loss"] >= row["baseline_target_loss"]:
        return (
            f"{where}, no replay fraction that was tried beats training without replay: the best, "
            f"{percent_text(row['replay_fraction'])}, is worth {worth_text(result)}."
        )
    if result.low < 1:
        low, high = percent_text(headline.rho_low), percent_text(headline.rho_high)
        doubt = f"these runs cannot tell it from no gain, and any ρ from {low} to {high} may be best"
        return f"{where}, {how} is worth {worth_text(result)}; {doubt}."
    against = ", against an untuned baseline" if headline.untuned else ""
    if group.recommendation is not None and group.recommendation.verdict == "undecided":
        return f"{where}, {how} is worth {worth_text(result)}{against}; the losses themselves cannot be told apart yet."
    return f"{where}, {how} is worth {worth_text(result)}{against}; {_replay_to_keep(headline)}."


def recommendation_text(group: GroupFindings) -> str:
    """What to do in a group, in two sentences at most; what would settle or sharpen it in the last."""
    advice = group.recommendation
    if advice is None:
        return f"Recommendation: none. {_without_multiplier(group)}"
    rho, epochs = percent_text(advice.best_replay), _epochs_advice(advice)
    interval = f"{100 * advice.level:g} %: {advice.gain_low:+.3f} to {advice.gain_high:+.3f}"
    interval = interval if np.isfinite(advice.gain_low) else "nothing tells the noise"
    losses = f"{advice.target_loss:.3f} instead of {advice.baseline_target_loss:.3f} nats"
    losses += f", a gain of {advice.gain:+.3f} ({interval})"
    if advice.verdict == "replay":
        as_good = _as_good_text(advice.replay_range, advice.best_replay, percent_text)
        text = f"Recommendation: replay {rho}{as_good}{epochs}: target loss {losses}"
    elif advice.verdict == "no_replay":
        text = f"Recommendation: do not replay{epochs}: replaying {rho} ends in a target loss of {losses}"
    else:
        text = (
            f"Recommendation: these runs cannot tell whether to replay. At {rho}{epochs}, the target loss is {losses}"
        )
    if advice.generic_loss is not None and advice.baseline_generic_loss is not None:
        text += f"; generic loss with replay {advice.generic_loss:.3f}, without {advice.baseline_generic_loss:.3f}"
    if not advice.settle:
        return f"{text}."
    what = "What would settle it" if advice.verdict == "undecided" else "What would sharpen it"
    return f"{text}. {what}: {'; '.join(advice.settle)}."


def _epochs_advice(advice: Recommendation) -> str:
    """The number of epochs in words, "" where the table does not tell it."""
    if advice.target_epochs is None or advice.epochs_range is None:
        return ""
    number = f"{advice.target_epochs:g} epoch{'' if advice.target_epochs == 1 else 's'}"
    return f", {number}{_as_good_text(advice.epochs_range, advice.target_epochs, lambda value: f'{value:g}')}"


def _as_good_text(between: tuple[float, float], chosen: float, in_words: Callable[[float], str]) -> str:
    """The other values that may be as good, in words."""
    low, high = between
    if low == high == chosen:
        return ""
    return f" ({in_words(low)} to {in_words(high)} cannot be told from it)"


def worth_text(result: EffectiveDataMultiplier) -> str:
    """The multiplier in words, with its interval; outside the reference points the bound first."""
    interval = interval_text(result.low, result.high, result.level, digits=1)
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


def _replay_to_keep(headline: Headline) -> str:
    """Which replay fractions to use, from those that win in the replicates."""
    low, high = headline.rho_low, headline.rho_high
    if low == high:
        return f"keep ρ near {percent_text(low)}, the best of those tried in nearly every resampling"
    return f"keep ρ between {percent_text(low)} and {percent_text(high)}"


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
        f"On {tokens_text(row['target_tokens'])} target tokens, replaying {percent_text(row['replay_fraction'])} "
        f"{verb} the target loss by {abs(change):.3f} nats; how much data that is worth cannot be said: {reason}."
    )


def all_warnings(findings: Findings) -> list[Caveat]:
    """Warnings about the table, then about each group and its headline, each once."""
    caveats = list(findings.warnings)
    several = len(findings.groups) > 1
    for group in findings.groups:
        own = list(group.warnings) + _curve_warnings(group)
        if group.headline is not None:
            own += [w for w in group.headline.multiplier.warnings if w not in own]
            own += _edge_warnings(group.headline)
        if group.curve is None and several:
            own.append(Caveat("no_curve", group.reason))
        caveats += [caveat.about(group.name) if several else caveat for caveat in own]
    return list(dict.fromkeys(caveats))


def _edge_warnings(headline: Headline) -> list[Caveat]:
    """What lies on the edge of what was tried in the comparison that the answer rests on."""
    caveats = []
    if headline.largest_tried:
        rho = percent_text(headline.row["replay_fraction"])
        text = f"the best replay fraction, {rho}, is the largest tried; more may be better"
        caveats.append(Caveat("edge_replay", text))
    if headline.edges:
        text = f"at the best replay fraction, {edges_text(headline.edges)}; it may be worth more"
        caveats.append(Caveat("edge", text))
    return caveats


def _curve_warnings(group: GroupFindings) -> list[Caveat]:
    """Warnings of the curve; those about its form only where a loss was read off the form."""
    if group.curve is None:
        return []
    inside = group.headline is None or not group.headline.multiplier.extrapolated
    if group.curve.interpolates and inside:
        return [caveat for caveat in group.curve.warnings if caveat.code not in ABOUT_THE_FORM]
    return list(group.curve.warnings)
