"""Speed and agreement of the vectorised fits: analysis_bootstrap.json, and from it analysis_bootstrap.md.

python benchmarks/analysis_bootstrap.py [--replicates 10000] [--repeats 5]
"""

import argparse
import warnings
from typing import Any

import numpy as np
from analysis_record import HERE, environment, shown_environment, timed, write
from scipy.optimize import OptimizeWarning, curve_fit

from analysis.curves.forms import Array, FormFits, fit_form
from analysis.findings.study import Settings, analyse
from analysis.runs import checked_runs
from analysis.simulate import simulate_runs

SIZES = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
STARTS: dict[str, tuple[float, float, float] | None] = {"no start given": None, "a good start": (0.5, 0.5, 3.0)}


def power_law(n: Array, a: float, b: float, c: float) -> Array:
    return a * n**-b + c


def replicates_of_curve(noise: float, count: int) -> Array:
    """Losses (count, 5) about a curve like the paper's."""
    rng = np.random.default_rng(0)
    return 3.2 + 0.34 * SIZES**-0.612 + noise * rng.standard_normal((count, len(SIZES)))


def loop(losses: Array, start: tuple[float, float, float] | None, **options: Any) -> list[Array | None]:
    """The loop that everyone writes; None where curve_fit gives up."""
    found: list[Array | None] = []
    for row in losses:
        try:
            found.append(curve_fit(power_law, SIZES, row, p0=start, maxfev=10_000, **options)[0])
        except RuntimeError:
            found.append(None)
    return found


def agreement(losses: Array) -> dict[str, Any]:
    """Ours against curve_fit at full precision: who reaches the lower sum of squares, and how near where both do."""
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
    theirs = loop(losses, (0.5, 0.5, 3.0), **tight)
    ours: FormFits = fit_form("power_law", np.log(SIZES), losses)
    raised = sum(fit is None for fit in theirs)
    gaps, fitted_gaps, ours_lower, theirs_lower, outside = [], [], 0, 0, 0
    for index, fit in enumerate(theirs):
        if fit is None:
            continue
        residual = losses[index] - power_law(SIZES, *fit)
        rss = float(residual @ residual)
        if fit[1] < 0 or fit[0] < 0 or fit[1] > 4:
            outside += 1
        elif ours.rss_R[index] < rss * (1 - 1e-6):
            ours_lower += 1
        elif rss < ours.rss_R[index] * (1 - 1e-6):
            theirs_lower += 1
        else:
            gaps.append(abs(ours.rss_R[index] - rss) / rss)
            fitted = ours.loss_at(np.log(SIZES))[index]
            fitted_gaps.append(float(np.abs(fitted - power_law(SIZES, *fit)).max()))
    return {
        "replicates": len(losses), "curve_fit_raised": raised, "curve_fit_rising_or_beyond_bound": outside,
        "ours_lower": ours_lower, "theirs_lower": theirs_lower, "same_optimum": len(gaps),
        "largest_relative_gap_of_rss": max(gaps), "largest_gap_of_fitted_loss": max(fitted_gaps),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicates", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore", OptimizeWarning)
    warnings.simplefilter("ignore", RuntimeWarning)
    curves = []
    for noise in (0.005, 0.0236):
        losses = replicates_of_curve(noise, options.replicates)
        fit_form("power_law", np.log(SIZES), losses)
        ours = timed(lambda losses=losses: fit_form("power_law", np.log(SIZES), losses), 4 * options.repeats)
        for name, start in STARTS.items():
            theirs = timed(lambda losses=losses, start=start: loop(losses, start), options.repeats)
            curves.append({"noise": noise, "start": name, "ours": ours, "curve_fit": theirs})
        curves[-1]["agreement"] = agreement(losses[:2000])
    grid = simulate_runs(replay_tokens=(4096, 8192, 16384, 32768), replay_fractions=(0, 0.5, 0.75, 0.875), seeds=4)
    runs = checked_runs(grid.iloc[:200], "made up")
    study = timed(lambda: analyse(runs, Settings(n_resamples=options.replicates)), options.repeats)
    found = {**environment(), **vars(options), "curves": curves, "study": {"runs": len(runs), **study}}
    write(found, HERE / "analysis_bootstrap.json", markdown(found), HERE / "analysis_bootstrap.md")


def markdown(found: dict[str, Any]) -> str:
    """The page that is generated from the JSON record."""
    rows = [
        f"| {c['noise']:g} | {c['start']} | {1e3 * c['ours']['median']:.1f} ({1e3 * c['ours']['least']:.1f}–"
        f"{1e3 * c['ours']['greatest']:.1f}) | {c['curve_fit']['median']:.2f} ({c['curve_fit']['least']:.2f}–"
        f"{c['curve_fit']['greatest']:.2f}) | {c['curve_fit']['median'] / c['ours']['median']:.0f}× |"
        for c in found["curves"]
    ]
    checks = [
        f"- Noise {c['noise']:g} nats, {a['replicates']:,} replicates: `curve_fit` gave up on {a['curve_fit_raised']} "
        f"and went to a rising curve or an exponent above 4, which we do not admit, on "
        f"{a['curve_fit_rising_or_beyond_bound']}; of the others, the sums of squares agree on {a['same_optimum']:,} "
        f"(largest relative gap {a['largest_relative_gap_of_rss']:.1e}, largest gap of a fitted loss "
        f"{a['largest_gap_of_fitted_loss']:.1e} nats); "
        f"ours is lower on {a['ours_lower']}, theirs on {a['theirs_lower']}."
        for c in found["curves"]
        if (a := c.get("agreement"))
    ]
    study = found["study"]
    return f"""# Bootstrap of reference curves

{shown_environment(found)}

{found["replicates"]:,} replicates of one power law with offset through five points: all at once, against the loop over
`scipy.optimize.curve_fit`. Median (least–greatest).

| noise (nats) | `curve_fit` | ours, ms | loop, s | faster |
|---|---|---|---|---|
{chr(10).join(rows)}

## The same optimum

{chr(10).join(checks)}

## A whole study

{study["runs"]} runs analysed with {found["replicates"]:,} replicates (tuning, curve, all multipliers with
intervals, best replay fractions): {study["median"]:.2f} s ({study["least"]:.2f}–{study["greatest"]:.2f}).
"""


if __name__ == "__main__":
    main()
