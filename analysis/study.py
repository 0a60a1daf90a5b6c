"""A study's run table → its findings: tuned cells, a reference curve for each group, multipliers with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.bootstrap import percentile_interval, replicate_log_tokens
from analysis.forms import Array
from analysis.multiplier import EffectiveDataMultiplier, finished
from analysis.reference_curve import CurveError, ReferenceCurve
from analysis.seeds import seed_means
from analysis.tuning import completed, tuned_runs
from replay_sweeps.errors import UserError

GROUP = ("target", "generic", "model", "mode", "total_tokens")
CELL = ("target_tokens", "stage2_allocation", "replay_fraction")


@dataclass(frozen=True)
class Settings:
    """How to analyse: the reference curve's `form`, the intervals' `level`, bootstrap `replicates` and `seed`, and
    `axes`, nuisance columns that are compared instead of tuned."""

    form: str = "auto"
    level: float = 0.9
    replicates: int = 10_000
    seed: int = 0
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Headline:
    """The comparison that answers the question for one group.

    `row`, the best replay cell's row of `multipliers`; `multiplier`; `best_replay`, the ρ with the lowest loss, and the
    interval (`rho_low`, `rho_high`) of ρ that are the best in the central `level` of the replicates.
    """

    row: "pd.Series[Any]"
    multiplier: EffectiveDataMultiplier
    rho_low: float
    rho_high: float


@dataclass(frozen=True)
class GroupFindings:
    """One target, generic text, model, mode and total tokens.

    `cells`, a row for each (N, α, ρ) with its tuned losses; `curve`, None with a `reason` where there is none;
    `multipliers`, a row for each cell that has a baseline at its N; `headline`, None where nothing can be compared.
    """

    label: dict[str, Any]
    cells: pd.DataFrame
    curve: ReferenceCurve | None
    reason: str
    multipliers: pd.DataFrame
    results: dict[int, EffectiveDataMultiplier]
    optima: pd.DataFrame
    headline: Headline | None
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The label in words, for titles."""
        parts = [str(self.label[key]) for key in ("target", "model", "mode") if self.label[key]]
        extra = [f"{key}={value}" for key, value in self.label.items() if key not in GROUP]
        return ", ".join(parts + extra) or "all runs"


@dataclass(frozen=True)
class Findings:
    """What a run table says.

    `runs`, the whole table; `done`, the runs that were analysed; `groups`, the first is the one that the answer begins
    with; `warnings` about the table as a whole; `settings`.
    """

    runs: pd.DataFrame
    done: pd.DataFrame
    groups: tuple[GroupFindings, ...]
    warnings: tuple[str, ...]
    settings: Settings = field(default_factory=Settings)

    @property
    def multipliers(self) -> pd.DataFrame:
        """The rows of all groups: what multipliers.csv holds."""
        tables = [group.multipliers for group in self.groups if len(group.multipliers)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*GROUP, *CELL, "multiplier"])


def analyse(runs: pd.DataFrame, settings: Settings | None = None) -> Findings:
    """Analyse a run table (from `load_runs`).

    Raises UserError where no run can be analysed or where the table mixes studies.
    """
    settings = settings or Settings()
    if "study" in runs:
        studies = sorted({str(s) for s in runs["study"].unique()})
        if len(studies) > 1:
            raise UserError(f"the table mixes {len(studies)} studies ({', '.join(studies[:6])}): choose with --study")
    unknown = [axis for axis in settings.axes if axis not in runs]
    if unknown:
        raise UserError(*(f"the table has no column {axis} to compare" for axis in unknown))
    done = completed(runs)
    if done.empty:
        raise UserError("no run of the table is done: there is nothing to analyse")
    warnings = list(runs.attrs.get("warnings", [])) + _status_warnings(runs, len(done))
    tuned = tuned_runs(done, settings.axes)
    warnings += tuned.warnings
    group_columns = [*GROUP, *settings.axes]
    groups = []
    for key, cells in tuned.cells.groupby(group_columns, dropna=False, sort=True):
        label = dict(zip(group_columns, key, strict=True))
        chosen = tuned.runs[tuned.runs["cell"].isin(cells.index)]
        groups.append(analyse_group(label, cells, chosen, settings))
    groups.sort(key=_richness, reverse=True)
    return Findings(runs, done, tuple(groups), tuple(warnings), settings)


