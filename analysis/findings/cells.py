"""Tuned cells with their losses: one row for each (N, α, ρ) of a group, and which of them are reference points."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.curves.noise import Noise
from analysis.findings.seeds import seed_means
from analysis.findings.tables import parts


def with_losses(
    cells: pd.DataFrame, runs: pd.DataFrame, near_best: pd.DataFrame
) -> tuple[pd.DataFrame, Noise | None, list[str]]:
    """Cells (rows 0 … K−1, `cell` kept as a column) with seed-mean losses, the seeds' noise, and warnings about seeds.

    `cells`, `runs` and `near_best` come from `tuned_runs`; columns added: target_loss, generic_loss, target_train_loss
    (nats), runs, seeds.
    """
    cells = cells.sort_index().copy()
    codes, seeds = runs["cell"].to_numpy(), runs["seeds"].to_numpy()
    means = seed_means(codes, seeds, runs["target_loss"].to_numpy(dtype=float))
    cells["target_loss"] = means.means
    cells["runs"] = means.counts.astype(int)
    cells["seeds"] = runs.groupby("cell")["seeds"].nunique()
    for column in ("generic_loss", "target_train_loss"):
        cells[column] = runs.groupby("cell")[column].mean() if column in runs else np.nan
    warnings = []
    if means.corrected:
        warnings.append(
            "seeds_differ: not every cell has every seed; cells are compared on the seeds that they share "
            "(means corrected by the seed effects seen in the others)"
        )
    if not means.connected:
        warnings.append("seeds_unpaired: some cells share no seed with the others; their plain means are compared")
    if not runs["seeds"].any() and (cells["runs"] > 1).any():
        warnings.append(
            "repeats: the table names no seeds; rows with equal settings were taken for repeated runs and averaged"
        )
    return cells.reset_index(), _seed_noise(near_best), warnings


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


def baseline_warnings(points: pd.DataFrame) -> list[str]:
    """What to distrust about reference points: made with one setting only, or best at the edge of what was tried."""
    found: list[str] = []
    untuned = points[points["settings"] == 1]
    if len(untuned):
        sizes = "every size" if len(untuned) == len(points) else sizes_in_words(untuned["target_tokens"])
        epochs: list[float] = list(untuned["target_epochs"].dropna().unique()) if "target_epochs" in untuned else []
        at = f" (E = {epochs[0]:g})" if len(epochs) == 1 else ""
        found.append(
            f"untuned: at {sizes} the runs without replay were made with one setting only{at}; "
            "unless it was tuned elsewhere, multipliers are too high"
        )
    for text, at_edge in parts(points[points["edge"] != ""], "edge"):
        found.append(
            f"edge: without replay at {sizes_in_words(at_edge['target_tokens'])}, {text}; "
            "a better baseline may lie beyond, and multipliers may be too high"
        )
    return found


def sizes_in_words(tokens: "pd.Series[float]") -> str:
    """Target sizes in words, four at most."""
    shown = [f"{value:,.10g}" for value in np.sort(tokens.unique())]
    more = f" and {len(shown) - 4} more sizes" if len(shown) > 4 else ""
    return f"{', '.join(shown[:4])}{more} target tokens"
