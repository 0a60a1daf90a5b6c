"""The figures that answer the question: the reference curve with its arrows, and loss against replay."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.canvas import BLACK, VERMILION, Drawing, in_style, panels, series_style, short_tokens, token_ticks
from analysis.multiplier import shown_multiplier
from analysis.reference_curve import ReferenceCurve
from analysis.study import Findings, GroupFindings

MOST_SERIES = 7
MOST_PANELS = 6


@in_style
def reference_curve_figure(findings: Findings) -> Drawing:
    """Reference curve, the best candidate at each N, and the horizontal arrow that is its multiplier; panels a group.

    Raises ValueError where no group has a curve.
    """
    groups = [group for group in findings.groups if group.curve is not None][:MOST_PANELS]
    if not groups:
        raise ValueError("no group has a reference curve: " + "; ".join(g.reason for g in findings.groups if g.reason))
    figure, axes = panels(len(groups), 1, 2.5)
    for group, axis in zip(groups, axes[:, 0], strict=True):
        best = _best_per_size(group)
        arrows = [
            (row["target_tokens"], row["target_loss"], row["effective_tokens"], group.results[int(cell)])
            for cell, row in best.iterrows()
        ]
        draw_curve(axis, group.curve, [a[0] for a in arrows])
        for position, (tokens, loss, effective, result) in enumerate(arrows):
            _arrow(axis, tokens, loss, effective, shown_multiplier(result), first=position == 0)
        axis.set_title(group.name if len(groups) > 1 else "")
        axis.legend(loc="best")
    caption = (
        "Loss that unique target tokens buy without replay. An arrow runs from the best replay at a target size to the "
        "size that reaches the same loss without replay: its length is the effective data multiplier. Dashed: the "
        "form, beyond the points."
    )
    return Drawing("reference_curve", "Reference curve and effective data", caption, figure)


def draw_curve(axis: Any, curve: ReferenceCurve, more_sizes: list[float]) -> None:
    """The curve's points, its line (solid inside the points, dashed beyond) and its axes."""
    low, high = curve.token_range
    span = np.log(high / low)
    axis.plot(curve.target_tokens, curve.losses, "o", color=BLACK, label="ρ = 0, tuned", zorder=3)
    inside = np.exp(np.linspace(np.log(low), np.log(high), 200))
    axis.plot(inside, curve.loss_at(inside), "-", color=BLACK, linewidth=0.9)
    if curve.form != "monotone":
        for start, end in ((low / np.exp(span / 4), low), (high, high * np.exp(span / 4))):
            beyond = np.exp(np.linspace(np.log(start), np.log(end), 40))
            axis.plot(beyond, curve.loss_at(beyond), "--", color=BLACK, linewidth=0.9)
    token_ticks(axis, [*curve.target_tokens, *more_sizes])
    axis.set_xlabel("unique target tokens $N$")
    axis.set_ylabel("target loss (nats)")


def _arrow(axis: Any, tokens: float, loss: float, effective: float, text: str, first: bool) -> None:
    axis.plot([tokens], [loss], "*", color=VERMILION, markersize=7, label="best replay" if first else None, zorder=4)
    left, right = axis.get_xlim()
    end = min(max(effective, left), right)
    style = {"arrowstyle": "-|>", "color": VERMILION, "linewidth": 0.9, "shrinkA": 2, "shrinkB": 0, "mutation_scale": 7}
    axis.annotate("", xy=(end, loss), xytext=(tokens, loss), arrowprops=style)
    axis.annotate(
        text, xy=(tokens, loss), xytext=(-2, -9), textcoords="offset points", color=VERMILION, fontsize=7, ha="left"
    )


def _best_per_size(group: GroupFindings) -> pd.DataFrame:
    replay = group.multipliers[group.multipliers["replay_fraction"] > 0]
    return replay.loc[replay.groupby("target_tokens")["selection_loss"].idxmin()] if len(replay) else replay


@in_style
def loss_against_replay_figure(findings: Findings) -> Drawing:
    """Target loss (left) and generic loss (right) against ρ, a line a target size, a row of panels a group.

    Raises ValueError where no group has two replay fractions at one target size.
    """
    groups = [group for group in findings.groups if len(replay_series(group))][:MOST_PANELS]
    if not groups:
        raise ValueError("no target size was run with two or more replay fractions")
    generic = any(np.isfinite(group.cells["generic_loss"]).any() for group in groups)
    figure, axes = panels(len(groups), 2 if generic else 1, 2.3, width=6.75 if generic else 3.25)
    for group, row in zip(groups, axes, strict=True):
        for index, (tokens, at) in enumerate(replay_series(group)[:MOST_SERIES]):
            style = series_style(index)
            rho = at["replay_fraction"]
            row[0].plot(rho, at["target_loss"], **style, label=f"$N$ = {short_tokens(tokens)}")
            baseline = at.loc[rho == 0, "target_loss"]
            if len(baseline):
                row[0].axhline(baseline.iloc[0], linestyle=":", color=style["color"], linewidth=0.9)
            best = at.loc[at["selection_loss"].idxmin()]
            row[0].plot([best["replay_fraction"]], [best["target_loss"]], "*", color=style["color"], markersize=10)
            if generic:
                row[1].plot(rho, at["generic_loss"], **style)
        row[0].set_ylabel("target loss (nats)")
        row[0].set_title(group.name if len(groups) > 1 else "")
        row[0].legend(loc="best")
        if generic:
            row[1].set_ylabel("generic loss (nats)")
        for axis in row:
            axis.set_xlabel("replay fraction ρ")
    caption = (
        "Target loss against the replay fraction, every point tuned over its nuisance settings; dotted: ρ = 0 at the "
        "same target size; star: the best, chosen on the selection half."
        + (" Right: the generic loss of the same runs." if generic else "")
    )
    return Drawing("loss_against_replay", "Loss against replay", caption, figure)


def replay_series(group: GroupFindings) -> list[tuple[float, pd.DataFrame]]:
    """(N, cells by ρ) at the largest α, for every N with two or more ρ."""
    cells = group.cells[group.cells["stage2_allocation"] == group.cells["stage2_allocation"].max()]
    return [
        (float(tokens), at.sort_values("replay_fraction"))
        for tokens, at in cells.groupby("target_tokens")
        if at["replay_fraction"].nunique() > 1
    ]


