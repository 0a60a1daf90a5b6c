"""The promise of the tree: a run trained through it ends in the same bits as the same run trained alone."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from replay_sweeps.main import main

TIMED = ["seconds"]
TIMED_METRICS = ["tokens_per_second", "mfu"]


def final_weights(output: Path, key: str) -> dict[str, bytes]:
    [folder] = (output / "store" / "states").glob(f"*/*-{key[:32]}")
    return {name: value.tobytes() for name, value in load_file(folder / "model.safetensors").items()}


def history(output: Path) -> pd.DataFrame:
    frame = pd.read_parquet(output / "history.parquet")
    return frame[~frame.metric.isin(TIMED_METRICS)].sort_values(["run_id", "step", "metric"]).reset_index(drop=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid",
    [
        ["schedule=mid_train", "schedule.replay_fraction=0,0.5,0.75"],
        ["schedule=fine_tune", "schedule.replay_fraction=0,0.5", "schedule.stage2_allocation=1,0.5"],
    ],
    ids=["mid_train", "fine_tune"],
)
def test_a_run_through_the_tree_ends_in_the_bits_of_the_run_alone(
    grid: list[str], command: Callable[..., list[str]], tmp_path: Path, share_text: Callable[[Path, Path], None]
) -> None:
    options = [*grid, "trainer.compile=true", "trainer.micro_batch_rows=8", "trainer.threads=2"]
    assert main(command(*options, output="tree")) == 0
    together = pd.read_parquet(tmp_path / "tree" / "runs.parquet").set_index("run_id")
    for number, run in enumerate(together.itertuples()):
        alone = tmp_path / f"alone{number}"
        share_text(tmp_path / "tree", alone)
        only = [
            f"schedule.replay_fraction={run.replay_fraction}",
            f"schedule.stage2_allocation={run.stage2_allocation}",
            "trainer.waypoints=0",
        ]
        assert main(command(*options, *only, output=alone.name)) == 0
        table = pd.read_parquet(alone / "runs.parquet").set_index("run_id")
        assert table.loc[run.Index].drop(TIMED).to_dict() == together.loc[run.Index].drop(TIMED).to_dict()
        assert final_weights(alone, run.key) == final_weights(tmp_path / "tree", run.key)
        shared = history(tmp_path / "tree")
        pd.testing.assert_frame_equal(
            history(alone), shared[shared.run_id == run.Index].reset_index(drop=True), check_exact=True
        )


@pytest.mark.slow
def test_each_of_many_models_in_one_process_is_compiled(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 3)  # two for each model: training and validation
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    assert main(command("model.hidden_size=16,32", "trainer.compile=true")) == 0
