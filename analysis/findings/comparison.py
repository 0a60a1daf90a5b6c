"""Every cell of a group against the run without replay at its target size."""

# Shape suffixes in names:
# ruff: noqa: N803, N806

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.caveats import Caveat
from analysis.curves.bootstrap import percentile_interval, replicate_log_tokens
from analysis.curves.forms import Array
from analysis.curves.multiplier import EffectiveDataMultiplier, multiplier_of
from analysis.curves.reference_curve import ReferenceCurve
from analysis.findings.tuning import CELL, edges_text
from analysis.runs import NUISANCE

_MOST_REPLICATED_LOSSES = 20_000_000


def baselines_of(cells: pd.DataFrame, reference: NDArray[np.bool_]) -> dict[int, int]:
    """For every cell that is no reference point, the reference point at its N, where there is one."""
    tokens = cells["target_tokens"].to_numpy()
    baseline_at = {tokens[i]: int(i) for i in np.flatnonzero(reference)}
    return {int(i): baseline_at[tokens[i]] for i in np.flatnonzero(~reference) if tokens[i] in baseline_at}


def replicates_of(
    curve: ReferenceCurve,
    cells: pd.DataFrame,
    reference: NDArray[np.bool_],
    own_curve: bool,
    n_resamples: int,
    seed: int,
) -> tuple[Array, Array] | None:
    """ln N_eff and losses (R, K) of all cells in bootstrap replicates; None where nothing tells the noise.

    Tables with very many cells get fewer replicates, 200 at least.
    """
    if curve.noise is None:
        return None
    point_K = np.full(len(cells), -1)
    if own_curve and len(curve.target_tokens) == reference.sum():
        point_K[reference] = np.searchsorted(curve.target_tokens, cells.loc[reference, "target_tokens"])
    affordable = max(200, min(n_resamples, _MOST_REPLICATED_LOSSES // (len(cells) * len(curve.losses))))
    losses_K, runs_K = cells["target_loss"].to_numpy(), cells["runs"].to_numpy(dtype=float)
    return replicate_log_tokens(curve, losses_K, runs_K, point_K, affordable, seed)


def multipliers_of(
    curve: ReferenceCurve,
    cells: pd.DataFrame,
    baselines: dict[int, int],
    log_tokens_RK: Array | None,
    level: float,
) -> dict[int, EffectiveDataMultiplier]:
    """The multiplier of every candidate cell."""
    losses_K = cells["target_loss"].to_numpy()
    bottom, top = np.log(curve.token_range)
    results = {}
    for candidate, baseline in baselines.items():
        pair = losses_K[[candidate, baseline]]
        if log_tokens_RK is None:
            caveat = Caveat("no_interval", "one run per cell and too few sizes to tell how noisy a loss is")
            results[candidate] = multiplier_of(curve, pair, (0.0, np.inf, level), 0.0, [caveat])
            continue
        candidate_R, baseline_R = log_tokens_RK[:, candidate], log_tokens_RK[:, baseline]
        with np.errstate(invalid="ignore"):
            low, high = percentile_interval(candidate_R - baseline_R, level)
        # The baseline is a reference point: it does not leave the range, candidates may.
        outside = float(((candidate_R < bottom - 1e-9) | (candidate_R > top + 1e-9)).mean())
        results[candidate] = multiplier_of(curve, pair, (low, high, level), outside, [])
    return results


def comparison_table(
    label: dict[str, Any],
    cells: pd.DataFrame,
    baselines: dict[int, int],
    results: dict[int, EffectiveDataMultiplier],
) -> pd.DataFrame:
    """Candidates with settings, losses, their baseline's loss and the multiplier; indexed by cell.

    Edges and warnings are in words here: the table is what multipliers.csv holds.
    """
    candidates, against = list(baselines), list(baselines.values())
    settings = [column for column in NUISANCE if column in cells and column not in label]
    columns = [*CELL, *settings, "settings", "runs", "seeds", "selection_loss", "target_loss", "generic_loss", "edges"]
    table = cells.loc[candidates, columns].rename(columns={"edges": "edge"})
    table["edge"] = table["edge"].map(edges_text).astype("object")
    for column in ("target_loss", "generic_loss", "selection_loss", "settings", *settings):
        table[f"baseline_{column}"] = cells.loc[against, column].to_numpy()
    for position, (key, value) in enumerate(label.items()):
        table.insert(position, key, value)
    if not results:
        return table
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
    return pd.concat([table, pd.DataFrame.from_dict(rows, orient="index")], axis=1)


def best_replay_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The best replay cell (ρ > 0) of every target size and group, by the selection loss."""
    replay = table[table["replay_fraction"] > 0] if len(table) else table
    return replay.loc[replay.groupby("target_tokens")["selection_loss"].idxmin()] if len(replay) else replay
