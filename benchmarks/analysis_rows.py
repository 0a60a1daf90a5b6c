"""Seconds to analyse a table of very many rows: analysis_rows.json, and from it analysis_rows.md.

python benchmarks/analysis_rows.py [--rows 1000000] [--repeats 5]
"""

import argparse
from typing import Any

import numpy as np
from analysis_record import HERE, environment, shown_environment, timed, write

from analysis.findings.study import Settings, analyse
from analysis.runs import checked_runs
from analysis.simulate import simulate_runs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    runs = simulate_runs(replay_tokens=(8192,), seeds=1)
    many = runs.loc[np.repeat(runs.index, -(-options.rows // len(runs)))].drop(columns="run_id").iloc[: options.rows]
    many["target_loss"] += 0.01 * np.random.default_rng(0).standard_normal(len(many))
    checking = timed(lambda: checked_runs(many, "made up"), options.repeats)
    table = checked_runs(many, "made up")
    analysis = timed(lambda: analyse(table, Settings(n_resamples=1000)), options.repeats)
    found = {**environment(), **vars(options), "checking": checking, "analysis": analysis}
    write(found, HERE / "analysis_rows.json", markdown(found), HERE / "analysis_rows.md")


def markdown(found: dict[str, Any]) -> str:
    """The page that is generated from the JSON record."""
    lines = [
        f"| {name} | {found[name]['median']:.2f} ({found[name]['least']:.2f}–{found[name]['greatest']:.2f}) |"
        for name in ("checking", "analysis")
    ]
    return f"""# A table of {found["rows"]:,} rows

{shown_environment(found)}

A made-up study of 27 settings whose rows are repeated with new noise: checked, then analysed with 1,000 replicates.
Seconds, median (least–greatest).

| step | seconds |
|---|---|
{chr(10).join(lines)}
"""


if __name__ == "__main__":
    main()
