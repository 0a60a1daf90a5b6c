"""How often nominal 90 % intervals cover the truth: simulations on known curves, per method.

analysis_calibration.py records them; tests/analysis/test_calibration.py runs a few.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.curves.forms import Array, fit_form
from analysis.curves.multiplier import effective_data_multiplier
from analysis.curves.reference_curve import CurveError, ReferenceCurve
from analysis.findings.study import Settings, analyse
from analysis.simulate import Truth, simulate_runs

# The paper's number of points, in the paper's units; candidate and baseline inside the range.
SIZES: Array = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
BASELINE_TOKENS, CANDIDATE_TOKENS = 1.7, 4.0
CURVES = {
    "power law, B = 0.6": lambda n: 3.2 + 0.34 * n**-0.6,
    "power law, B = 0.3": lambda n: 3.0 + 0.6 * n**-0.3,
    "pure power law": lambda n: 3.5 * n**-0.03,
    "logarithm": lambda n: 3.5 - 0.1 * np.log(n),
}


@dataclass(frozen=True)
class Case:
    """One row of the calibration table: a true `curve`, the `method` (form and resampling), `noise` in nats, runs a
    point (`seeds`)."""

    curve: str
    method: str
    noise: float
    seeds: int = 1


@dataclass(frozen=True)
class Coverage:
    """How often intervals of nominal `level` held the truth, lay above it or below it, had no upper end; the median
    width as a ratio high / low; `simulations` that gave an interval."""

    level: float
    covered: float
    too_high: float
    too_low: float
    open_above: float
    median_ratio: float
    simulations: int

    @property
    def standard_error(self) -> float:
        """Of `covered`, from the number of simulations."""
        return float(np.sqrt(self.covered * (1 - self.covered) / self.simulations))


def coverage_of(case: Case, simulations: int, n_resamples: int = 1000, level: float = 0.9, seed: int = 0) -> Coverage:
    """Simulate the paper's five points with `case.noise` and count how often the interval of the multiplier holds."""
    if case.method == "whole study":
        return _study_coverage(case, simulations, n_resamples, level, seed)
    truth = CURVES[case.curve]
    rng = np.random.default_rng(seed)
    sizes = np.repeat(SIZES, case.seeds)
    intervals = []
    for index in range(simulations):
        losses = truth(sizes) + case.noise * rng.standard_normal(len(sizes))
        pair = truth(np.array([CANDIDATE_TOKENS, BASELINE_TOKENS]))
        runs = pair[:, None] + case.noise * rng.standard_normal((2, case.seeds))
        if case.method == "naive":
            intervals.append(naive_interval(sizes, losses, runs.mean(axis=1), n_resamples, level, rng))
            continue
        form, _, resampling = case.method.partition(" ")
        try:
            curve = ReferenceCurve.fit(sizes, losses, form)
        except CurveError:
            continue
        result = effective_data_multiplier(
            curve, candidate=runs[0], baseline=runs[1], level=level, n_resamples=n_resamples, seed=index,
            resampling=resampling or "gaussian",
        )  # fmt: skip
        intervals.append((result.low, result.high))
    return _counted(intervals, [CANDIDATE_TOKENS / BASELINE_TOKENS] * len(intervals), level)


def naive_interval(
    sizes: Array, losses: Array, pair: Array, n_resamples: int, level: float, rng: np.random.Generator
) -> tuple[float, float]:
    """What is usually done: resample the residuals of A·N^(−B) + C as they are, refit, invert the two losses as if
    they were exact, take percentiles."""
    fit = fit_form("power_law", np.log(sizes), losses)
    fitted = fit.loss_at(np.log(sizes))[0]
    residuals = losses - fitted
    resampled = fitted + rng.choice(residuals - residuals.mean(), size=(n_resamples, len(losses)))
    again = fit_form("power_law", np.log(sizes), resampled)
    log_tokens = again.log_tokens_at(np.broadcast_to(pair, (n_resamples, 2)))
    with np.errstate(invalid="ignore"):
        ratio = np.nan_to_num(log_tokens[:, 0] - log_tokens[:, 1], nan=0.0, posinf=700.0, neginf=-700.0)
    low, high = np.quantile(ratio, [(1 - level) / 2, (1 + level) / 2])
    return float(np.exp(low)), float(np.exp(high))


def _study_coverage(case: Case, simulations: int, n_resamples: int, level: float, seed: int) -> Coverage:
    """Whole studies: epochs tuned, ρ chosen, baseline on the curve, seeds shared; the headline against its truth."""
    truth = Truth(noise=case.noise, evaluation_noise=case.noise / 2, seed_effect=4 * case.noise, exponent=0.4)
    intervals, truths = [], []
    for index in range(simulations):
        runs = simulate_runs(
            truth, replay_tokens=(8192,), epochs=(4, 8, 16), seeds=case.seeds, seed=seed + 7919 * index
        )
        settings = Settings(level=level, n_resamples=n_resamples, seed=index)
        headline = analyse(runs, settings).groups[0].headline
        assert headline is not None
        intervals.append((headline.multiplier.low, headline.multiplier.high))
        truths.append(truth.multiplier(float(headline.row["replay_fraction"])))
    return _counted(intervals, truths, level)


def _counted(intervals: list[tuple[float, float]], truths: list[float], level: float) -> Coverage:
    low, high = np.array(intervals).T
    true = np.array(truths)
    with np.errstate(divide="ignore", over="ignore"):
        ratio = np.median(high / np.maximum(low, 1e-300))
    return Coverage(
        level=level,
        covered=float(((low <= true) & (true <= high)).mean()),
        too_high=float((low > true).mean()),
        too_low=float((high < true).mean()),
        open_above=float((high > 1e6).mean()),
        median_ratio=float(ratio),
        simulations=len(intervals),
    )


def record(case: Case, coverage: Coverage) -> dict[str, Any]:
    """A case and its coverage as one flat record for JSON; infinite widths as None."""
    row = {**asdict(case), **asdict(coverage), "standard_error": coverage.standard_error}
    return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in row.items()}


CASES = (
    *(Case("power law, B = 0.6", "power_law gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.6", "power_law residual", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.3", "power_law gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("pure power law", "pure_power_law gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("logarithm", "log gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("logarithm", "log residual", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.6", "monotone gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.6", "auto gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.3", "auto gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("logarithm", "auto gaussian", noise) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.6", "power_law gaussian", noise, 2) for noise in (0.005, 0.01, 0.02)),
    *(Case("power law, B = 0.6", "auto gaussian", noise, 2) for noise in (0.005, 0.01, 0.02)),
    *(Case("simulated study", "whole study", noise, seeds) for seeds in (2, 3) for noise in (0.005, 0.01)),
    *(Case("power law, B = 0.6", "naive", noise) for noise in (0.005, 0.01, 0.02)),
)
