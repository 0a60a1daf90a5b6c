"""How much the loss of one run would differ in a second run: pooled over seeds, or from the scatter about a curve."""

from dataclasses import dataclass

import numpy as np

from analysis.curves.forms import Array

ENOUGH_DEGREES_OF_FREEDOM = 4


@dataclass(frozen=True)
class Noise:
    """Standard deviation of one run's loss.

    `sigma` in nats, `dof` degrees of freedom behind it, `source` in words; `across_sizes`, whether it was seen at
    several target sizes, so that it holds what a subset of the target adds at one size and not at another.
    """

    sigma: float
    dof: int
    source: str
    across_sizes: bool = True

    def half_width(self, level: float, *runs: float) -> float:
        """Half of the interval (Student's t), nats, of a mean over so many runs, or of a sum or difference of such."""
        from scipy.stats import t

        return float(t.ppf(0.5 + level / 2, self.dof) * self.sigma * np.sqrt(sum(1 / n for n in runs)))

    def __str__(self) -> str:
        degrees = "1 degree" if self.dof == 1 else f"{self.dof} degrees"
        return f"{self.sigma:.4f} nats per run, {degrees} of freedom, from {self.source}"


def pooled_noise(first: Noise | None, second: Noise | None) -> Noise | None:
    """Both estimates pooled by their degrees of freedom; the other one where one is missing."""
    if first is None or second is None:
        return first or second
    dof = first.dof + second.dof
    variance = (first.dof * first.sigma**2 + second.dof * second.sigma**2) / dof
    return Noise(float(np.sqrt(variance)), dof, f"{first.source} and {second.source}")


def noise_of(seeds: Noise | None, residual: Noise | None) -> Noise | None:
    """The noise to compute intervals with.

    Seeds alone where they have at least 4 degrees of freedom and were repeated at several target sizes, otherwise
    pooled with the scatter of the reference points about the fitted form.
    """
    if seeds is not None and seeds.dof >= ENOUGH_DEGREES_OF_FREEDOM and seeds.across_sizes:
        return seeds
    return pooled_noise(seeds, residual)


def noise_from_repeats(groups: Array, losses: Array) -> Noise | None:
    """Pooled standard deviation of losses within equal `groups`; None where no group has two members."""
    _, group, count = np.unique(groups, return_inverse=True, return_counts=True)
    dof = len(losses) - len(count)
    if dof == 0:
        return None
    mean = np.bincount(group, weights=losses) / count
    variance = ((losses - mean[group]) ** 2).sum() / dof
    return Noise(float(np.sqrt(variance)), int(dof), "repeated runs")
