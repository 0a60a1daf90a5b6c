"""Seeds are averaged, and cells are compared on the seeds that they share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.curves.forms import Array
from analysis.curves.noise import Noise

MOST_SEEDS = 1000

Codes = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class SeedMeans:
    """Mean losses of groups (in sorted order) with seed effects taken out.

    `means` (nats), `counts` (runs), `noise` of one run, `corrected`: whether groups that lack a seed were corrected by
    the effects of seeds seen in others, `connected`: whether the seeds of all groups can be compared.
    """

    means: Array
    counts: Array
    noise: Noise | None
    corrected: bool
    connected: bool


def seed_means(group: Any, seed: Any, loss: Array) -> SeedMeans:
    """Group means by least squares on loss = group + seed, which compares groups on the seeds that they share.

    With every seed in every group these are the plain means; where the groups fall apart into sets that share no seed
    they stay plain means. The noise comes from what is left over: a seed's effect that is common to all groups is
    not noise.
    """
    groups, g = np.unique(np.asarray(group), return_inverse=True)
    seeds, s = np.unique(np.asarray(seed).astype(str), return_inverse=True)
    counts = np.bincount(g).astype(float)
    plain = np.bincount(g, weights=loss) / counts
    n_groups, n_seeds = len(groups), len(seeds)
    connected = n_seeds == 1 or (n_seeds <= MOST_SEEDS and _connected(g, s, n_groups, n_seeds))
    if n_seeds == 1 or not connected:
        return SeedMeans(plain, counts, _noise_of_residuals(loss - plain[g], len(loss) - n_groups), False, connected)
    effect = _seed_effects(g, s, loss, counts, plain, n_seeds)
    means = np.bincount(g, weights=loss - effect[s]) / counts
    noise = _noise_of_residuals(loss - means[g] - effect[s], len(loss) - n_groups - n_seeds + 1)
    balanced = len(np.unique(g * n_seeds + s)) == n_groups * n_seeds
    return SeedMeans(plain if balanced else means, counts, noise, not balanced, True)


def _seed_effects(g: Codes, s: Codes, loss: Array, counts: Array, plain: Array, n_seeds: int) -> Array:
    """Least-squares effects of the seeds, groups eliminated; weighted by their runs they sum to zero."""
    table = np.bincount(g * n_seeds + s, minlength=len(counts) * n_seeds).reshape(len(counts), n_seeds)
    runs = table.sum(axis=0).astype(float)
    normal = np.diag(runs) - table.T @ (table / counts[:, None])
    effect = np.linalg.lstsq(normal, np.bincount(s, weights=loss - plain[g]), rcond=None)[0]
    return effect - (runs @ effect) / runs.sum()


def _noise_of_residuals(residuals: Array, dof: int) -> Noise | None:
    if dof < 1:
        return None
    return Noise(float(np.sqrt((residuals**2).sum() / dof)), int(dof), "repeated runs")


def _connected(g: Codes, s: Codes, n_groups: int, n_seeds: int) -> bool:
    """Whether the graph of groups and seeds, an edge a run, hangs together."""
    label = np.arange(n_groups + n_seeds)
    while True:
        low = np.minimum(label[g], label[n_groups + s])
        following = label.copy()
        np.minimum.at(following, g, low)
        np.minimum.at(following, n_groups + s, low)
        if (following == label).all():
            return bool((label == label[0]).all())
        label = following