def _richness(group: GroupFindings) -> tuple[bool, int]:
    return group.headline is not None, len(group.multipliers)


def _status_warnings(runs: pd.DataFrame, n_done: int) -> list[str]:
    counts = runs["status"].value_counts()
    found = []
    for status, words in (("failed", "failed"), ("pending", "are still pending")):
        if counts.get(status, 0):
            found.append(f"incomplete: {counts[status]} of {len(runs)} runs {words}; they are left out")
    diverged = int(counts.get("done", 0)) - n_done
    if diverged:
        found.append(f"diverged: {diverged} of {len(runs)} runs ended without a finite target loss; they are left out")
    return found


def analyse_group(
    label: dict[str, Any], cells: pd.DataFrame, runs: pd.DataFrame, settings: Settings
) -> GroupFindings:
    """Curve, multipliers and headline of one group from its tuned cells and the runs at their chosen settings."""
    cells, seeds, warnings = _with_losses(cells, runs)
    reference = _reference_cells(cells)
    warnings += _baseline_warnings(cells[reference])
    curve, reason = None, ""
    points = cells[reference]
    try:
        curve = ReferenceCurve.fit(
            points["target_tokens"], points["target_loss"], settings.form, counts=points["runs"], seed_noise=seeds
        )
    except CurveError as error:
        reason = "; ".join(error.problems)
        if points.empty:
            reason = "there is no run without replay (replay_fraction = 0) to compare with"
    pairs = _pairs(cells, reference)
    if curve is None:
        table = _loss_table(label, cells, pairs)
        return GroupFindings(label, cells, None, reason, table, {}, _no_optima(), None, tuple(warnings))
    log_tokens_RK, losses_RK = _replicates(curve, cells, reference, settings)
    results = {
        candidate: _result(curve, cells, candidate, baseline, log_tokens_RK, settings)
        for candidate, baseline in pairs.items()
    }
    table = _loss_table(label, cells, pairs)
    table = pd.concat([table, _result_table(results)], axis=1) if len(table) else table
    optima = replay_optima(cells, losses_RK, settings.level)
    headline = _headline(table, results, optima)
    return GroupFindings(label, cells, curve, "", table, results, optima, headline, tuple(warnings))


def _with_losses(cells: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, Any, list[str]]:
    """Cells (rows 0 … K−1) with seed-mean losses, the seeds' noise, and warnings about seeds."""
    order = np.sort(cells.index.to_numpy())
    codes, seeds = runs["cell"].to_numpy(), runs["seeds"].to_numpy()
    means = seed_means(codes, seeds, runs["target_loss"].to_numpy(dtype=float))
    cells = cells.loc[order].copy()
    cells["target_loss"] = means.means
    cells["runs"] = means.counts.astype(int)
    cells["seeds"] = runs.groupby("cell")["seeds"].nunique()
    for column in ("generic_loss", "target_train_loss"):
        cells[column] = np.nan
        if column in runs and np.isfinite(runs[column].astype(float)).all():
            cells[column] = seed_means(codes, seeds, runs[column].to_numpy(dtype=float)).means
        elif column in runs:
            cells[column] = runs.groupby("cell")[column].mean()
    warnings = []
    if means.corrected:
        warnings.append(
            "seeds_differ: not every cell has every seed; cells are compared on the seeds that they share "
            "(means corrected by the seed effects seen in the others)"
        )
    if not means.connected:
        warnings.append("seeds_unpaired: some cells share no seed with the others; their plain means are compared")
    return cells.reset_index(drop=True), means.noise, warnings


