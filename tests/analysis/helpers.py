"""Made-up studies that the tests of the analysis share."""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.caveats import Caveat
from analysis.simulate import Truth, simulate_history, simulate_runs

FLAN_TOKENS = [16, 8, 4, 2, 1]
FLAN_LOSSES = [3.2712, 3.27876, 3.37226, 3.41444, 3.54749]


def full_study() -> pd.DataFrame:
    """A run table that supports every figure: targets, models, allocations, decays, schedules, scores."""
    parts = [simulate_runs(allocations=(1.0, 0.5), seeds=2, seed=1)]
    parts += [
        simulate_runs(
            Truth(floor=3.0 + 0.05 * decay),
            target_tokens=(16384,),
            replay_fractions=(0.0,),
            seeds=1,
            seed=10 + int(10 * decay),
            weight_decay=decay,
        )
        for decay in (0.0, 0.4)
    ]
    parts += [
        simulate_runs(
            Truth(floor=3.01), target_tokens=(16384,), allocations=(1.0, 0.5), seeds=1, seed=30 + i, lr_schedule=name
        )
        for i, name in enumerate(("wsd-0.01", "cosine"))
    ]
    parts += [
        simulate_runs(Truth(gain=1.7), replay_tokens=(8192, 16384), seed=50, model="4m", parameters=4e6),
        simulate_runs(Truth(gain=1.4, floor=3.2), replay_tokens=(16384,), seed=70, target="code"),
    ]
    runs = pd.concat(parts, ignore_index=True)
    runs["run_id"] = [f"run-{i}" for i in range(len(runs))]
    runs["xcopa_eu_accuracy"] = 0.58 + 0.07 * runs["replay_fraction"] * (1.6 - runs["replay_fraction"])
    return runs


FULL_SETTINGS = {
    "name": "made_up",
    "title": "A made-up study",
    "command": "replay-sweep study=made_up",
    "versions": {"torch": "2.13.0"},
    "machine": "two cores",
    "base_scores": {"xcopa_eu_accuracy": 0.54},
    "sources": [
        {"name": "prose", "role": "generic", "documents": 1234, "train_tokens": 10_700_000},
        {"name": "maths", "role": "target", "documents": 200, "token_frequency_divergence": 0.31},
        {"name": "code", "role": "target", "documents": 300, "token_frequency_divergence": 0.45},
    ],
}


def write_study(folder: Path, runs: pd.DataFrame, settings: dict[str, object] | None = None) -> Path:
    """A study's folder as a sweep leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    runs.to_parquet(folder / "runs.parquet", write_page_checksum=True)
    simulate_history(runs).to_parquet(folder / "history.parquet", write_page_checksum=True)
    if settings is not None:
        (folder / "study.json").write_text(json.dumps(settings))
    return folder


def warning_codes(warnings: Iterable[Caveat]) -> set[str]:
    """The codes of warnings."""
    return {warning.code for warning in warnings}
