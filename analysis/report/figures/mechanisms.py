"""Figures of why replay helps: shock, over-fitting, forgetting, and training curves with the stage boundary."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.findings import mechanisms
from analysis.findings.evidence import Evidence, NotEnoughError
from analysis.findings.mechanisms import headline_runs, runs_to_follow
from analysis.findings.tables import parts
from analysis.report.figures.canvas import BLACK, Drawing, drawer, legend_above, panels, series_style, short_tokens
from analysis.report.figures.question import MOST_SERIES


@drawer
def shock(evidence: Evidence) -> Drawing:
    """Jumps of target loss, generic loss and gradient norm in the first steps of stage 2, against ρ."""
    runs, tokens = headline_runs(evidence.findings)
    table = mechanisms.shock(runs, evidence.history)
    columns = [
        (column, words)
        for column, words in (
            ("target_jump", "jump of target loss (nats)"),
            ("generic_jump", "jump of generic loss (nats)"),
            ("gradient_jump", "gradient norm, times before"),
        )
        if table[column].notna().any()
    ]
    figure, axes = panels(1, len(columns), 2.1, width=2.25 * len(columns) if len(columns) > 1 else 3.25)
    for index, (column, words) in enumerate(columns):
        axis = axes[0, index]
        _mean_and_runs(axis, table, column, series_style(index))
        axis.axhline(1.0 if column == "gradient_jump" else 0.0, linestyle=":", color=BLACK, linewidth=0.8)
        axis.set_xlabel("replay fraction ρ")
        axis.set_ylabel(words)
    caption = f"What happens in the first steps of stage 2, tuned runs at {short_tokens(tokens)} target tokens."
    return Drawing("shock", "Shock at the start of stage 2", caption, figure)


def _mean_and_runs(axis: Any, table: pd.DataFrame, column: str, style: dict[str, Any]) -> None:
    axis.plot(table["replay_fraction"], table[column], ".", color=style["color"], alpha=0.5, markersize=3)
    mean = table.groupby("replay_fraction")[column].mean()
    axis.plot(mean.index, mean, **style)


@drawer
def overfitting(evidence: Evidence) -> Drawing:
    """The gap of validation and train loss on the target: through stage 2 (where observed) and at the end against E."""
    runs, tokens = headline_runs(evidence.findings, tuned=False)
    panel_tables = []
    try:
        through = mechanisms.overfitting(headline_runs(evidence.findings)[0], evidence.history)
        if through.groupby("run_id")["step"].nunique().max() > 1:
            panel_tables.append(("through", through))
    except NotEnoughError:
        pass
    final = mechanisms.final_gap(runs)
    if "target_epochs" in final and final["target_epochs"].nunique() > 1:
        panel_tables.append(("epochs", final))
    else:
        panel_tables.append(("end", final))
    figure, axes = panels(1, len(panel_tables), 2.2, width=6.75 if len(panel_tables) > 1 else 3.25)
    for axis, (kind, table) in zip(axes[0], panel_tables, strict=True):
        if kind == "end":
            _mean_and_runs(axis, table, "gap", series_style(0))
            axis.set_xlabel("replay fraction ρ")
        else:
            x = "progress" if kind == "through" else "target_epochs"
            for index, (rho, at) in enumerate(parts(table, "replay_fraction")[:MOST_SERIES]):
                mean = at.groupby(x)["gap"].mean()
                axis.plot(mean.index, mean, **series_style(index), label=f"ρ = {rho:.3g}")
            axis.set_xlabel("share of stage 2" if kind == "through" else "epochs over the target data $E$")
            legend_above(axis)
        if kind == "epochs":
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylabel("validation − train loss (nats)")
    caption = f"Over-fitting of the target at {short_tokens(tokens)} target tokens."
    return Drawing("overfitting", "Over-fitting", caption, figure)


@drawer
def forgetting(evidence: Evidence) -> Drawing:
    """Generic validation loss at the end against ρ; dotted: of the same runs where stage 2 begins."""
    runs, tokens = headline_runs(evidence.findings)
    table = mechanisms.forgetting(runs, evidence.history)
    figure, axes = panels(1, 1, 2.2)
    axis = axes[0, 0]
    _mean_and_runs(axis, table, "generic_loss", series_style(0))
    before = table.groupby("replay_fraction")["generic_before"].mean().dropna()
    if len(before):
        axis.plot(
            before.index, before, linestyle=":", marker=".", color=BLACK, linewidth=0.8, label="where stage 2 begins"
        )
        legend_above(axis)
    axis.set_xlabel("replay fraction ρ")
    axis.set_ylabel("generic loss at the end (nats)")
    caption = f"Forgetting: generic loss of the tuned runs at {short_tokens(tokens)} target tokens."
    return Drawing("forgetting", "Forgetting", caption, figure)


@drawer
def training_curves(evidence: Evidence) -> Drawing:
    """Train losses on target and generic rows through training, standard and best replay, with the stage boundary."""
    runs, tokens = headline_runs(evidence.findings)
    history = evidence.history
    if history is None or not {"run_id", "stage2_step"} <= set(runs.columns):
        raise NotEnoughError("there is no history beside the run table, or the table has no run_id and stage2_step")
    followed = runs_to_follow(evidence.findings)
    metrics = (("train_target_loss", "target"), ("train_generic_loss", "generic"))
    of_metrics = history["metric"].isin([metric for metric, _ in metrics]) & np.isfinite(history["value"])
    losses = history[of_metrics & history["run_id"].isin([run["run_id"] for _, run in followed])]
    if losses.empty:
        raise NotEnoughError("the history has no train losses of the runs")
    figure, axes = panels(1, 2, 2.2, width=6.75)
    for index, (r, run) in enumerate(followed):
        style = series_style(index)
        for axis, (metric, words) in zip(axes[0], metrics, strict=True):
            of_run = (losses["run_id"] == run["run_id"]) & (losses["metric"] == metric)
            series = losses[of_run].sort_values("step")
            smooth = series["value"].rolling(9, min_periods=1, center=True).median()
            few = "." if len(series) < 40 else ""
            axis.plot(series["step"], smooth, marker=few, color=style["color"], linewidth=0.9, label=f"ρ = {r:.3g}")
            axis.axvline(run["stage2_step"], linestyle=":", color=style["color"], linewidth=0.9)
            axis.set_xlabel("step")
            axis.set_ylabel(f"train loss, {words} rows (nats)")
    legend_above(axes[0, 0])
    caption = (
        f"Training without replay and with the best, at {short_tokens(tokens)} target tokens; dotted: stage 2 begins."
    )
    return Drawing("training_curves", "Training curves", caption, figure)
