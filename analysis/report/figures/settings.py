"""Figures of data schedules (ρ × α), of settings that are otherwise tuned away, and of task scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.by_setting import CellsBySetting, cells_by_setting
from analysis.findings.evidence import Evidence, NotEnoughError, number_or_nan
from analysis.findings.study import GroupFindings
from analysis.findings.tables import best, parts
from analysis.report.figures import canvas
from analysis.report.figures.canvas import Drawing, drawer
from analysis.report.figures.question import MOST_PANELS, MOST_SERIES, distinct_names


def _sizes(panels: Sequence[CellsBySetting]) -> str:
    """The target sizes of the panels, in words."""
    sizes = sorted({panel.target_tokens for panel in panels})
    return " or ".join(canvas.short_tokens(tokens) for tokens in sizes) + " target tokens"


@drawer
def data_schedules(evidence: Evidence) -> Drawing:
    """Heat maps of the target loss over ρ × α, a panel a group, at the size where most was tried, the best framed."""
    varied = [
        max(choices, key=lambda panel: len(panel.cells))
        for group in evidence.findings.groups
        if (choices := _data_schedule_choices(group))
    ][:MOST_PANELS]
    if not varied:
        raise NotEnoughError("no target size was run with several stage-2 allocations α and several ρ")
    most_rows = max(panel.cells["stage2_allocation"].nunique() for panel in varied)
    figure, axes = canvas.panel_grid(len(varied), 0.9 + 0.34 * most_rows)
    groups = [panel.group for panel in varied]
    for panel, name, axis in zip(varied, distinct_names(groups), axes, strict=True):
        image = draw_heat_map(axis, panel.cells)
        axis.set_title(name)
        figure.colorbar(image, ax=axis, label="target loss (nats)", pad=0.02)
    named = f" ({groups[0].name})" if len(groups) == 1 else ""
    caption = f"Target loss over data schedules at {_sizes(varied)}{named}; framed: the best."
    return Drawing("data_schedules", "Data schedules", caption, figure)


def _data_schedule_choices(group: GroupFindings) -> list[CellsBySetting]:
    """The cells of every target size at which both α and ρ have several values."""
    return [
        CellsBySetting(group, at, float(tokens))
        for tokens, at in parts(group.cells, "target_tokens")
        if at["stage2_allocation"].nunique() > 1 and at["replay_fraction"].nunique() > 1
    ]


def draw_heat_map(axis: Any, cells: pd.DataFrame) -> Any:
    """The target loss of each (α, ρ), written into its place, the best cell framed; returns the image for its scale."""
    from matplotlib.patches import Rectangle

    table = cells.pivot(index="stage2_allocation", columns="replay_fraction", values="target_loss").sort_index(
        ascending=False
    )
    image = axis.imshow(np.ma.masked_invalid(table.to_numpy()), cmap="cividis", aspect="auto")
    middle = (image.norm.vmin + image.norm.vmax) / 2
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            axis.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour, fontsize=6.5)
    best_cell = best(cells)
    column, row = (
        list(table.columns).index(best_cell["replay_fraction"]),
        list(table.index).index(best_cell["stage2_allocation"]),
    )
    frame = Rectangle((column - 0.48, row - 0.46), 0.96, 0.92, fill=False, edgecolor=canvas.VERMILION, linewidth=2)
    axis.add_patch(frame)
    axis.set_xticks(range(len(table.columns)), [f"{value:.3g}" for value in table.columns])
    axis.set_yticks(range(len(table)), [f"{value:.3g}" for value in table.index])
    axis.set_xlabel("replay fraction ρ")
    axis.set_ylabel("stage-2 allocation α")
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(length=0)
    return image


@drawer
def weight_decay_against_replay(evidence: Evidence) -> Drawing:
    """Is replay just regularisation? Loss against weight decay at ρ = 0 beside loss against ρ, one scale of loss."""
    pairs = [
        (panel, *pair)
        for panel in cells_by_setting(evidence.findings, "weight_decay", MOST_PANELS)
        if (pair := _decay_and_replay(panel))
    ]
    if not pairs:
        raise NotEnoughError("weight decay and replay were not both varied at one target size")
    figure, axes = canvas.panels(len(pairs), 2, 2.2, sharey="row")
    names = distinct_names([panel.group for panel, _, _ in pairs])
    for (_, plain, replay), name, (left, right) in zip(pairs, names, axes, strict=True):
        left.plot(plain["weight_decay"], plain["target_loss"], **canvas.series_style(0))
        right.plot(replay["replay_fraction"], replay["target_loss"], **canvas.series_style(1))
        left.set_xlabel("weight decay (ρ = 0)")
        right.set_xlabel("replay fraction ρ")
        left.set_ylabel("target loss (nats)")
        left.set_title(name)
        for axis in (left, right):
            axis.axhline(replay["target_loss"].iloc[0], linestyle=":", color=canvas.BLACK, linewidth=0.8)
    caption = (
        f"Weight decay without replay against replay, at {_sizes([panel for panel, _, _ in pairs])}; dotted: tuned "
        "ρ = 0."
    )
    return Drawing("weight_decay_against_replay", "Weight decay against replay", caption, figure)


def _decay_and_replay(panel: CellsBySetting) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """The cells without replay by weight decay, and the tuned cells by ρ; None where either was not varied."""
    allocation = panel.cells["stage2_allocation"].max()
    plain = panel.cells[(panel.cells["stage2_allocation"] == allocation) & (panel.cells["replay_fraction"] == 0)]
    cells = panel.group.cells
    replay = cells[(cells["target_tokens"] == panel.target_tokens) & (cells["stage2_allocation"] == allocation)]
    if len(plain) < 2 or replay["replay_fraction"].nunique() < 2:
        return None
    return plain.sort_values("weight_decay"), replay.sort_values("replay_fraction")


@drawer
def learning_rate_schedules(evidence: Evidence) -> Drawing:
    """Target loss of every learning-rate schedule, a line a data schedule (α at its best ρ, or ρ where α is one)."""
    varied = cells_by_setting(evidence.findings, "lr_schedule", MOST_PANELS)
    allocated = any(panel.cells["stage2_allocation"].nunique() > 1 for panel in varied)
    axis_of_series, letter = ("stage2_allocation", "α") if allocated else ("replay_fraction", "ρ")
    figure, axes = canvas.panel_grid(len(varied), 2.4)
    for panel, name, axis in zip(varied, distinct_names([panel.group for panel in varied]), axes, strict=True):
        cells = panel.cells
        names = sorted(cells["lr_schedule"].astype(str).unique(), key=_schedule_order)
        for index, (value, at) in enumerate(parts(cells, axis_of_series)[:MOST_SERIES]):
            best_cells = at.loc[at.groupby("lr_schedule")["selection_loss"].idxmin()].set_index("lr_schedule")
            losses = [best_cells["target_loss"].get(schedule, np.nan) for schedule in names]
            axis.plot(range(len(names)), losses, **canvas.series_style(index), label=f"{letter} = {value:.3g}")
        axis.set_xticks(range(len(names)), map(canvas.plain_text, names), rotation=30 if len(names) > 4 else 0)
        axis.set_xlabel("learning-rate schedule")
        axis.set_ylabel("target loss (nats)")
        canvas.legend_above(axis, name)
    caption = f"Learning-rate schedules and data schedules at {_sizes(varied)}" + (
        ", each α at its best ρ." if letter == "α" else "."
    )
    return Drawing("learning_rate_schedules", "Learning-rate schedule and data schedule", caption, figure)


def _schedule_order(name: str) -> tuple[str, float]:
    stem, _, number = name.split("/")[0].partition("-")
    return stem, float(number) if number.replace(".", "", 1).isdigit() else 0.0


@drawer
def repetitions(evidence: Evidence) -> Drawing:
    """Target loss against epochs over the target data, a line a replay fraction, the best epoch count starred."""
    varied = cells_by_setting(evidence.findings, "target_epochs", MOST_PANELS)
    figure, axes = canvas.panel_grid(len(varied), 2.3)
    for panel, name, axis in zip(varied, distinct_names([panel.group for panel in varied]), axes, strict=True):
        cells = panel.cells[panel.cells["stage2_allocation"] == panel.cells["stage2_allocation"].max()]
        for index, (rho, at) in enumerate(parts(cells, "replay_fraction")[:MOST_SERIES]):
            at = at.sort_values("target_epochs")
            style = canvas.series_style(index)
            axis.plot(at["target_epochs"], at["target_loss"], **style, label=f"ρ = {rho:.3g}")
            best_cell = best(at)
            axis.plot(
                [best_cell["target_epochs"]], [best_cell["target_loss"]], "*", color=style["color"], markersize=10
            )
        _epoch_ticks(axis, cells["target_epochs"])
        axis.set_ylabel("target loss (nats)")
        canvas.legend_above(axis, name)
    caption = f"Target loss against repetitions at {_sizes(varied)}; star: the best."
    return Drawing("repetitions", "Repetitions of the target data", caption, figure)


def _epoch_ticks(axis: Any, epochs: "pd.Series[float]") -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    ticks = np.sort(epochs.unique())
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // 8)].tolist()))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("epochs over the target data $E$")


def score_columns(runs: pd.DataFrame) -> list[str]:
    """Columns of task scores: named accuracy or score, or ending so."""
    return [
        column
        for column in runs.columns
        if str(column).endswith(("accuracy", "score"))
        and pd.api.types.is_numeric_dtype(runs[column])
        and runs[column].notna().any()
    ]


@drawer
def accuracy_against_replay(evidence: Evidence) -> Drawing:
    """Task scores against ρ, a panel a task, with lines for standard fine-tuning and, where study.json has
    `base_scores`, for the model before training."""
    group = evidence.findings.groups[0]
    columns = score_columns(group.runs)[:4]
    if not columns:
        raise NotEnoughError("the run table has no column of task scores (its name would end in accuracy or score)")
    base_scores = evidence.study.get("base_scores", {})
    figure, axes = canvas.panels(len(columns), 1, 2.2)
    for column, axis in zip(columns, axes[:, 0], strict=True):
        scores = group.runs.groupby(["target_tokens", "replay_fraction"])[column].mean().dropna().reset_index()
        series = [
            (f"$N$ = {canvas.short_tokens(float(tokens))}", dict(zip(at["replay_fraction"], at[column], strict=True)))
            for tokens, at in parts(scores, "target_tokens")
        ]
        base = number_or_nan(base_scores.get(column) if isinstance(base_scores, dict) else None)
        draw_scores(axis, series[:MOST_SERIES], base if np.isfinite(base) else None)
        axis.set_ylabel(canvas.plain_text(column.replace("_", " ")))
    caption = "Task score against the replay fraction; dotted: standard fine-tuning (ρ = 0); dashed: before training."
    return Drawing("accuracy_against_replay", "Accuracy against replay", caption, figure)


def draw_scores(axis: Any, series: list[tuple[str, dict[float, float]]], base: float | None) -> None:
    """Scores by ρ, a line a series, its ρ = 0 dotted, its best starred, and the base model dashed."""
    for index, (label, scores) in enumerate(series):
        style = canvas.series_style(index)
        rho = sorted(scores)
        axis.plot(rho, [scores[r] for r in rho], **style, label=label)
        top = max(rho, key=lambda r: scores[r])
        axis.plot([top], [scores[top]], "*", color=style["color"], markersize=10)
        if 0.0 in scores:
            axis.axhline(scores[0.0], linestyle=":", color=style["color"], linewidth=0.9)
    if base is not None:
        axis.axhline(base, linestyle="--", color=canvas.BLACK, linewidth=0.8, label="before training")
    axis.set_xlabel("replay fraction ρ")
    if len(series) > 1 or base is not None:
        canvas.legend_above(axis)
