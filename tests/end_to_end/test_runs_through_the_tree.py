"""The promise of the tree: a run trained through it ends in the same bits as the same run trained alone."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.fixtures.outputs import TIMED, final_weights, history
from tests.fixtures.shared import finish

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "grid",
    [
        ["schedule=mid_train", "schedule.replay_fraction=0,0.5,0.75"],
        ["schedule=fine_tune", "schedule.replay_fraction=0,0.5", "schedule.stage2_allocation=1,0.5"],
    ],
    ids=["mid_train", "fine_tune"],
)
def test_a_run_through_the_tree_ends_in_the_bits_of_the_run_alone(
    grid: list[str], command: Callable[..., list[str]], tmp_path: Path, whole: Path
) -> None:
    options = [*grid, "trainer.compile=true", "trainer.micro_batch_rows=8", "trainer.threads=2"]
    finish(command(*options, output="tree"), text_of=whole)
    together = pd.read_parquet(tmp_path / "tree" / "runs.parquet").set_index("run_id")
    for number, run in enumerate(together.itertuples()):
        only = [
            f"schedule.replay_fraction={run.replay_fraction}",
            f"schedule.stage2_allocation={run.stage2_allocation}",
            "trainer.waypoints=0",
        ]
        alone = finish(command(*options, *only, output=f"alone{number}"), text_of=whole)
        table = pd.read_parquet(alone / "runs.parquet").set_index("run_id")
        assert table.loc[run.Index].drop(TIMED).to_dict() == together.loc[run.Index].drop(TIMED).to_dict()
        assert final_weights(alone, run.key) == final_weights(tmp_path / "tree", run.key)
        shared = history(tmp_path / "tree")
        pd.testing.assert_frame_equal(
            history(alone), shared[shared.run_id == run.Index].reset_index(drop=True), check_exact=True
        )


def test_each_of_many_models_in_one_process_is_compiled(command: Callable[..., list[str]], whole: Path) -> None:
    import torch

    # two for each model: training and validation
    with torch._dynamo.config.patch(recompile_limit=3, fail_on_recompile_limit_hit=True):
        finish(command("model.hidden_size=16,32", "model.layers=1", "trainer.compile=true"), text_of=whole)
