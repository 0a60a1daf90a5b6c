"""Figures over the settings that are otherwise tuned away: weight decay, schedules, repetitions; and task accuracy."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import with_losses
from analysis.evidence import Evidence, NotEnoughError
from analysis.figures.canvas import BLACK, Drawing, drawer, legend_above, panels, series_style, short_tokens
from analysis.figures.question import MOST_SERIES
from analysis.study import GROUP, Findings
from analysis.tables import best, parts
from analysis.tuning import tuned_runs


def _cells_by(findings: Findings, column: str) -> tuple[pd.DataFrame, float]:
    """Cells of the headline's group and target size with a nuisance `column` as an axis, and that size."""
    if column not in findings.done or findings.done[column].nunique() < 2:
        raise NotEnoughError(f"{column} was not varied")
    if column in findings.settings.axes:
        raise NotEnoughError(f"{column} is an axis of this analysis already")
    group = findings.groups[0]
    done = findings.done
    for key in GROUP:
        value = group.label[key]
        done = done[done[key].isna() if pd.isna(value) else done[key] == value]
    varied = done.groupby("target_tokens")[column].nunique()
    if varied.max() < 2:
        raise NotEnoughError(f"{column} was not varied at any one target size")
    tokens = float(varied.index[int(varied.to_numpy().argmax())])
    if group.headline is not None and varied.get(group.headline.row["target_tokens"], 0) > 1:
        tokens = float(group.headline.row["target_tokens"])
    tuned = tuned_runs(done[done["target_tokens"] == tokens], (column,))
    cells, _, _ = with_losses(tuned.cells, tuned.runs, tuned.near_best)
    return cells, tokens


@drawer
def weight_decay_against_replay(evidence: Evidence) -> Drawing:
    """Is replay just regularisation? Loss against weight decay at ρ = 0 beside loss against ρ, one scale of loss."""
    by_decay, tokens = _cells_by(evidence.findings, "weight_decay")
    allocation = by_decay["stage2_allocation"].max()
    by_decay = by_decay[by_decay["stage2_allocation"] == allocation]
    plain = by_decay[by_decay["replay_fraction"] == 0].sort_values("weight_decay")
    if len(plain) < 2:
        raise NotEnoughError("weight decay was not varied without replay")
    cells = evidence.findings.groups[0].cells
    replay = cells[(cells["target_tokens"] == tokens) & (cells["stage2_allocation"] == allocation)]
    if replay["replay_fraction"].nunique() < 2:
        raise NotEnoughError("no replay was run at the target size where weight decay was varied")
    replay = replay.sort_values("replay_fraction")
    figure, axes = panels(1, 2, 2.2, sharey=True)
    axes[0, 0].plot(plain["weight_decay"], plain["target_loss"], **series_style(0))
    axes[0, 1].plot(replay["replay_fraction"], replay["target_loss"], **series_style(1))
    axes[0, 0].set_xlabel("weight decay (ρ = 0)")
    axes[0, 1].set_xlabel("replay fraction ρ")
    axes[0, 0].set_ylabel("target loss (nats)")
    for axis in axes[0]:
        axis.axhline(replay["target_loss"].iloc[0], linestyle=":", color=BLACK, linewidth=0.8)
    caption = (
        f"Weight decay without replay against replay, at {short_tokens(tokens)} target tokens; dotted: tuned ρ = 0."
    )
    return Drawing("weight_decay_against_replay", "Weight decay against replay", caption, figure)


