"""The practitioner's path with a real pretrained model: from its folder and a little text to a recommendation."""

import json
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main
from replay_sweeps.models.demo import NEEDED, write_demo_model

pytestmark = pytest.mark.slow

MISSING = [f"{name} is not installed: {how}" for name, how in NEEDED.items() if find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))
def test_a_real_model_and_a_little_text_end_in_a_recommendation(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, output = tmp_path / "model", tmp_path / "output"
    write_demo_model(model)
    given = [
        "study=finetune_pretrained",
        f"model.path={model}",
        "model.lora_rank=8",
        "target=mathematics",
        "target.max_documents=2",
        "target.split_above_characters=1000",
        "generic=installed_documentation",
        "generic.max_documents=100",
        "generic.repeat=true",
        "schedule.target_share=1/4",
        "schedule.target_epochs=1",
        "schedule.replay_fraction=0,0.5",
        "schedule.order_seed=0,1",
        "schedule.subset_seed=0",
        "schedule.stage2.peak=1e-3",
        "trainer.row_length=64",
        "trainer.batch_rows=4",
        "trainer.threads=1",
        "trainer.compile=false",
        "evaluation.tokens=256",
        "evaluation.after_stage2_steps=0",
        "logger=csv",
        "budget=1h",
        f"paths.output={output}",
    ]
    assert main(given) == 0
    said = capfd.readouterr()
    assert "measured over 3 steps on this machine" in said.err and "4 of 4 runs fit" in said.err
    assert "Recommendation: " in said.out
    runs = pd.read_parquet(output / "runs.parquet")
    assert set(runs.status) == {"done"} and set(runs.parameters) != {0}
    history = pd.read_parquet(output / "history.parquet")
    before = history[history.step == 0].groupby("metric").value.first()
    assert 1 < before.generic_loss < 4.5  # nats: it knows English before it is trained
    learned = runs.target_loss < before.target_loss
    assert learned.all()
    [found] = json.loads((output / "recommendation.json").read_text())
    assert found["verdict"] in ("replay", "no_replay", "undecided") and found["target_epochs"] == 1
    assert found["gain_low"] < found["gain"] < found["gain_high"]  # two orders tell the noise
    assert (output / "figures" / "loss_against_replay.png").is_file()
