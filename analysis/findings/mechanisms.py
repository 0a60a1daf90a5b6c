"""Why replay helps: the shock where stage 2 begins, over-fitting through stage 2, forgetting (studies 11 to 13)."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.evidence import NotEnoughError
from analysis.findings.study import Findings
from analysis.findings.tables import parts
from analysis.findings.tuning import runs_with

# The share of stage 2 that counts as its first steps, and over which noisy train losses are averaged.
FIRST_SHARE = 0.1

SeriesByRun = dict[tuple[str, str], pd.DataFrame]


def headline_runs(findings: Findings, tuned: bool = True) -> tuple[pd.DataFrame, float]:
    """Runs of the headline's group, target size and α (the tuned ones, or all), and that size."""
    group = findings.groups[0]
    if group.headline is None:
        sizes = group.cells.groupby("target_tokens")["replay_fraction"].nunique()
        tokens, allocation = float(sizes.index[int(sizes.to_numpy().argmax())]), group.largest_allocation
    else:
        row = group.headline.row
        tokens, allocation = float(row["target_tokens"]), float(row["stage2_allocation"])
    runs = group.runs if tuned else runs_with(findings.done, group.label)
    plain_or_same = (runs["stage2_allocation"] == allocation) | (runs["replay_fraction"] == 0)
    return runs[(runs["target_tokens"] == tokens) & plain_or_same], tokens


def runs_to_follow(findings: Findings) -> list[tuple[float, "pd.Series[Any]"]]:
    """(ρ, run) of a tuned run without replay and of one with the best replay, of those that the headline is about."""
    runs, _ = headline_runs(findings)
    cells = findings.groups[0].cells.set_index("cell")
    by_loss = cells.loc[runs["cell"].unique()].sort_values("selection_loss")["replay_fraction"]
    fractions = [0.0, *[rho for rho in by_loss if rho > 0][:1]]
    return [(rho, at.iloc[0]) for rho in fractions if len(at := runs[runs["replay_fraction"] == rho])]


def _series(runs: pd.DataFrame, history: pd.DataFrame | None, columns: Sequence[str]) -> SeriesByRun:
    """The history of `runs` by (run_id, metric), in the order of steps, without missing values."""
    if history is None or history.empty:
        raise NotEnoughError("there is no history.parquet beside the run table")
    missing = [column for column in ("run_id", *columns) if column not in runs]
    if missing:
        raise NotEnoughError(f"the run table lacks {', '.join(missing)}")
    usable = history[history["run_id"].isin(runs["run_id"]) & np.isfinite(history["value"])]
    if usable.empty:
        raise NotEnoughError("the history holds none of the analysed runs")
    return dict(parts(usable.sort_values("step", kind="stable"), ("run_id", "metric")))


def shock(runs: pd.DataFrame, history: pd.DataFrame | None) -> pd.DataFrame:
    """The jump of losses and gradient norm where stage 2 begins, a row a run.

    Columns added to those of `runs`: `target_jump`, `generic_jump`, nats: the first observation after stage 2 began
    (within its first quarter) minus the last one before; `gradient_jump`: the largest gradient norm in the first tenth
    of stage 2 over the median in the same number of steps before (1 is no shock). NaN where the history does not say.

    Raises NotEnoughError where no run has any of them.
    """
    by_series = _series(runs, history, ("stage2_step", "steps"))
    rows = []
    run: Any
    for run in runs.itertuples():
        start, end = float(run.stage2_step), float(run.steps)
        row = {"run_id": run.run_id}
        for metric, name in (("target_loss", "target_jump"), ("generic_loss", "generic_jump")):
            row[name] = _jump(by_series.get((run.run_id, metric)), start, end)
        row["gradient_jump"] = _gradient_jump(by_series.get((run.run_id, "gradient_norm")), start, end)
        rows.append(row)
    table = runs.merge(pd.DataFrame(rows), on="run_id")
    if table[["target_jump", "generic_jump", "gradient_jump"]].isna().all(axis=None):
        raise NotEnoughError("no run was observed just before and a few steps after stage 2 begins")
    return table


def _jump(series: pd.DataFrame | None, start: float, end: float) -> float:
    if series is None or not 0 < start < end:
        return float("nan")
    before = series[series["step"] <= start]
    after = series[(series["step"] > start) & (series["step"] <= start + max(1.0, (end - start) / 4))]
    if before.empty or after.empty:
        return float("nan")
    return float(after["value"].iloc[0] - before["value"].iloc[-1])


def _gradient_jump(series: pd.DataFrame | None, start: float, end: float) -> float:
    if series is None or not 0 < start < end:
        return float("nan")
    window = max(10.0, FIRST_SHARE * (end - start))
    before = series[(series["step"] <= start) & (series["step"] > start - window)]
    after = series[(series["step"] > start) & (series["step"] <= start + window)]
    if before.empty or after.empty or before["value"].median() <= 0:
        return float("nan")
    return float(after["value"].max() / before["value"].median())


