"""A study's run table → its findings: tuned cells, a reference curve for each group, multipliers with intervals."""

# Shape suffixes in names:
# ruff: noqa: N806

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.curves.multiplier import EffectiveDataMultiplier
from analysis.curves.noise import Noise
from analysis.curves.reference_curve import CurveError, ReferenceCurve
from analysis.errors import UserError
from analysis.findings.cells import baseline_warnings, reference_cells, with_losses
from analysis.findings.comparison import (
    CELL,
    baselines_of,
    best_replay_cells,
    compared,
    comparison_table,
    replicates_of,
)
from analysis.findings.optimum import Optimum, replay_optima
from analysis.findings.tuning import completed, tuned_runs

GROUP = ("target", "generic", "model", "mode", "total_tokens")
MOST_CELLS = 20_000


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

    `row`, the best replay cell's row of `multipliers`; `multiplier`; (`rho_low`, `rho_high`), between which the best
    fraction lies in the central part of the replicates; `largest_tried`, whether it is the largest ρ tried.
    """

    row: "pd.Series[Any]"
    multiplier: EffectiveDataMultiplier
    rho_low: float
    rho_high: float
    largest_tried: bool

    @property
    def untuned(self) -> bool:
        """Whether the baseline was run with one nuisance setting only."""
        return bool(self.row["baseline_settings"] == 1)


@dataclass(frozen=True)
class GroupFindings:
    """One target, generic text, model, mode and total tokens.

    `cells`, a row for each (N, α, ρ) with its tuned losses; `runs`, the runs at the chosen settings (column `cell`);
    `curve`, None with a `reason` where there is none; `multipliers`, a row for each cell that has a baseline at its N,
    indexed like `cells`; `results`, the same as objects; `optima`; `headline`, None where nothing can be compared.
    """

    label: dict[str, Any]
    cells: pd.DataFrame
    runs: pd.DataFrame
    seed_noise: Noise | None
    curve: ReferenceCurve | None
    reason: str
    multipliers: pd.DataFrame
    results: dict[int, EffectiveDataMultiplier]
    optima: tuple[Optimum, ...]
    headline: Headline | None
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The label in words, for titles."""
        parts = [str(self.label[key]) for key in ("target", "model", "mode") if self.label[key]]
        extra = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                 for key, value in self.label.items() if key not in GROUP]  # fmt: skip
        return ", ".join(parts + extra) or "all runs"

    @property
    def parameters(self) -> float:
        """Parameters of the model, NaN where the table does not say or says several."""
        if "parameters" not in self.runs or self.runs["parameters"].nunique(dropna=False) != 1:
            return float("nan")
        return float(self.runs["parameters"].iloc[0])


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

    Raises UserError where no run can be analysed, where the table mixes studies, or where its settings look measured
    rather than set (more than 20,000 distinct cells).
    """
    settings = settings or Settings()
    done = _analysable(runs, settings)
    tuned = tuned_runs(done, settings.axes)
    if len(tuned.cells) > MOST_CELLS:
        raise UserError(
            f"the table has {len(tuned.cells):,} different settings of target_tokens, replay_fraction and the other "
            f"axes, more than {MOST_CELLS:,}: they look measured rather than set"
        )
    warnings = [*runs.attrs.get("warnings", []), *_status_warnings(runs, len(done)), *tuned.warnings]
    columns = [*GROUP, *settings.axes]
    groups = []
    for key, cells in tuned.cells.groupby(columns, dropna=False, sort=True):
        label = dict(zip(columns, key, strict=True))
        chosen = tuned.runs[tuned.runs["cell"].isin(cells.index)]
        near_best = tuned.near_best[tuned.near_best["cell"].isin(cells.index)]
        groups.append(_with_own_curve(label, with_losses(cells, chosen, near_best), chosen, settings))
    finished = [_compared(_borrowing(group, groups), settings) for group in groups]
    finished.sort(key=lambda group: (group.headline is not None, len(group.multipliers)), reverse=True)
    return Findings(runs, done, tuple(finished), tuple(warnings), settings)


def _analysable(runs: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    if "study" in runs:
        studies = sorted({str(study) for study in runs["study"].unique() if study})
        if len(studies) > 1:
            raise UserError(f"the table mixes {len(studies)} studies ({', '.join(studies[:6])}): choose with --study")
    unknown = [axis for axis in settings.axes if axis not in runs]
    if unknown:
        raise UserError(*(f"the table has no column {axis} to compare" for axis in unknown))
    done = completed(runs)
    if done.empty:
        raise UserError("no run of the table is done: there is nothing to analyse")
    return done


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


def _with_own_curve(
    label: dict[str, Any],
    cells_noise_warnings: tuple[pd.DataFrame, Noise | None, list[str]],
    runs: pd.DataFrame,
    settings: Settings,
) -> GroupFindings:
    """A group with, where its runs without replay allow one, its reference curve; first argument as `with_losses`."""
    cells, seed_noise, warnings = cells_noise_warnings
    points = cells[reference_cells(cells)]
    warnings += baseline_warnings(points)
    curve, reason = None, "there is no run without replay (replay_fraction = 0) to compare with"
    if len(points):
        try:
            curve = ReferenceCurve.fit(
                points["target_tokens"].to_numpy(),
                points["target_loss"].to_numpy(),
                settings.form,
                counts=points["runs"].to_numpy(),
                seed_noise=seed_noise,
            )
            reason = ""
        except CurveError as error:
            reason = "; ".join(error.problems)
    empty = comparison_table(label, cells, {}, {})
    return GroupFindings(label, cells, runs, seed_noise, curve, reason, empty, {}, (), None, tuple(warnings))


def _borrowing(group: GroupFindings, groups: list[GroupFindings]) -> GroupFindings:
    """The group with the curve of another mode of the same target and model, where it has none of its own.

    The paper does so: its fine-tuning losses are read off the mid-training reference curve.
    """
    if group.curve is not None:
        return group
    same = ("target", "generic", "model")
    lenders = [
        other
        for other in groups
        if other.curve is not None and all(other.label[key] == group.label[key] for key in same)
        and other.label["mode"] != group.label["mode"]
        and (other.label["total_tokens"] == group.label["total_tokens"] or pd.isna(group.label["total_tokens"]))
    ]  # fmt: skip
    if not lenders or not reference_cells(group.cells).any():
        return group
    lender = max(lenders, key=lambda other: len(other.cells))
    warning = f"borrowed_curve: losses are read off the reference curve of {lender.name} ({group.reason})"
    return replace(group, curve=lender.curve, reason="", warnings=(*group.warnings, warning))


def _compared(group: GroupFindings, settings: Settings) -> GroupFindings:
    """The group with its multipliers, optima and headline."""
    reference = reference_cells(group.cells)
    baselines = baselines_of(group.cells, reference)
    log_tokens_RK, losses_RK, results = None, None, {}
    if group.curve is not None:
        own = not any(w.startswith("borrowed_curve") for w in group.warnings)
        drawn = replicates_of(group.curve, group.cells, reference, own, settings.replicates, settings.seed)
        if drawn is not None:
            log_tokens_RK, losses_RK = drawn
        results = compared(group.curve, group.cells, baselines, log_tokens_RK, settings.level)
    table = comparison_table(group.label, group.cells, baselines, results)
    optima = tuple(replay_optima(group.cells, losses_RK, settings.level))
    return replace(group, multipliers=table, results=results, optima=optima, headline=_headline(table, results, optima))


def _headline(
    table: pd.DataFrame, results: dict[int, EffectiveDataMultiplier], optima: tuple[Optimum, ...]
) -> Headline | None:
    """The comparison of `asked_row` with its multiplier and the range of the best fraction."""
    row: Any = asked_row(table)
    if row is None or not results:
        return None
    at = [
        o for o in optima if (o.target_tokens, o.stage2_allocation) == (row["target_tokens"], row["stage2_allocation"])
    ]
    low, high = (at[0].low, at[0].high) if at else (row["replay_fraction"],) * 2
    largest = bool(at and row["replay_fraction"] == at[0].best_replay and at[0].edge)
    return Headline(row, results[int(row.name)], float(low), float(high), largest)


def asked_row(table: pd.DataFrame) -> "pd.Series[Any] | None":
    """The best replay cell at the target size where most was tried (then most runs, then the smallest size).

    The size is chosen by what was tried, never by what was found. None where replay has no baseline.
    """
    best = best_replay_cells(table)
    if best.empty:
        return None
    replay = table[table["replay_fraction"] > 0]
    sizes = replay.groupby("target_tokens").agg(tried=("replay_fraction", "size"), runs=("runs", "sum")).reset_index()
    order = np.lexsort((sizes["target_tokens"], -sizes["runs"], -sizes["tried"]))
    return best[best["target_tokens"] == sizes["target_tokens"].iloc[order[0]]].iloc[0]
