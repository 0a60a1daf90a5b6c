"""The figures that answer the question: reference curve with arrows, loss and multiplier against replay."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.curves.multiplier import EffectiveDataMultiplier
from analysis.curves.reference_curve import ReferenceCurve
from analysis.findings.comparison import best_replay_cells
from analysis.findings.evidence import Evidence, NotEnoughError
from analysis.findings.recommendation import Recommendation
from analysis.findings.study import GroupFindings
from analysis.findings.tables import best, parts, rows
from analysis.report.figures.canvas import (
    BLACK,
    VERMILION,
    Drawing,
    drawer,
    legend_above,
    panel_grid,
    panels,
    plain_text,
    series_style,
    short_tokens,
    token_ticks,
)

MOST_SERIES = 7
MOST_PANELS = 6


@drawer
def reference_curve(evidence: Evidence) -> Drawing:
    """Reference curve, the best candidate at each N, and the arrow that is its multiplier; a panel a group."""
    groups = [group for group in evidence.findings.groups if group.curve is not None][:MOST_PANELS]
    if not groups:
        reasons = dict.fromkeys(group.reason for group in evidence.findings.groups)
        raise NotEnoughError("no group has a reference curve: " + "; ".join(reasons))
    figure, axes = panel_grid(len(groups), 2.4)
    for group, name, axis in zip(groups, distinct_names(groups), axes, strict=True):
        assert group.curve is not None
        best_cells = best_replay_cells(group.multipliers)
        arrows = [
            (row["target_tokens"], row["target_loss"], row["effective_tokens"], _arrow_text(group.results[int(i)]))
            for i, row in rows(best_cells)
        ]
        draw_curve(axis, group.curve, [arrow[0] for arrow in arrows])
        for arrow in arrows:
            draw_arrow(axis, *arrow)
        label_curve(axis, "best replay" if arrows else "")
        axis.set_title(name)
    caption = (
        "Loss that unique target tokens buy without replay. An arrow runs from the best replay at a target size to the "
        "size that reaches the same loss without replay: its length is the effective data multiplier. Dashed: the "
        "chosen form, beyond the points."
    )
    return Drawing("reference_curve", "Reference curve and effective data", caption, figure)


def draw_curve(axis: Any, curve: ReferenceCurve, more_sizes: list[float]) -> None:
    """The curve's points, its line (solid inside the points, dashed beyond) and its axes."""
    low, high = curve.token_range
    span = np.log(high / low)
    axis.plot(curve.target_tokens, curve.losses, "o", color=BLACK, zorder=3)
    inside = np.exp(np.linspace(np.log(low), np.log(high), 200))
    axis.plot(inside, curve.loss_at(inside), "-", color=BLACK, linewidth=0.9)
    if curve.form != "monotone":
        for start, end in ((low / np.exp(span / 4), low), (high, high * np.exp(span / 4))):
            beyond = np.exp(np.linspace(np.log(start), np.log(end), 40))
            axis.plot(beyond, curve.loss_at(beyond), "--", color=BLACK, linewidth=0.9)
    token_ticks(axis, [*curve.target_tokens, *more_sizes])
    axis.set_xlabel("unique target tokens $N$")
    axis.set_ylabel("target loss (nats)")


def draw_arrow(axis: Any, tokens: float, loss: float, effective: float, text: str, colour: str = VERMILION) -> None:
    """A star at (tokens, loss), an arrow to the effective tokens at the same loss (cut at the frame), and its text."""
    axis.plot([tokens], [loss], "*", color=colour, markersize=7, zorder=4)
    left, right = axis.get_xlim()
    if not left <= effective <= right:
        effective = right if effective > right else left
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 0.9, "shrinkA": 2, "shrinkB": 0, "mutation_scale": 7}
    axis.annotate("", xy=(effective, loss), xytext=(tokens, loss), arrowprops=style)
    # On its own side of the star: left of it there is room below a falling curve.
    side = ("right", -4) if effective >= tokens else ("left", 4)
    axis.annotate(
        text, xy=(tokens, loss), xytext=(side[1], 0), textcoords="offset points", color=colour, fontsize=6.5,
        ha=side[0], va="center",
    )  # fmt: skip


