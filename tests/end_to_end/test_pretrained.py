"""Starting from a given model: no stage 1, and the tree is rooted in the fingerprint of its weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main
from tests.fixtures.pretrained_model import write_small_model
from tests.fixtures.shared import MadeOnce

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def model(texts: tuple[Path, Path], made_once: MadeOnce) -> Path:
    """A small model and its tokenizer."""
    return made_once("small_model", lambda folder: write_small_model(folder, sorted(texts[0].glob("*.txt"))))


def arguments(command: Callable[..., list[str]], model: Path, *extra: str) -> list[str]:
    kept = [item for item in command() if not item.startswith(("+scale", "schedule.", "trainer.", "evaluation."))]
    return [
        *kept,
        "model=pretrained",
        f"model.path={model}",
        "schedule=from_pretrained",
        "schedule.target_tokens=1024",
        "schedule.replay_fraction=0,0.5",
        "schedule.target_epochs=1,2",
        "trainer.row_length=32",
        "trainer.batch_rows=8",
        "trainer.compile=false",
        "trainer.threads=1",
        "evaluation.tokens=1024",
        *extra,
    ]


def test_runs_start_from_the_given_weights_and_share_their_trunk_over_epochs(
    command: Callable[..., list[str]], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(command, model, "plan=json")) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["runs"] == 4 and plan["steps_shared"] < plan["steps_alone"] == 4 + 8 + 8 + 16
    assert main(arguments(command, model)) == 0
    runs = pd.read_parquet(tmp_path / "output" / "runs.parquet").set_index(["replay_fraction", "target_epochs"])
    assert set(runs.status) == {"done"} and set(runs.stage2_step) == {0}
    assert runs.total_tokens.to_dict() == {(0.0, 1): 1024, (0.0, 2): 2048, (0.5, 1): 2048, (0.5, 2): 4096}
    history = pd.read_parquet(tmp_path / "output" / "history.parquet")
    first = history[(history.step == 0) & (history.metric == "target_loss")].value
    assert len(first) == 4 and first.nunique() == 1  # the loss of the model as it was given
    assert (runs.target_loss < first.iloc[0]).all()
