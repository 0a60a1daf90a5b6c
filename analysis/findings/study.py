"""A study's run table → its findings: tuned cells, a reference curve for each group, multipliers with intervals."""

# Shape suffixes in names:
# ruff: noqa: N806

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from analysis.caveats import Caveat
from analysis.curves.multiplier import EffectiveDataMultiplier
from analysis.curves.noise import Noise
from analysis.curves.reference_curve import ReferenceCurve
from analysis.errors import CurveError, UserError
from analysis.findings.cells import TunedGroup, reference_cells, tuned_group
from analysis.findings.comparison import baselines_of, comparison_table, multipliers_of, replicates_of
from analysis.findings.headline import Headline, asked_row, headline_of
from analysis.findings.optimum import Optimum, OptimumLaw, fit_optimum_law, replay_optima
from analysis.findings.recommendation import Recommendation, recommend
from analysis.findings.tuning import CELL, GROUP, completed_runs, tuned_runs

MOST_CELLS = 20_000


@dataclass(frozen=True)
class Settings:
    """How to analyse: the reference curve's `form`, the intervals' `level`, `n_resamples` and `seed` of the bootstrap,
    and `axes`, nuisance columns that are compared instead of tuned."""

    form: str = "auto"
    level: float = 0.9
    n_resamples: int = 10_000
    seed: int = 0
    axes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupFindings(TunedGroup):
    """What the runs of one group say.

    `curve`, its own or another mode's, None with a `reason` where there is none; `multipliers`, a row for each cell
    that has a baseline at its N, indexed like `cells`; `results`, the same as objects; `optima`; `headline`, None where
    nothing can be compared; `recommendation`, None where replay has no baseline to beat.
    """

    curve: ReferenceCurve | None
    reason: str
    multipliers: pd.DataFrame
    results: dict[int, EffectiveDataMultiplier]
    optima: tuple[Optimum, ...]
    headline: Headline | None
    recommendation: Recommendation | None

    @property
    def noise(self) -> Noise | None:
        """The noise of one run that intervals are made with."""
        return self.curve.noise if self.curve is not None else self.seed_noise


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run table says.

    `runs`, the whole table; `done`, the runs that were analysed; `groups`, the first is the one that the answer begins
    with; `optimum_law`, ρ*(N, P) over the groups of its target and mode, None where their optima do not allow one;
    `warnings` about the table as a whole; `settings`.
    """

    runs: pd.DataFrame
    done: pd.DataFrame
    groups: tuple[GroupFindings, ...]
    optimum_law: OptimumLaw | None
    warnings: tuple[Caveat, ...]
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
    done = _analysable_runs(runs, settings)
    tuned = tuned_runs(done, settings.axes)
    if len(tuned.cells) > MOST_CELLS:
        raise UserError(
            f"the table has {len(tuned.cells):,} different settings of target_tokens, replay_fraction and the other "
            f"axes, more than {MOST_CELLS:,}: they look measured rather than set"
        )
    columns = [*GROUP, *settings.axes]
    tuned_groups = [
        tuned_group(dict(zip(columns, key, strict=True)), cells, tuned)
        for key, cells in tuned.cells.groupby(columns, dropna=False, sort=True)
    ]
    groups = [
        _group_findings(group, curve, done, settings)
        for group, curve in zip(tuned_groups, _curves_of(tuned_groups, settings.form), strict=True)
    ]
    groups.sort(key=lambda group: (group.headline is not None, len(group.multipliers)), reverse=True)
    return Findings(
        runs=runs,
        done=done,
        groups=tuple(groups),
        optimum_law=_optimum_law(groups, settings.level),
        warnings=(*runs.attrs.get("warnings", []), *_status_caveats(runs, len(done)), *tuned.warnings),
        settings=settings,
    )


def _analysable_runs(runs: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    if "study" in runs:
        studies = sorted({str(study) for study in runs["study"].unique() if study})
        if len(studies) > 1:
            raise UserError(f"the table mixes {len(studies)} studies ({', '.join(studies[:6])}): choose with --study")
    unknown = [axis for axis in settings.axes if axis not in runs]
    if unknown:
        raise UserError(*(f"the table has no column {axis} to compare" for axis in unknown))
    done = completed_runs(runs)
    if done.empty:
        raise UserError("no run of the table is done: there is nothing to analyse")
    return done


def _status_caveats(runs: pd.DataFrame, n_done: int) -> list[Caveat]:
    counts = runs["status"].value_counts()
    caveats = []
    for status, words in (("failed", "failed"), ("pending", "are still pending")):
        if counts.get(status, 0):
            text = f"{counts[status]} of {len(runs)} runs {words}; they are left out"
            caveats.append(Caveat("incomplete", text))
    diverged = int(counts.get("done", 0)) - n_done
    if diverged:
        text = f"{diverged} of {len(runs)} runs ended without a finite target loss; they are left out"
        caveats.append(Caveat("diverged", text))
    return caveats


@dataclass(frozen=True, kw_only=True)
class _GroupCurve:
    """The reference curve of a group, None with a `reason` where there is none; `caveats` name a `borrowed` one."""

    curve: ReferenceCurve | None
    reason: str = ""
    borrowed: bool = False
    caveats: tuple[Caveat, ...] = ()


def _curves_of(groups: Sequence[TunedGroup], form: str) -> list[_GroupCurve]:
    """For every group its own curve, or, where its runs allow none, one that another group lends."""
    own = [_own_curve(group, form) for group in groups]
    pairs = list(zip(groups, own, strict=True))
    lenders = [(group, fitted.curve) for group, fitted in pairs if fitted.curve is not None]
    return [fitted if fitted.curve is not None else _borrowed_curve(group, lenders, fitted) for group, fitted in pairs]


def _own_curve(group: TunedGroup, form: str) -> _GroupCurve:
    points = group.cells[reference_cells(group.cells)]
    if points.empty:
        return _GroupCurve(curve=None, reason="there is no run without replay (replay_fraction = 0) to compare with")
    try:
        curve = ReferenceCurve.fit(
            points["target_tokens"].to_numpy(),
            points["target_loss"].to_numpy(),
            form,
            counts=points["runs"].to_numpy(),
            seed_noise=group.seed_noise,
        )
    except CurveError as error:
        return _GroupCurve(curve=None, reason="; ".join(error.problems))
    return _GroupCurve(curve=curve)


def _borrowed_curve(
    group: TunedGroup, lenders: Sequence[tuple[TunedGroup, ReferenceCurve]], own: _GroupCurve
) -> _GroupCurve:
    """The curve of another mode of the same target and model; `own`, which has none, where nobody lends one.

    The paper does so: its fine-tuning losses are read off the mid-training reference curve.
    """
    same = ("target", "generic", "model")
    fitting = [
        (other, curve)
        for other, curve in lenders
        if all(other.label[key] == group.label[key] for key in same)
        and other.label["mode"] != group.label["mode"]
        and (other.label["total_tokens"] == group.label["total_tokens"] or pd.isna(group.label["total_tokens"]))
    ]
    if not fitting or not reference_cells(group.cells).any():
        return own
    lender, curve = max(fitting, key=lambda pair: len(pair[0].cells))
    text = f"losses are read off the reference curve of {lender.name} ({own.reason})"
    return _GroupCurve(curve=curve, borrowed=True, caveats=(Caveat("borrowed_curve", text),))


def _group_findings(group: TunedGroup, fitted: _GroupCurve, done: pd.DataFrame, settings: Settings) -> GroupFindings:
    """Everything that is found in one group."""
    cells, curve = group.cells, fitted.curve
    reference = reference_cells(cells)
    baselines = baselines_of(cells, reference)
    log_tokens_RK, losses_RK, results = None, None, {}
    if curve is not None:
        replicates = replicates_of(curve, cells, reference, not fitted.borrowed, settings.n_resamples, settings.seed)
        log_tokens_RK, losses_RK = replicates or (None, None)
        results = multipliers_of(curve, cells, baselines, log_tokens_RK, settings.level)
    table = comparison_table(group.label, cells, baselines, results)
    optima = tuple(replay_optima(cells, losses_RK, settings.level))
    row = asked_row(table)
    headline = headline_of(row, cells, results, optima) if row is not None and results else None
    recommendation = None
    if row is not None:
        recommendation = recommend(group, row, curve=curve, headline=headline, done=done, level=settings.level)
    return GroupFindings(
        label=group.label,
        cells=cells,
        runs=group.runs,
        seed_noise=group.seed_noise,
        warnings=(*group.warnings, *fitted.caveats),
        curve=curve,
        reason=fitted.reason,
        multipliers=table,
        results=results,
        optima=optima,
        headline=headline,
        recommendation=recommendation,
    )


def _optimum_law(groups: Sequence[GroupFindings], level: float) -> OptimumLaw | None:
    """ρ*(N, P) over the optima of all groups of the first one's target and mode, None where they do not allow one."""
    first = groups[0].label
    points = [
        (optimum, group.parameters)
        for group in groups
        if all(group.label[key] == first[key] for key in ("target", "mode"))
        for optimum in group.optima
        if optimum.stage2_allocation == group.largest_allocation
    ]
    try:
        return fit_optimum_law(points, level)
    except ValueError:
        return None
