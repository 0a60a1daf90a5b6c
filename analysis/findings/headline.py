"""Which comparison of a group answers the question: what is replay worth?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.curves.multiplier import EffectiveDataMultiplier
from analysis.findings.comparison import best_replay_cells
from analysis.findings.optimum import Optimum
from analysis.findings.tuning import Edge


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The comparison that answers the question for one group.

    `row`, the best replay cell's row of `multipliers`; `multiplier`; (`rho_low`, `rho_high`), between which the best
    fraction lies in the central part of the replicates; `largest_tried`, whether it is the largest ρ tried; `edges`,
    settings of the best replay cell that lie on the edge of what was tried.
    """

    row: "pd.Series[Any]"
    multiplier: EffectiveDataMultiplier
    rho_low: float
    rho_high: float
    largest_tried: bool
    edges: tuple[Edge, ...]

    @property
    def untuned(self) -> bool:
        """Whether the baseline was run with one nuisance setting only."""
        return bool(self.row["baseline_settings"] == 1)


def headline_of(
    table: pd.DataFrame,
    cells: pd.DataFrame,
    results: dict[int, EffectiveDataMultiplier],
    optima: tuple[Optimum, ...],
) -> Headline | None:
    """The comparison of `asked_row` with its multiplier and the range of the best fraction; None without results."""
    row: Any = asked_row(table)
    if row is None or not results:
        return None
    cell = int(row.name)
    at = [
        o for o in optima if (o.target_tokens, o.stage2_allocation) == (row["target_tokens"], row["stage2_allocation"])
    ]
    low, high = (at[0].low, at[0].high) if at else (row["replay_fraction"],) * 2
    return Headline(
        row=row,
        multiplier=results[cell],
        rho_low=float(low),
        rho_high=float(high),
        largest_tried=bool(at and row["replay_fraction"] == at[0].best_replay and at[0].edge),
        edges=cells.loc[cell, "edges"],  # type: ignore[arg-type]
    )


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