def overfitting(runs: pd.DataFrame, history: pd.DataFrame | None) -> pd.DataFrame:
    """The gap between target validation and train loss through stage 2, a row an observation.

    Columns: those of `runs`, `step`, `progress` (0 where stage 2 begins, 1 at the end), `validation` and `train` (nats;
    train losses averaged over the tenth of stage 2 before the observation, at least its last three), and `gap` =
    validation − train.

    Raises NotEnoughError where no run has both.
    """
    by_series = _series(runs, history, ("stage2_step", "steps"))
    rows = []
    run: Any
    for run in runs.itertuples():
        start, end = float(run.stage2_step), float(run.steps)
        observed = by_series.get((run.run_id, "target_loss"))
        train = by_series.get((run.run_id, "train_target_loss"))
        if observed is None or train is None or not start < end:
            continue
        steps, values = train["step"].to_numpy(dtype=float), train["value"].to_numpy()
        for step, validation in zip(observed["step"].to_numpy(dtype=float), observed["value"], strict=True):
            until = values[(steps <= step) & (steps > start)]
            if step > start and len(until):
                recent = ((steps <= step) & (steps > step - FIRST_SHARE * (end - start)) & (steps > start)).sum()
                progress, train_loss = (step - start) / (end - start), until[-max(3, recent) :].mean()
                rows.append((run.run_id, step, progress, float(validation), float(train_loss)))
    if not rows:
        raise NotEnoughError("no run has target train and validation losses in stage 2")
    table = pd.DataFrame(rows, columns=["run_id", "step", "progress", "validation", "train"])
    table["gap"] = table["validation"] - table["train"]
    return runs.merge(table, on="run_id")


def final_gap(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with `gap` = target_loss − target_train_loss at the end, nats; NotEnoughError where no run has both."""
    if "target_train_loss" not in runs or runs["target_train_loss"].isna().all():
        raise NotEnoughError("the run table has no target_train_loss")
    table = runs[runs["target_train_loss"].notna()].copy()
    table["gap"] = table["target_loss"] - table["target_train_loss"]
    return table


def forgetting(runs: pd.DataFrame, history: pd.DataFrame | None = None) -> pd.DataFrame:
    """Runs with `generic_before` (generic loss where stage 2 begins, nats; NaN without such an observation) and
    `forgotten` = generic_loss at the end − generic_before. Raises NotEnoughError without generic losses."""
    if "generic_loss" not in runs or runs["generic_loss"].isna().all():
        raise NotEnoughError("the run table has no generic_loss")
    table = runs[runs["generic_loss"].notna()].copy()
    table["generic_before"] = loss_before_stage2(table, history, "generic_loss")
    table["forgotten"] = table["generic_loss"] - table["generic_before"]
    return table


def loss_before_stage2(runs: pd.DataFrame, history: pd.DataFrame | None, metric: str) -> "pd.Series[float]":
    """The last observation of `metric` (nats) at or before the step where stage 2 begins, for each of `runs`."""
    nothing = pd.Series(np.nan, index=runs.index)
    if history is None or not {"run_id", "stage2_step"} <= set(runs.columns):
        return nothing
    observed = history[(history["metric"] == metric) & np.isfinite(history["value"])]
    observed = observed.merge(runs[["run_id", "stage2_step"]], on="run_id")
    observed = observed[observed["step"] <= observed["stage2_step"]].sort_values("step", kind="stable")
    return runs["run_id"].map(observed.groupby("run_id")["value"].last())


def mechanism_sentences(runs: pd.DataFrame, history: pd.DataFrame | None) -> list[str]:
    """One sentence for each mechanism that the runs (of one group and target size) can tell about."""
    lines = []
    with suppress(NotEnoughError):
        jumps = shock(runs, history).groupby("replay_fraction")[["target_jump", "generic_jump", "gradient_jump"]].mean()
        lines += _shock_sentences(jumps)
    with suppress(NotEnoughError):
        gaps = final_gap(runs).groupby("replay_fraction")["gap"].mean()
        lines.append(f"Over-fitting: the target's validation loss ends {_from_to(gaps, 'nats')} above its train loss.")
    with suppress(NotEnoughError):
        lines.append(_forgetting_sentence(forgetting(runs, history)))
    return lines


def _shock_sentences(jumps: pd.DataFrame) -> list[str]:
    parts = []
    for column, words in (("target_jump", "the target loss changes by"), ("generic_jump", "the generic loss by")):
        by_rho = jumps[column].dropna()
        if len(by_rho):
            parts.append(f"{words} {_from_to(by_rho, 'nats', signed=True)}")
    by_rho = jumps["gradient_jump"].dropna()
    if len(by_rho):
        parts.append(f"the gradient norm is multiplied by {_from_to(by_rho, '')}")
    return [f"Shock: in the first steps of stage 2 {'; '.join(parts)}."] if parts else []


def _forgetting_sentence(table: pd.DataFrame) -> str:
    if table["forgotten"].notna().any():
        change = table.groupby("replay_fraction")["forgotten"].mean().dropna()
        return f"Forgetting: through stage 2 the generic loss changes by {_from_to(change, 'nats', signed=True)}."
    end = table.groupby("replay_fraction")["generic_loss"].mean()
    return f"Forgetting: the generic loss ends at {_from_to(end, 'nats')}."


def _from_to(by_rho: "pd.Series[float]", unit: str, signed: bool = False) -> str:
    """ "0.12 nats at ρ = 0 and 0.03 nats at ρ = 0.75": the smallest and the largest fraction."""
    by_rho = by_rho.sort_index()
    fractions = [by_rho.index[0]] if len(by_rho) == 1 else [by_rho.index[0], by_rho.index[-1]]
    style = "+.3f" if signed else ".3f" if unit else ".2f"
    return " and ".join(f"{by_rho[rho]:{style}}{' ' + unit if unit else ''} at ρ = {rho:.3g}" for rho in fractions)