def _reference_cells(cells: pd.DataFrame) -> Array:
    """Which cells are reference points: ρ = 0, all of the target data in stage 2 (or as much as was tried)."""
    plain = cells["replay_fraction"] == 0
    if not plain.any():
        return plain.to_numpy()
    return (plain & (cells["stage2_allocation"] == cells.loc[plain, "stage2_allocation"].max())).to_numpy()


def _baseline_warnings(points: pd.DataFrame) -> list[str]:
    found = []
    if len(points) == 0:
        return found
    untuned = points[points["settings"] == 1]
    if len(untuned):
        sizes = "every size" if len(untuned) == len(points) else _sizes(untuned["target_tokens"])
        epochs = untuned["target_epochs"].dropna().unique() if "target_epochs" in untuned else []
        at = f" (E = {epochs[0]:g})" if len(epochs) == 1 else ""
        found.append(
            f"untuned: at {sizes} the runs without replay were made with one setting only{at}; "
            "unless it was tuned elsewhere, multipliers are too high"
        )
    for text, at in points[points["edge"] != ""].groupby("edge"):
        found.append(
            f"edge: without replay at {_sizes(at['target_tokens'])}, {text}; "
            "a better baseline may lie beyond, and multipliers may be too high"
        )
    return found


def _sizes(tokens: "pd.Series[float]") -> str:
    shown = [f"{value:,.0f}" for value in np.sort(tokens.unique())]
    more = f" and {len(shown) - 4} more sizes" if len(shown) > 4 else ""
    return f"{', '.join(shown[:4])}{more} target tokens"


def _pairs(cells: pd.DataFrame, reference: Array) -> dict[int, int]:
    """For every cell that is no reference point, the reference point at its N, where there is one."""
    baseline_at = {tokens: i for i, tokens in cells.loc[reference, "target_tokens"].items()}
    candidates = cells.loc[~reference, "target_tokens"]
    return {int(i): int(baseline_at[tokens]) for i, tokens in candidates.items() if tokens in baseline_at}


def _replicates(
    curve: ReferenceCurve, cells: pd.DataFrame, reference: Array, settings: Settings
) -> tuple[Array | None, Array | None]:
    if curve.noise is None:
        return None, None
    point_K = np.full(len(cells), -1)
    if len(curve.target_tokens) == reference.sum():
        point_K[reference] = np.searchsorted(curve.target_tokens, cells.loc[reference, "target_tokens"])
    return replicate_log_tokens(
        curve,
        cells["target_loss"].to_numpy(),
        cells["runs"].to_numpy(dtype=float),
        point_K,
        settings.replicates,
        settings.seed,
    )


def _result(
    curve: ReferenceCurve,
    cells: pd.DataFrame,
    candidate: int,
    baseline: int,
    log_tokens_RK: Array | None,
    settings: Settings,
) -> EffectiveDataMultiplier:
    losses = cells["target_loss"].to_numpy()[[candidate, baseline]]
    if log_tokens_RK is None:
        warning = "no_interval: one run per cell and too few sizes to tell how noisy a loss is"
        return finished(curve, losses, (0.0, np.inf, settings.level), 0.0, [warning])
    pair_R2 = log_tokens_RK[:, [candidate, baseline]]
    with np.errstate(invalid="ignore"):
        interval = percentile_interval(pair_R2[:, 0] - pair_R2[:, 1], settings.level)
    bottom, top = np.log(curve.token_range)
    # A reference point at the end of the range is inside it in every replicate.
    share = float(((pair_R2[:, 0] < bottom - 1e-9) | (pair_R2[:, 0] > top + 1e-9)).mean())
    return finished(curve, losses, (interval.low, interval.high, settings.level), share, [])


