"""Nuisance tuning: for every cell the best over epochs, learning rate, …; seeds are averaged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.caveats import Caveat
from analysis.findings.seeds import seed_means
from analysis.runs import NUISANCE, SEEDS

# Runs that differ in one of these are never compared; a cell is one point of a group's grid.
GROUP = ("target", "generic", "model", "mode", "total_tokens")
CELL = ("target_tokens", "stage2_allocation", "replay_fraction")
AXES = (*GROUP, *CELL)

# Settings that are this much worse than their cell's best may be noisier too (over-fitted, diverging).
NEAR_BEST = 1.05

# Where a nuisance setting ends by nature: the best may lie there without a warning.
NATURAL_ENDS = {"target_epochs": 1.0, "weight_decay": 0.0}


@dataclass(frozen=True)
class Edge:
    """A setting whose best `value` is the smallest or the largest of several that were tried: a better one may lie
    beyond. `column`, the setting's name in the run table."""

    column: str
    value: float
    side: Literal["smallest", "largest"]

    def __str__(self) -> str:
        return f"{self.column} {self.value:g} is the {self.side} tried"


def edges_text(edges: Iterable[Edge]) -> str:
    """Edges in words, "" where there is none."""
    return "; ".join(str(edge) for edge in edges)


@dataclass(frozen=True)
class TunedRuns:
    """Runs at the chosen settings of each cell.

    Attributes: `runs`, the chosen runs with a column `cell`; `near_best`, the runs at settings whose selection loss
    lies within 5 % of their cell's best (columns `cell`, `setting`): repeats among them tell the noise; `cells`, one
    row a cell, indexed by `cell`: axes, chosen nuisance settings, `settings` (how many were tried), `edges` (a tuple of
    `Edge`s), `selection_loss`; `warnings`.
    """

    runs: pd.DataFrame
    near_best: pd.DataFrame
    cells: pd.DataFrame
    warnings: tuple[Caveat, ...]


def completed_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Done runs with a finite target loss, every axis filled in: what can be analysed."""
    done = runs[(runs["status"] == "done") & np.isfinite(runs["target_loss"])].copy()
    for axis in AXES:
        if axis not in done:
            done[axis] = 1.0 if axis == "stage2_allocation" else np.nan if axis == "total_tokens" else ""
    done["stage2_allocation"] = done["stage2_allocation"].fillna(1.0)
    done["generic_loss"] = done.get("generic_loss", np.nan)
    # Where training starts from a given model, T follows from N, E and ρ: it is no axis.
    done.loc[done["mode"] == "from_pretrained", "total_tokens"] = np.nan
    done["seeds"] = seed_labels(done)
    return done


def runs_with(runs: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    """The runs whose columns have these values; a missing value is found by a missing one."""
    matches = np.ones(len(runs), dtype=bool)
    for column, value in values.items():
        matches &= (runs[column].isna() if pd.isna(value) else runs[column] == value).to_numpy()
    return runs[matches]


def seed_labels(runs: pd.DataFrame) -> "pd.Series[str]":
    """One label for each distinct combination of seeds; "" where the table names none."""
    named = [column for column in SEEDS if column in runs]
    if not named:
        return pd.Series("", index=runs.index, dtype="object")
    codes = [runs[column].fillna(-1).astype(int).astype(str) for column in named]
    label = codes[0]
    for more in codes[1:]:
        label = label + "/" + more
    return label


def tuned_runs(done: pd.DataFrame, axes_from_nuisance: Sequence[str] = ()) -> TunedRuns:
    """Choose the nuisance settings of every cell on the seed-mean selection loss.

    Args: `done`, from `completed_runs`; `axes_from_nuisance`, nuisance columns that are axes of this study instead.
    Where `target_loss_selection` is missing the choice falls back to `target_loss`, with a warning: the best of many
    losses is lower than that setting deserves (docs/vocabulary.md: best of many).
    """
    axes = [*AXES, *axes_from_nuisance]
    nuisance = [c for c in NUISANCE if c in done and c not in axes_from_nuisance]
    done = done.copy()
    caveats = []
    chosen_on = "target_loss_selection"
    if chosen_on not in done or done[chosen_on].isna().any():
        text = "settings were chosen on the loss that is reported; it is flattered"
        caveats.append(Caveat("choice_on_reported_loss", text))
        chosen_on = "target_loss"
    done["cell"] = done.groupby(axes, dropna=False, sort=True).ngroup()
    done["setting"] = done.groupby(["cell", *nuisance], dropna=False, sort=True).ngroup()
    mean = _setting_means(done, chosen_on)
    first = done.drop_duplicates("setting").set_index("setting")
    table = pd.DataFrame({"cell": first["cell"], "loss": mean}).sort_values(["cell", "loss"], kind="stable")
    best = table.drop_duplicates("cell")
    runs = done[done["setting"].isin(best.index)]
    cells = first.loc[best.index, ["cell", *axes, *nuisance]].set_index("cell").sort_index()
    cells["settings"] = table.groupby("cell").size()
    cells["selection_loss"] = best.set_index("cell")["loss"]
    cells["edges"] = _edges(done, cells, nuisance)
    near = table["loss"] <= NEAR_BEST * table["cell"].map(cells["selection_loss"])
    near_best = done[done["setting"].isin(table.index[near])]
    return TunedRuns(runs, near_best, cells, tuple(caveats))


def _setting_means(done: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Seed-mean loss of each setting; within a cell whose settings lack seeds, corrected for the seeds that lack."""
    grouped = done.groupby("setting")
    mean = grouped[column].mean()
    seeds_of_setting = grouped["seeds"].nunique()
    seeds_of_cell = done.groupby("cell")["seeds"].nunique()
    cell_of_setting = grouped["cell"].first()
    lacking = cell_of_setting[seeds_of_setting < cell_of_setting.map(seeds_of_cell)]
    affected = done[done["cell"].isin(lacking.unique())]
    for _, rows in affected.groupby("cell"):
        settings = np.sort(rows["setting"].unique())
        corrected = seed_means(rows["setting"].to_numpy(), rows["seeds"].to_numpy(), rows[column].to_numpy())
        mean.loc[settings] = corrected.means
    return mean


def _edges(done: pd.DataFrame, cells: pd.DataFrame, nuisance: Sequence[str]) -> "pd.Series[Any]":
    """For each cell, the numeric settings whose best value is the smallest or largest of several that were tried."""
    edges: dict[Any, tuple[Edge, ...]] = dict.fromkeys(cells.index, ())
    for column in nuisance:
        if not pd.api.types.is_numeric_dtype(done[column]) or done[column].nunique() < 2:
            continue
        tried = done.groupby("cell")[column].agg(["min", "max", "nunique"]).loc[cells.index]
        several = tried["nunique"] > 1
        at_low = several & (cells[column] == tried["min"]) & (cells[column] != NATURAL_ENDS.get(column, np.nan))
        at_high = several & (cells[column] == tried["max"])
        sides: tuple[tuple[pd.Series[bool], Literal["smallest", "largest"]], ...]
        sides = ((at_low, "smallest"), (at_high, "largest"))
        for at, side in sides:
            for cell in cells.index[at]:
                edges[cell] = (*edges[cell], Edge(column, float(cells[column][cell]), side))
    return pd.Series(edges, dtype="object")
