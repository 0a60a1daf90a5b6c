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
    row: "pd.Series[Any]",
    cells: pd.DataFrame,
    results: dict[int, EffectiveDataMultiplier],
    optima: tuple[Optimum, ...],
) -> Headline:
    """The comparison of `row` (from `asked_row`) with its multiplier and the range of the best fraction."""
    cell: Any = row.name
    at = [
        o for o in optima if (o.target_tokens, o.stage2_allocation) == (row["target_tokens"], row["stage2_allocation"])
    ]
    low, high = (at[0].low, at[0].high) if at else (row["replay_fraction"],) * 2
    return Headline(
        row=row,
        multiplier=results[int(cell)],
        rho_low=float(low),
        rho_high=float(high),
        largest_tried=bool(at and row["replay_fraction"] == at[0].best_replay and at[0].edge),
        edges=cells.loc[cell, "edges"],
    )


def asked_row(table: pd.DataFrame) -> "pd.Series[Any] | None":
    """The best replay cell at the target size where most was tried (then most runs, then the smallest size).

    The size is chosen by what was tried, never by what was found. None where replay has no baseline.
    """
    best = best_replay_cells(table)
    if best.empty:
        return None
    replay = table[table["replay_fraction"] > 0]
    sizes, index = np.unique(replay["target_tokens"].to_numpy(), return_inverse=True)
    tried, runs = np.bincount(index), np.bincount(index, weights=replay["runs"])
    order = np.lexsort((sizes, -runs, -tried))
    return best[best["target_tokens"] == sizes[order[0]]].iloc[0]
