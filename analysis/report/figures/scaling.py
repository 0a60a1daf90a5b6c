"""The multiplier and the best ρ against target size, model size and the distance of target and generic text."""

import numpy as np
import pandas as pd

from analysis.findings.comparison import best_replay_cells
from analysis.findings.evidence import Evidence, NotEnoughError
from analysis.findings.relatedness import relatedness
from analysis.findings.study import Findings, GroupFindings
from analysis.findings.tables import parts
from analysis.report.figures.canvas import (
    Drawing,
    drawer,
    legend_above,
    panels,
    plain_text,
    series_style,
    short_tokens,
    token_ticks,
)
from analysis.report.figures.question import MOST_SERIES, distinct_names, draw_multipliers, finish_multiplier_axis


def _compared_groups(findings: Findings) -> list[GroupFindings]:
    return [group for group in findings.groups if group.headline is not None]


@drawer
def multiplier_against_size(evidence: Evidence) -> Drawing:
    """The best replay's multiplier against target tokens with its band, a line a group."""
    tables = [(group, best_replay_cells(group.multipliers)) for group in _compared_groups(evidence.findings)]
    tables = [(group, table) for group, table in tables if len(table) > 1][:MOST_SERIES]
    if not tables:
        raise NotEnoughError("replay was compared at one target size only")
    figure, axes = panels(1, 1, 2.3)
    axis = axes[0, 0]
    names = distinct_names([group for group, _ in tables])
    for index, (name, (_, table)) in enumerate(zip(names, tables, strict=True)):
        draw_multipliers(axis, table["target_tokens"], table, series_style(index), name)
    everything = pd.concat([table for _, table in tables])
    token_ticks(axis, everything["target_tokens"].tolist())
    finish_multiplier_axis(axis, everything)
    axis.set_xlabel("unique target tokens $N$")
    caption = "Effective data multiplier of the best replay at each target size, with intervals; hollow: extrapolated."
    return Drawing("multiplier_against_size", "Multiplier against target size", caption, figure)


@drawer
def multiplier_against_model(evidence: Evidence) -> Drawing:
    """The best replay's multiplier against the model's parameters at the target size that most models share."""
    rows = [
        best_replay_cells(group.multipliers).assign(parameters=group.parameters, series=_without_model(group))
        for group in _compared_groups(evidence.findings)
        if np.isfinite(group.parameters)
    ]
    table = pd.concat(rows) if rows else pd.DataFrame(columns=["target_tokens", "parameters"])
    models = table.groupby("target_tokens")["parameters"].nunique() if len(table) else pd.Series(dtype=float)
    if models.empty or models.max() < 2:
        raise NotEnoughError("replay was compared with one model size only")
    tokens = float(models.index[int(models.to_numpy().argmax())])
    table = table[table["target_tokens"] == tokens]
    figure, axes = panels(1, 1, 2.3)
    axis = axes[0, 0]
    for index, (name, at) in enumerate(parts(table.sort_values("parameters"), "series")[:MOST_SERIES]):
        at = at.sort_values("parameters")
        draw_multipliers(axis, at["parameters"], at, series_style(index), plain_text(name))
    token_ticks(axis, table["parameters"].tolist())
    finish_multiplier_axis(axis, table)
    axis.set_xlabel("model parameters")
    caption = (
        f"Effective data multiplier of the best replay at {short_tokens(tokens)} target tokens against model size."
    )
    return Drawing("multiplier_against_model", "Multiplier against model size", caption, figure)


def _without_model(group: GroupFindings) -> str:
    return ", ".join(str(group.label[key]) for key in ("target", "mode") if group.label[key]) or "all runs"


@drawer
def best_replay_against_size(evidence: Evidence) -> Drawing:
    """The best ρ against target tokens with its interval, and the fitted law ρ*(N, P) where there is one."""
    findings = evidence.findings
    series = [
        (group, [o for o in group.optima if o.stage2_allocation == group.largest_allocation and len(o.smooth_R)])
        for group in findings.groups
    ]
    series = [(group, optima) for group, optima in series if len(optima) > 1][:MOST_SERIES]
    if not series:
        raise NotEnoughError("several ρ were run at one target size only")
    law = findings.optimum_law
    figure, axes = panels(1, 1, 2.3)
    axis = axes[0, 0]
    names = distinct_names([group for group, _ in series])
    for index, (name, (group, optima)) in enumerate(zip(names, series, strict=True)):
        style = series_style(index)
        tokens = np.array([o.target_tokens for o in optima])
        value = np.array([o.best_replay for o in optima])
        reach = [np.maximum(value - [o.low for o in optima], 0), np.maximum([o.high for o in optima] - value, 0)]
        shift = 1.06 ** (index - (len(series) - 1) / 2)
        axis.errorbar(tokens * shift, value, yerr=reach, fmt=style["marker"], color=style["color"], elinewidth=0.9,
                      label=name)  # fmt: skip
        if law is not None and ("c" not in law.coefficients or np.isfinite(group.parameters)):
            line = np.exp(np.linspace(np.log(tokens.min()), np.log(tokens.max()), 50))
            axis.plot(line, [law.at(n, group.parameters)[0] for n in line], color=style["color"], linewidth=0.9)
    token_ticks(axis, [o.target_tokens for _, optima in series for o in optima])
    axis.set_ylim(-0.03, 1)
    axis.set_xlabel("unique target tokens $N$")
    axis.set_ylabel("best replay fraction ρ*")
    if len(series) > 1:
        legend_above(axis)
    caption = (
        "Best replay fraction tried, and between which fractions it lies in the central part of the replicates."
        + (" Line: the fitted law." if law is not None else "")
    )
    return Drawing("best_replay_against_size", "Best replay against target size", caption, figure)


@drawer
def multiplier_against_distance(evidence: Evidence) -> Drawing:
    """Multiplier (top) and best ρ (bottom) against the distance of target and generic text, a point a target."""
    table = relatedness(evidence)
    columns = [
        (column, words)
        for column, words in (
            ("divergence", "token-frequency divergence (nats)"),
            ("stage1_loss", "target loss at the end of stage 1 (nats)"),
        )
        if table[column].notna().sum() > 1
    ]
    if not columns:
        raise NotEnoughError("fewer than two targets have a distance to the generic text")
    figure, axes = panels(2, len(columns), 2.0, width=3.25 * len(columns), sharex="col")
    for column, (name, words) in enumerate(columns):
        at = table[table[name].notna()]
        for index, (_, row) in enumerate(at.iterrows()):
            style = series_style(index)
            one = at.loc[[row.name]]
            draw_multipliers(axes[0, column], one[name], one, style, plain_text(row["target"]))
            reach = [[max(row["best_replay"] - row["rho_low"], 0)], [max(row["rho_high"] - row["best_replay"], 0)]]
            axes[1, column].errorbar([row[name]], [row["best_replay"]], yerr=reach, fmt=style["marker"],
                                     color=style["color"], elinewidth=0.9)  # fmt: skip
        finish_multiplier_axis(axes[0, column], at)
        if column and axes[0, column].get_legend():
            axes[0, column].get_legend().remove()
        axes[1, column].set_ylim(-0.03, 1)
        axes[1, column].set_ylabel("best replay fraction ρ*")
        axes[1, column].set_xlabel(words)
        axes[1, column].margins(x=0.15)
    caption = "What replay is worth, and the best fraction, against how far the target is from the generic text."
    return Drawing("multiplier_against_distance", "Related and unrelated targets", caption, figure)