@drawer
def learning_rate_schedules(evidence: Evidence) -> Drawing:
    """Target loss of every learning-rate schedule, a line a data schedule (α at its best ρ, or ρ where α is one)."""
    cells, tokens = _cells_by(evidence.findings, "lr_schedule")
    names = sorted(cells["lr_schedule"].astype(str).unique(), key=_schedule_order)
    axis_of_series = "stage2_allocation" if cells["stage2_allocation"].nunique() > 1 else "replay_fraction"
    letter = "α" if axis_of_series == "stage2_allocation" else "ρ"
    figure, axes = panels(1, 1, 2.4)
    axis = axes[0, 0]
    for index, (value, at) in enumerate(parts(cells, axis_of_series)[:MOST_SERIES]):
        chosen = at.loc[at.groupby("lr_schedule")["selection_loss"].idxmin()].set_index("lr_schedule")["target_loss"]
        axis.plot(range(len(names)), [chosen.get(name, np.nan) for name in names], **series_style(index),
                  label=f"{letter} = {value:.3g}")  # fmt: skip
    axis.set_xticks(range(len(names)), names, rotation=30 if len(names) > 4 else 0)
    axis.set_xlabel("learning-rate schedule")
    axis.set_ylabel("target loss (nats)")
    legend_above(axis)
    caption = f"Learning-rate schedules and data schedules at {short_tokens(tokens)} target tokens" + (
        ", each α at its best ρ." if letter == "α" else "."
    )
    return Drawing("learning_rate_schedules", "Learning-rate schedule and data schedule", caption, figure)


def _schedule_order(name: str) -> tuple[str, float]:
    stem, _, number = name.split("/")[0].partition("-")
    return stem, float(number) if number.replace(".", "", 1).isdigit() else 0.0


@drawer
def repetitions(evidence: Evidence) -> Drawing:
    """Target loss against epochs over the target data, a line a replay fraction, the best epoch count starred."""
    cells, tokens = _cells_by(evidence.findings, "target_epochs")
    cells = cells[cells["stage2_allocation"] == cells["stage2_allocation"].max()]
    figure, axes = panels(1, 1, 2.3)
    axis = axes[0, 0]
    for index, (rho, at) in enumerate(parts(cells, "replay_fraction")[:MOST_SERIES]):
        at = at.sort_values("target_epochs")
        style = series_style(index)
        axis.plot(at["target_epochs"], at["target_loss"], **style, label=f"ρ = {rho:.3g}")
        chosen = best(at)
        axis.plot([chosen["target_epochs"]], [chosen["target_loss"]], "*", color=style["color"], markersize=10)
    _epoch_ticks(axis, cells["target_epochs"])
    axis.set_ylabel("target loss (nats)")
    legend_above(axis)
    caption = f"Target loss against repetitions at {short_tokens(tokens)} target tokens; star: the best."
    return Drawing("repetitions", "Repetitions of the target data", caption, figure)


def _epoch_ticks(axis: Any, epochs: "pd.Series[float]") -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    shown = np.sort(epochs.unique())
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(shown[:: -(-len(shown) // 8)].tolist()))
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
    figure, axes = panels(len(columns), 1, 2.2)
    for column, axis in zip(columns, axes[:, 0], strict=True):
        scores = group.runs.groupby(["target_tokens", "replay_fraction"])[column].mean().dropna().reset_index()
        series = [
            (f"$N$ = {short_tokens(float(tokens))}", dict(zip(at["replay_fraction"], at[column], strict=True)))
            for tokens, at in parts(scores, "target_tokens")
        ]
        base = base_scores.get(column) if isinstance(base_scores, dict) else None
        draw_scores(axis, series[:MOST_SERIES], base if isinstance(base, int | float) else None)
        axis.set_ylabel(column.replace("_", " "))
    caption = "Task score against the replay fraction; dotted: standard fine-tuning (ρ = 0); dashed: before training."
    return Drawing("accuracy_against_replay", "Accuracy against replay", caption, figure)


def draw_scores(axis: Any, series: list[tuple[str, dict[float, float]]], base: float | None) -> None:
    """Scores by ρ, a line a series, its ρ = 0 dotted, its best starred, and the base model dashed."""
    for index, (label, scores) in enumerate(series):
        style = series_style(index)
        rho = sorted(scores)
        axis.plot(rho, [scores[r] for r in rho], **style, label=label)
        top = max(rho, key=lambda r: scores[r])
        axis.plot([top], [scores[top]], "*", color=style["color"], markersize=10)
        if 0.0 in scores:
            axis.axhline(scores[0.0], linestyle=":", color=style["color"], linewidth=0.9)
    if base is not None:
        axis.axhline(base, linestyle="--", color=BLACK, linewidth=0.8, label="before training")
    axis.set_xlabel("replay fraction ρ")
    if len(series) > 1 or base is not None:
        legend_above(axis)