def _arrow_text(result: EffectiveDataMultiplier) -> str:
    """The multiplier beside an arrow; of an extrapolated one the bound."""
    if result.extrapolated and result.at_least > 0:
        return f"≥ {result.at_least:.1f}×"
    if result.extrapolated and np.isfinite(result.at_most):
        return f"≤ {result.at_most:.1f}×"
    return f"{result.value:.1f}×" if np.isfinite(result.value) else ""


def distinct_names(groups: list[GroupFindings]) -> list[str]:
    """What tells groups apart, in words for a figure: the parts of their labels that differ; "" for a single group."""
    differing = [key for key in groups[0].label if len({str(group.label.get(key)) for group in groups}) > 1]
    return [plain_text(", ".join(_label_text(key, group.label.get(key)) for key in differing)) for group in groups]


def _label_text(key: str, value: Any) -> str:
    if key == "total_tokens":
        return f"T = {short_tokens(value)}" if np.isfinite(value) else ""
    return str(value) if key in ("target", "generic", "model", "mode") else f"{key.replace('_', ' ')} {value}"


def label_curve(axis: Any, star: str) -> None:
    """A legend at the upper right, where no point of a falling curve lies."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=BLACK, marker="o", linewidth=0.9, label="ρ = 0, tuned")]
    if star:
        handles.append(Line2D([], [], color=VERMILION, marker="*", markersize=7, linewidth=0.9, label=star))
    axis.legend(handles=handles, loc="upper right")


@drawer
def loss_against_replay(evidence: Evidence) -> Drawing:
    """Target loss (left) and generic loss (right) against ρ, a line a target size, a row of panels a group."""
    groups = [group for group in evidence.findings.groups if replay_series(group)][:MOST_PANELS]
    if not groups:
        raise NotEnoughError("no target size was run with two or more replay fractions")
    generic = any(np.isfinite(group.cells["generic_loss"]).any() for group in groups)
    figure, axes = panels(len(groups), 2 if generic else 1, 2.1, width=6.75 if generic else 3.25)
    for group, name, row in zip(groups, distinct_names(groups), axes, strict=True):
        series = replay_series(group)[:MOST_SERIES]
        for index, (tokens, at) in enumerate(series):
            style = series_style(index)
            _loss_line(row[0], at, style, f"$N$ = {short_tokens(tokens)}")
            if group.noise is not None:
                half = [group.noise.half_width(evidence.findings.settings.level, runs) for runs in at["runs"]]
                row[0].errorbar(at["replay_fraction"], at["target_loss"], half, fmt="none", ecolor=style["color"],
                                elinewidth=0.7, capsize=1.5)  # fmt: skip
            if generic:
                row[1].plot(at["replay_fraction"], at["generic_loss"], **style)
        if group.recommendation is not None:
            _mark_recommendation(row[0], dict(series), group.recommendation)
        row[0].set_ylabel("target loss (nats)")
        legend_above(row[0], name)
        if generic:
            row[1].set_ylabel("generic loss (nats)")
        for axis in row:
            axis.set_xlabel("replay fraction ρ")
    caption = (
        "Target loss against the replay fraction, every point tuned over its nuisance settings; dotted: ρ = 0 at the "
        "same target size; star: the best, chosen on the selection half; bars: intervals of the mean; circle: what "
        "is recommended, or the best replay where the runs cannot tell."
        + (" Right: the generic loss of the same runs." if generic else "")
    )
    return Drawing("loss_against_replay", "Loss against replay", caption, figure)


def _loss_line(axis: Any, at: pd.DataFrame, style: dict[str, Any], label: str) -> None:
    rho = at["replay_fraction"]
    axis.plot(rho, at["target_loss"], **style, label=label)
    baseline = at.loc[rho == 0, "target_loss"]
    if len(baseline):
        axis.axhline(baseline.iloc[0], linestyle=":", color=style["color"], linewidth=0.9)
    best_cell = best(at)
    axis.plot([best_cell["replay_fraction"]], [best_cell["target_loss"]], "*", color=style["color"], markersize=10)


def _mark_recommendation(axis: Any, series: dict[float, pd.DataFrame], advice: Recommendation) -> None:
    """A circle around the recommended point, in words in the legend; pale where the runs cannot tell."""
    at = series.get(advice.target_tokens)
    at = at[at["replay_fraction"] == advice.replay_fraction] if at is not None else None
    if at is None or at.empty:  # not drawn here
        return
    point = at.iloc[0]
    words = f"use ρ = {advice.replay_fraction:.3g}"
    if advice.target_epochs is not None:
        words += f", E = {advice.target_epochs:g}"
    undecided = advice.verdict == "undecided"
    axis.plot([point["replay_fraction"]], [point["target_loss"]], "o", markersize=11, markerfacecolor="none",
              color=BLACK, alpha=0.4 if undecided else 1.0, label="undecided" if undecided else words)  # fmt: skip


def replay_series(group: GroupFindings) -> list[tuple[float, pd.DataFrame]]:
    """(N, cells by ρ) at the largest α, for every N with two or more ρ."""
    cells = group.cells[group.cells["stage2_allocation"] == group.largest_allocation]
    return [
        (float(tokens), at.sort_values("replay_fraction"))
        for tokens, at in parts(cells, "target_tokens")
        if at["replay_fraction"].nunique() > 1
    ]


@drawer
def multiplier_against_replay(evidence: Evidence) -> Drawing:
    """The multiplier against ρ with its interval, a line a target size, of the group that the answer is about."""
    group = evidence.findings.groups[0]
    table = group.multipliers
    if group.headline is None:
        raise NotEnoughError(group.reason or "no run with replay has a run without replay at the same target size")
    table = table[(table["stage2_allocation"] == table["stage2_allocation"].max()) & (table["replay_fraction"] > 0)]
    if table["replay_fraction"].nunique() < 2:
        raise NotEnoughError("replay was run with one fraction only")
    figure, axes = panels(1, 1, 2.3)
    axis = axes[0, 0]
    for index, (tokens, at) in enumerate(parts(table, "target_tokens")[:MOST_SERIES]):
        at = at.sort_values("replay_fraction")
        draw_multipliers(axis, at["replay_fraction"], at, series_style(index), f"$N$ = {short_tokens(tokens)}")
    finish_multiplier_axis(axis, table)
    axis.set_xlabel("replay fraction ρ")
    caption = (
        f"Effective data multiplier against the replay fraction, with {100 * table['level'].iloc[0]:g} % intervals."
    )
    return Drawing("multiplier_against_replay", "Multiplier against replay", caption, figure)


def draw_multipliers(axis: Any, x: Any, table: pd.DataFrame, style: dict[str, Any], label: str) -> None:
    """Multipliers with a band for their intervals; hollow where extrapolated; open intervals run out of the frame."""
    value = np.minimum(table["multiplier"].to_numpy(dtype=float), 1e6)
    axis.plot(x, value, color=style["color"], linewidth=1.2)
    low, high = (
        np.maximum(table["low"].to_numpy(dtype=float), 1e-6),
        np.minimum(table["high"].to_numpy(dtype=float), 1e6),
    )
    if len(table) > 1:
        axis.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
    else:
        axis.plot([x.iloc[0]] * 2, [low[0], high[0]], color=style["color"], linewidth=0.9)
    hollow = table["extrapolated"].to_numpy(dtype=bool)
    x = np.asarray(x, dtype=float)
    # One of the two carries the label: a legend lists a series once.
    axis.plot(x[~hollow], value[~hollow], style["marker"], color=style["color"], label=None if hollow.all() else label)
    axis.plot(x[hollow], value[hollow], style["marker"], color=style["color"], markerfacecolor="white",
              label=label if hollow.all() else None)  # fmt: skip


def finish_multiplier_axis(axis: Any, table: pd.DataFrame) -> None:
    """A log axis of multipliers with plain numbers, a line at 1, and a frame that follows values, not open ends."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = table["multiplier"].replace([np.inf], np.nan).dropna()
    bounds = pd.concat(
        [values, table["low"][table["low"] > 0], table["high"][np.isfinite(table["high"])], pd.Series([1.0])]
    )
    middle = float(values.median()) if len(values) else 1.0
    bounds = bounds[(bounds > middle / 30) & (bounds < middle * 30)]
    axis.set_yscale("log")
    axis.set_ylim(min(bounds.min(), 0.9) / 1.15, max(bounds.max(), 1.1) * 1.15)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.axhline(1.0, linestyle=":", color=BLACK, linewidth=0.8)
    axis.set_ylabel("effective data multiplier")
    if len(axis.get_legend_handles_labels()[1]) > 1:
        legend_above(axis)
