"""Starting from a given model: no stage 1, and the tree is rooted in the fingerprint of its weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main


def save_small_model(text: Path, folder: Path) -> Path:
    """A small model as `transformers` saves it, with a tokenizer of its own."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    files = sorted(text.glob("*.txt"))
    bpe.train([str(file) for file in files], vocab_size=400, special_tokens=["<eos>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<eos>").save_pretrained(folder)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    LlamaForCausalLM(LlamaConfig(vocab_size=448, max_position_embeddings=64, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(texts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(texts[0], tmp_path_factory.mktemp("pretrained"))


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
