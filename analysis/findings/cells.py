"""Tuned cells with their losses: one row for each (N, α, ρ) of a group, and which of them are reference points."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.caveats import Caveat
from analysis.curves.noise import Noise
from analysis.findings.seeds import seed_means
from analysis.findings.tuning import GROUP, Edge, TunedRuns, edges_text


@dataclass(frozen=True, kw_only=True)
class TunedGroup:
    """The tuned cells of one target, generic text, model, mode and total tokens.

    `label`, the values of the columns that tell the group from others; `cells`, a row for each (N, α, ρ) with its
    seed-mean losses in nats (rows 0 … K−1, `cell` a column); `runs`, the runs at the chosen settings (column `cell`);
    `seed_noise`, what repeated runs tell of the noise; `warnings`.
    """

    label: dict[str, Any]
    cells: pd.DataFrame
    runs: pd.DataFrame
    seed_noise: Noise | None
    warnings: tuple[Caveat, ...]

    @property
    def name(self) -> str:
        """The label in words, for titles."""
        main = [str(self.label[key]) for key in ("target", "model", "mode") if self.label[key]]
        more = [f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in self.label.items() if key not in GROUP]  # fmt: skip
        return ", ".join(main + more) or "all runs"

    @property
    def parameters(self) -> float:
        """Parameters of the model, NaN where the table does not say or says several."""
        if "parameters" not in self.runs or self.runs["parameters"].nunique(dropna=False) != 1:
            return float("nan")
        return float(self.runs["parameters"].iloc[0])

    @property
    def largest_allocation(self) -> float:
        """The largest stage-2 allocation α that was tried."""
        return float(self.cells["stage2_allocation"].max())


def tuned_group(label: dict[str, Any], cells: pd.DataFrame, tuned: TunedRuns) -> TunedGroup:
    """One group of `tuned.cells` with its losses and what to distrust about its seeds and its baseline."""
    runs = tuned.runs[tuned.runs["cell"].isin(cells.index)]
    near_best = tuned.near_best[tuned.near_best["cell"].isin(cells.index)]
    cells, seed_caveats = cells_with_losses(cells, runs)
    return TunedGroup(
        label=label,
        cells=cells,
        runs=runs,
        seed_noise=_seed_noise(near_best),
        warnings=(*seed_caveats, *baseline_caveats(cells[reference_cells(cells)])),
    )


def cells_with_losses(cells: pd.DataFrame, runs: pd.DataFrame) -> tuple[pd.DataFrame, list[Caveat]]:
    """Cells (rows 0 … K−1, `cell` kept as a column) with seed-mean losses, and how their seeds were compared.

    `cells` and `runs` come from `tuned_runs`; columns added: target_loss, generic_loss, target_train_loss (nats), runs,
    seeds.
    """
    cells = cells.sort_index().copy()
    codes, seeds = runs["cell"].to_numpy(), runs["seeds"].to_numpy()
    means = seed_means(codes, seeds, runs["target_loss"].to_numpy(dtype=float))
    cells["target_loss"] = means.means
    cells["runs"] = means.counts.astype(int)
    cells["seeds"] = runs.groupby("cell")["seeds"].nunique()
    for column in ("generic_loss", "target_train_loss"):
        cells[column] = runs.groupby("cell")[column].mean() if column in runs else np.nan
    caveats = []
    if means.corrected:
        text = (
            "not every cell has every seed; cells are compared on the seeds that they share "
            "(means corrected by the seed effects seen in the others)"
        )
        caveats.append(Caveat("seeds_differ", text))
    if not means.connected:
        text = "some cells share no seed with the others; their plain means are compared"
        caveats.append(Caveat("seeds_unpaired", text))
    if not runs["seeds"].any() and (cells["runs"] > 1).any():
        text = "the table names no seeds; rows with equal settings were taken for repeated runs and averaged"
        caveats.append(Caveat("repeats", text))
    return cells.reset_index(), caveats


def _seed_noise(near_best: pd.DataFrame) -> Noise | None:
    """The noise of one run from repeats at settings that are as good as the chosen ones."""
    losses = near_best["target_loss"].to_numpy(dtype=float)
    noise = seed_means(near_best["setting"].to_numpy(), near_best["seeds"].to_numpy(), losses).noise
    if noise is None:
        return None
    repeated = near_best[near_best["setting"].duplicated(keep=False)]
    several = repeated["target_tokens"].nunique() > 1 or near_best["target_tokens"].nunique() == 1
    return replace(noise, across_sizes=several)


def reference_cells(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Mask of the reference points: ρ = 0, all of the target data in stage 2 (or as much as was tried)."""
    plain = cells["replay_fraction"] == 0
    if plain.any():
        plain &= cells["stage2_allocation"] == cells.loc[plain, "stage2_allocation"].max()
    return plain.to_numpy()


def baseline_caveats(points: pd.DataFrame) -> list[Caveat]:
    """What to distrust about reference points: made with one setting only, or best at the edge of what was tried."""
    caveats = []
    untuned = points[points["settings"] == 1]
    if len(untuned):
        sizes = "every size" if len(untuned) == len(points) else sizes_text(untuned["target_tokens"])
        epochs: list[float] = list(untuned["target_epochs"].dropna().unique()) if "target_epochs" in untuned else []
        at = f" (E = {epochs[0]:g})" if len(epochs) == 1 else ""
        text = (
            f"at {sizes} the runs without replay were made with one setting only{at}; "
            "unless it was tuned elsewhere, multipliers are too high"
        )
        caveats.append(Caveat("untuned", text))
    tokens_by_edges: dict[tuple[Edge, ...], list[float]] = {}
    for edges, tokens in zip(points["edges"], points["target_tokens"], strict=True):
        if edges:
            tokens_by_edges.setdefault(edges, []).append(tokens)
    for edges in sorted(tokens_by_edges, key=edges_text):
        text = (
            f"without replay at {sizes_text(tokens_by_edges[edges])}, {edges_text(edges)}; "
            "a better baseline may lie beyond, and multipliers may be too high"
        )
        caveats.append(Caveat("edge", text))
    return caveats


def sizes_text(tokens: Iterable[float]) -> str:
    """Target sizes in words, four at most."""
    sizes = [f"{value:,.10g}" for value in sorted(set(tokens))]
    more = f" and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
    return f"{', '.join(sizes[:4])}{more} target tokens"