def _loss_table(label: dict[str, Any], cells: pd.DataFrame, pairs: dict[int, int]) -> pd.DataFrame:
    """Candidates with their settings, losses and baseline's loss; indexed by cell."""
    candidates, baselines = list(pairs), list(pairs.values())
    settings = [c for c in ("target_epochs", "stage1_lr", "stage2_lr", "weight_decay", "lr_schedule") if c in cells]
    kept = [*CELL, *settings, "settings", "runs", "seeds", "selection_loss", "target_loss", "generic_loss", "edge"]
    table = cells.loc[candidates, kept].copy()
    for column in ("target_loss", "generic_loss", "selection_loss", *(c for c in settings if c == "target_epochs")):
        table[f"baseline_{column}"] = cells.loc[baselines, column].to_numpy()
    for position, (key, value) in enumerate(label.items()):
        if key not in table:
            table.insert(position, key, value)
    return table


def _result_table(results: dict[int, EffectiveDataMultiplier]) -> pd.DataFrame:
    rows = {
        cell: {
            "effective_tokens": float(r.candidate_tokens),
            "baseline_effective_tokens": float(r.baseline_tokens),
            "multiplier": r.value,
            "low": r.low,
            "high": r.high,
            "level": r.level,
            "extrapolated": r.extrapolated,
            "at_least": r.at_least,
            "at_most": r.at_most,
            **{f"multiplier_{form}": value for form, value in r.by_form.items()},
            "warnings": "; ".join(r.warnings),
        }
        for cell, r in results.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _no_optima() -> pd.DataFrame:
    return pd.DataFrame(columns=["target_tokens", "stage2_allocation", "best_replay", "low", "high", "loss"])


def replay_optima(cells: pd.DataFrame, losses_RK: Array | None, level: float) -> pd.DataFrame:
    """For every (N, α) with two or more ρ: the ρ chosen on the selection loss, and where the best lies in replicates.

    Columns: target_tokens, stage2_allocation, best_replay, low, high (the central `level` of replicates' best ρ among
    those tried; the whole range where there is no noise estimate), loss (nats), edge (whether the best is the largest
    ρ tried).
    """
    rows = []
    for (tokens, allocation), at in cells.groupby(["target_tokens", "stage2_allocation"]):
        if len(at) < 2:
            continue
        rhos = at["replay_fraction"].to_numpy()
        best = at.loc[at["selection_loss"].idxmin()]
        low, high = rhos.min(), rhos.max()
        if losses_RK is not None:
            winners_R = rhos[losses_RK[:, at.index].argmin(axis=1)]
            tail = (1 - level) / 2
            low, high = np.quantile(winners_R, [tail, 1 - tail], method="inverted_cdf")
        row = (tokens, allocation, best["replay_fraction"], low, high, best["target_loss"])
        rows.append((*row, best["replay_fraction"] == rhos.max()))
    return pd.DataFrame(rows, columns=[*_no_optima().columns, "edge"]) if rows else _no_optima().assign(edge=False)


def _headline(
    table: pd.DataFrame, results: dict[int, EffectiveDataMultiplier], optima: pd.DataFrame
) -> Headline | None:
    """The best replay cell at the target size where most was tried (then most runs, then the smallest size).

    The size is chosen by what was tried, never by what was found.
    """
    replay = table[table["replay_fraction"] > 0] if len(table) else table
    if replay.empty:
        return None
    sizes = replay.groupby("target_tokens").agg(tried=("replay_fraction", "size"), runs=("runs", "sum"))
    sizes = sizes.reset_index().sort_values(["tried", "runs", "target_tokens"], ascending=[False, False, True])
    tokens = sizes["target_tokens"].iloc[0]
    here = replay[replay["target_tokens"] == tokens]
    cell = here["selection_loss"].idxmin()
    row = here.loc[cell]
    at = optima[(optima["target_tokens"] == tokens) & (optima["stage2_allocation"] == row["stage2_allocation"])]
    low, high = (at["low"].iloc[0], at["high"].iloc[0]) if len(at) else (row["replay_fraction"],) * 2
    return Headline(row, results[int(cell)], float(low), float(high))
