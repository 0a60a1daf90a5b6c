"""A model that cannot be used is told in one line, with exit code 2 and nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from replay_sweeps.main import main

Mend = Callable[[Path], None]


def change(**values: object) -> Mend:
    """Change a model's config.json; None removes a name."""

    def mend(folder: Path) -> None:
        file = folder / "config.json"
        known = {**json.loads(file.read_bytes()), **values}
        file.write_text(json.dumps({name: value for name, value in known.items() if value is not None}))

    return mend


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def more_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra {number}>" for number in range(100)])
    tokenizer.save_pretrained(folder)


def shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


CASES: dict[str, tuple[Mend, str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights: give weights as"),
    "pickled": (pickled, "only pytorch_model.bin, which would be unpickled"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no readable config.json"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "no readable config.json"),
    "config without layers": (change(num_hidden_layers=None), "its config.json has no layers"),
    "config of other weights": (change(vocab_size=512), "vocab_size=512, its weights an embedding of 448 rows"),
    "cut off": (cut, "is damaged: "),
    "no safetensors": (lambda folder: (folder / "model.safetensors").write_bytes(b"0" * 99), "is no safetensors file"),
    "a shard is missing": (shard_missing, "lacks model-00002-of-00002.safetensors"),
    "too many tokens": (more_tokens, "the tokenizer has 500 tokens, the model's embedding only 448 rows"),
    "no causal model": (change(architectures=["BertForMaskedLM"]), "is BertForMaskedLM, no causal language model"),
    "encoder and decoder": (change(is_encoder_decoder=True), "no causal language model"),
    "code of its own": (change(model_type="mine", auto_map={"AutoModel": "mine.Mine"}), "code of its own (auto_map"),
    "unknown to transformers": (change(model_type="mine"), "cannot be loaded as a causal language model"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_cannot_be_used_is_told_in_one_line(
    case: str,
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mend, said = CASES[case]
    broken = tmp_path / "broken"
    shutil.copytree(pretrained("llama"), broken)
    mend(broken)
    capsys.readouterr()  # what making the model said
    assert main(start_from(broken)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("replay-sweep: model.path") and said in lines[0], lines
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("path", ["org/model", "no-such-model"])
def test_a_hub_id_without_a_network_is_told_in_one_line(
    path: str, start_from: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for plan in ("false", "true"):
        assert main(start_from(path, f"plan={plan}")) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and f"there is no folder {path} here" in lines[0], lines
    assert not (tmp_path / "output").exists()


def test_a_folder_that_is_not_there_is_told(
    start_from: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(start_from(tmp_path / "nowhere")) == 2
    assert "there is no folder" in capsys.readouterr().err
