"""Coverage of the intervals, per method: analysis_calibration.json, and from it docs/calibration.md.

python benchmarks/analysis_calibration.py [--simulations 600] [--replicates 1000]
"""

import argparse
from time import perf_counter
from typing import Any

from analysis_coverage import CASES, coverage_of, record
from analysis_record import HERE, ROOT, environment, shown_environment, write

HEAD = """# Do the intervals hold what they promise?

Every interval that this package prints is a bootstrap interval of nominal 90 %. Here it is put to the test: losses are
made up on a known curve with known noise, the interval is computed as for a real study, and we count how often it
holds the true multiplier. A calibrated method covers about 90 %; the standard error of each entry is about {error:.1f}
points ({simulations} simulations, {replicates} replicates each).

{environment}

## Per method

The paper's five reference points (1, 2, 4, 8, 16 units of target tokens), a candidate worth 4 and a baseline worth 1.7
units, each with the noise of its own runs. *noise*: standard deviation of one run's loss in nats (seeds of the same run
differ by 0.005 to 0.02 at these sizes). *runs*: runs averaged at each point. *width*: median of high / low.

{table}

*naive* is what is usually done: residuals resampled as they are, the two losses inverted as if they were exact. With
five points and three parameters it covers the truth less than a third of the time.

## Whole studies

Made-up studies of five target sizes × three epoch counts, and five replay fractions at one size: epochs tuned and the
fraction chosen on the selection half, the baseline itself a point of the curve, seeds shared by all cells and shifting
them together. Counted is the headline of the report against the true multiplier of the fraction that it names.

{studies}

## What is not promised

- A form that was asked for and is wrong (`form="log"` where the truth bends) gives an interval about the wrong curve.
  The table of forms in a report, its spread over admissible forms, and `lack_of_fit` are there for this.
- Beyond the reference points the interval rests on the form: such results are marked, and carry a bound.
- Interpolation is piecewise linear in log N. Between points a factor of r apart it misjudges the logarithm of the
  effective tokens by at most about B·(ln r)²/8: 0.04 for B = 0.6 and r = 2, but 0.3 for r = 8.
"""


def row(entry: dict[str, Any]) -> str:
    """One entry as a markdown row."""
    form, _, resampling = entry["method"].partition(" ")
    method = entry["method"] if form in ("naive", "whole") else f"`{form}`, {resampling}"
    ratio = f"{entry['median_ratio']:.2f}" if entry["median_ratio"] else "open"
    open_above = f"{100 * entry['open_above']:.0f} %"
    sides = f"{100 * entry['too_high']:.1f} / {100 * entry['too_low']:.1f}"
    return (
        f"| {entry['curve']} | {method} | {entry['noise']:g} | {entry['seeds']} | **{100 * entry['covered']:.1f}** "
        f"| {sides} | {open_above} | {ratio} |"
    )


def markdown(found: dict[str, Any]) -> str:
    """The page that is generated from the JSON record."""
    head = (
        "| true curve | method | noise | runs | covered % | truth below / above % | no upper end | width |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    entries = found["entries"]
    points = [row(e) for e in entries if e["method"] != "whole study"]
    studies = [row(e) for e in entries if e["method"] == "whole study"]
    return HEAD.format(
        error=100 * max(e["standard_error"] for e in entries if e["method"] != "naive"),
        simulations=found["simulations"],
        replicates=f"{found['replicates']:,}",
        environment=shown_environment(found),
        table=head + "\n".join(points),
        studies=head + "\n".join(studies),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    entries = []
    start = perf_counter()
    for case in CASES:
        entries.append(record(case, coverage_of(case, options.simulations, options.replicates)))
        print(f"{perf_counter() - start:6.0f} s {row(entries[-1])}", flush=True)
    found = {**environment(), **vars(options), "entries": entries, "seconds": perf_counter() - start}
    write(found, HERE / "analysis_calibration.json", markdown(found), ROOT / "docs" / "calibration.md")


if __name__ == "__main__":
    main()
