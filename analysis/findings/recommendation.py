"""What to do: which replay fraction and how many epochs, or what would settle it where the runs cannot tell."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.curves.noise import Noise
from analysis.curves.reference_curve import ReferenceCurve
from analysis.findings.cells import TunedGroup
from analysis.findings.headline import Headline
from analysis.findings.seeds import seed_means
from analysis.findings.tuning import CELL, Edge, runs_with
from analysis.runs import NUISANCE

# More seeds than this are no advice.
MOST_SEEDS = 20
Verdict = Literal["replay", "no_replay", "undecided"]


@dataclass(frozen=True)
class Recommendation:
    """What to do in one group, at the target size that its answer speaks of.

    `verdict`; `replay_fraction` and `target_epochs` to use (of the best replay tried where the runs are undecided);
    `replay_range`, `epochs_range`: what these runs cannot tell from it; `settings`, the other tuned settings; `gain` of
    the best replay over the tuned runs without, nats, with (`gain_low`, `gain_high`) at `level` (infinite where nothing
    tells the noise); losses of both; `settle`, what would settle or sharpen it, the most useful first.
    """

    group: str
    verdict: Verdict
    target_tokens: float
    replay_fraction: float
    replay_range: tuple[float, float]
    target_epochs: float | None
    epochs_range: tuple[float, float] | None
    settings: dict[str, Any]
    best_replay: float
    gain: float
    gain_low: float
    gain_high: float
    level: float
    target_loss: float
    baseline_target_loss: float
    generic_loss: float | None
    baseline_generic_loss: float | None
    settle: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The recommendation as JSON values; what is infinite or unknown as null."""
        return {name: _json_value(value) for name, value in asdict(self).items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def recommend(
    group: TunedGroup,
    row: "pd.Series[Any]",
    *,
    curve: ReferenceCurve | None,
    headline: Headline | None,
    done: pd.DataFrame,
    level: float,
) -> Recommendation:
    """The recommendation for a group.

    Args: `row`, the best replay cell beside its baseline (from `asked_row`); `curve` and `headline`, where the group
    has them; `done`, the analysed runs of all groups; `level` of the intervals.
    """
    number: Any = row.name
    noise = curve.noise if curve is not None else group.seed_noise
    gain = float(row["baseline_target_loss"] - row["target_loss"])
    baseline = _baseline_cell(group.cells, row)
    baseline_runs = baseline["runs"]
    width = noise.half_width(level, row["runs"], baseline_runs) if noise else float("inf")
    halves_agree, halves = _halves_agree(done, row, gain)
    verdict: Verdict = "undecided"
    if gain - width > 0 and halves_agree and (headline is None or headline.multiplier.low >= 1):
        verdict = "replay"
    elif gain + width < 0 and halves_agree:
        verdict = "no_replay"
    prefix = "baseline_" if verdict == "no_replay" else ""
    chosen = {name: row[f"{prefix}{name}"] for name in NUISANCE if name in row and pd.notna(row[f"{prefix}{name}"])}
    epochs = chosen.pop("target_epochs", None)
    rho = 0.0 if verdict == "no_replay" else float(row["replay_fraction"])
    cell = baseline if verdict == "no_replay" else group.cells.loc[number]
    settle = [*_settling(verdict, row, gain, noise, baseline_runs, level), *halves]
    settle += [*_wider_grids(group.cells, row, cell), *_better_curve(row, curve)]
    return Recommendation(
        group=group.name,
        verdict=verdict,
        target_tokens=float(row["target_tokens"]),
        replay_fraction=rho,
        replay_range=_replay_range(group.cells, row, noise, level),
        target_epochs=None if epochs is None else float(epochs),
        epochs_range=None if epochs is None else _epochs_range(done, {**group.label, **chosen}, cell, noise, level),
        settings=chosen,
        best_replay=float(row["replay_fraction"]),
        gain=gain,
        gain_low=gain - width,
        gain_high=gain + width,
        level=level,
        target_loss=float(row["target_loss"]),
        baseline_target_loss=float(row["baseline_target_loss"]),
        generic_loss=_finite_or_none(row["generic_loss"]),
        baseline_generic_loss=_finite_or_none(row["baseline_generic_loss"]),
        settle=tuple(settle),
    )


def _finite_or_none(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _baseline_cell(cells: pd.DataFrame, row: "pd.Series[Any]") -> "pd.Series[Any]":
    """The cell without replay that a row is compared with."""
    plain = cells[(cells["replay_fraction"] == 0) & (cells["target_tokens"] == row["target_tokens"])]
    return plain.loc[plain["stage2_allocation"].idxmax()]


def _replay_range(cells: pd.DataFrame, row: "pd.Series[Any]", noise: Noise | None, level: float) -> tuple[float, float]:
    """The fractions whose loss cannot be told from the best one's, from the least to the largest."""
    at = cells[(cells["target_tokens"] == row["target_tokens"])]
    at = at[(at["stage2_allocation"] == row["stage2_allocation"]) | (at["replay_fraction"] == 0)]
    best = at.loc[at["selection_loss"].idxmin()]
    alike = at if noise is None else at[_as_good(at["target_loss"], at["runs"], best, noise, level)]
    return float(alike["replay_fraction"].min()), float(alike["replay_fraction"].max())


def _as_good(losses: Any, runs: Any, best: Any, noise: Noise, level: float) -> list[bool]:
    """Which mean losses the noise of the runs cannot tell from the best one."""
    pairs = zip(losses, runs, strict=True)
    return [loss - best["target_loss"] <= noise.half_width(level, n, best["runs"]) for loss, n in pairs]


def _epochs_range(
    done: pd.DataFrame, settings: dict[str, Any], cell: "pd.Series[Any]", noise: Noise | None, level: float
) -> tuple[float, float]:
    """The numbers of epochs whose selection loss cannot be told from the best one's, all else as in `settings`."""
    runs = runs_with(done, {**settings, **{name: cell[name] for name in CELL}})
    column = "target_loss_selection" if _has_selection(done) else "target_loss"
    means = seed_means(runs["target_epochs"], runs["seeds"], runs[column].to_numpy(dtype=float))
    epochs = np.unique(runs["target_epochs"])
    best = {"target_loss": means.means.min(), "runs": means.counts[means.means.argmin()]}
    if noise is not None:
        epochs = epochs[_as_good(means.means, means.counts, best, noise, level)]
    return float(epochs.min()), float(epochs.max())


def _has_selection(done: pd.DataFrame) -> bool:
    return "target_loss_selection" in done and not done["target_loss_selection"].isna().any()


def _halves_agree(done: pd.DataFrame, row: "pd.Series[Any]", gain: float) -> tuple[bool, list[str]]:
    """Whether both halves of the validation set see the gain with one sign, and what to do where they do not."""
    if not _has_selection(done):
        return True, []
    other = float(row["baseline_selection_loss"] - row["selection_loss"])
    if other * gain > 0:
        return True, []
    advice = (
        f"more validation text (evaluation.tokens, target.validation_fraction): its two halves give gains of "
        f"{other:+.3f} and {gain:+.3f} nats"
    )
    return False, [advice]


def seeds_needed(gain: float, noise: Noise, runs: float, baseline_runs: float, level: float) -> int | None:
    """How many more seeds of both cells it takes until a gain of this size (nats) is told from none; None for more than
    twenty. Each seed adds a run to both, and one degree of freedom."""
    for more in range(1, MOST_SEEDS + 1):
        with_more = Noise(noise.sigma, noise.dof + more, noise.source)
        if with_more.half_width(level, runs + more, baseline_runs + more) < abs(gain):
            return more
    return None


def _settling(
    verdict: Verdict, row: "pd.Series[Any]", gain: float, noise: Noise | None, baseline_runs: float, level: float
) -> list[str]:
    """Seeds: what an undecided comparison lacks first."""
    where = f"at ρ = 0 and ρ = {row['replay_fraction']:.3g} (schedule.order_seed, schedule.subset_seed)"
    if verdict != "undecided":
        return []
    if noise is None:
        return [f"a second seed {where}: nothing tells yet how noisy a loss is"]
    more = seeds_needed(gain, noise, row["runs"], baseline_runs, level)
    if more is None:
        return [
            f"nothing cheap: a difference of {abs(gain):.3f} nats is too small beside the {noise.sigma:.3f} nats by "
            f"which runs differ, for {MOST_SEEDS} more seeds too"
        ]
    return [f"about {more} more seed{'s' if more > 1 else ''} {where}"]


def _wider_grids(cells: pd.DataFrame, row: "pd.Series[Any]", cell: "pd.Series[Any]") -> list[str]:
    """Where the best lies on the edge of what was tried; `row` is compared, `cell` is what to use."""
    advice: dict[str, None] = {}
    for at_edge in (cell, _baseline_cell(cells, row)):
        edges: tuple[Edge, ...] = at_edge["edges"]
        for edge in edges:
            side = "above" if edge.side == "largest" else "below"
            advice[f"{edge.column} {side} {edge.value:g} at ρ = {at_edge['replay_fraction']:.3g}"] = None
    tried = cells.loc[cells["target_tokens"] == row["target_tokens"], "replay_fraction"]
    if row["replay_fraction"] == tried.max() and row["target_loss"] < row["baseline_target_loss"]:
        advice[f"larger replay fractions than {row['replay_fraction']:.3g} (schedule.replay_fraction)"] = None
    return list(advice)


def _better_curve(row: "pd.Series[Any]", curve: ReferenceCurve | None) -> list[str]:
    """What the runs without replay lack."""
    advice = []
    if row["baseline_settings"] == 1:
        advice.append("tuning the runs without replay (schedule.target_epochs, the learning rate)")
    if curve is None or len(curve.target_tokens) < 3:
        advice.append("for what it is worth in data: ρ = 0 at smaller target sizes (schedule.target_share=1/2,1/4)")
    return advice
