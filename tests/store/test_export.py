"""A finished run as a folder: plain `transformers` loads it, and finds the same validation loss."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from replay_sweeps.main import main
from replay_sweeps.store.command import main as store_command
from tests.fixtures.models import save_model
from tests.fixtures.shared import finish


def only_run(output: Path) -> dict[str, object]:
    [run] = pd.read_parquet(output / "runs.parquet").to_dict("records")
    return run


def losses_of(network: torch.nn.Module, output: Path) -> dict[str, float]:
    """The losses on each validation store of a study, as `transformers` computes them."""
    found = {}
    for record in (output / "store" / "text" / "records").glob("*.json"):
        for half in ("selection", "report"):
            store = json.loads(record.read_text()).get(half)
            if store:
                tokens = np.fromfile(output / "store" / "text" / store["path"], dtype=store["dtype"])
                rows = torch.from_numpy(tokens[: len(tokens) // 32 * 32].reshape(-1, 32).astype(np.int64))
                with torch.no_grad():
                    found[store["fingerprint"]] = float(network(input_ids=rows, labels=rows).loss)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["from scratch", "tied", "gpt2", "untied", "lora", "lora, tied", "lora, gpt2", "lora, sharded"]
)
def test_the_exported_model_has_the_loss_of_the_run(
    case: str,
    pretrained: Callable[[str], Path],
    command: Callable[..., list[str]],
    start_from: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pretrained_text: Path,
    whole: Path,
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kinds = {"tied": "llama", "untied": "qwen2", "lora": "qwen2", "lora, tied": "llama", "lora, sharded": "qwen2"}
    kind = kinds.get(case, "gpt2")
    if case == "from scratch":
        given = command("trainer.precision=fp32", "model.tie_embeddings=false", "schedule.replay_fraction=0.5")
    else:
        lora = ["model.lora_rank=4", "schedule.stage2.peak=1e-2"] if "lora" in case else []
        sharded = ["trainer.devices=2", "trainer.strategy=fsdp"] if "sharded" in case else []
        given = start_from(pretrained(kind), *lora, *sharded)
    output, folder = finish(given, text_of=whole if case == "from scratch" else pretrained_text), tmp_path / "exported"
    run = only_run(output)
    assert store_command(["export", str(run["run_id"]), str(folder), "--store", str(output / "store")]) == 0
    assert str(folder) in capsys.readouterr().out
    network, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not list(folder.glob("*.bin"))
    found = losses_of(network.eval(), output).values()
    for metric in ("target_loss", "target_loss_selection", "generic_loss"):
        assert min(abs(loss - float(run[metric])) for loss in found) < 1e-5, (metric, run[metric], found)  # type: ignore[arg-type]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("a b c").input_ids) == "a b c"
    assert network.config.eos_token_id == tokenizer.eos_token_id and network.config.use_cache


@pytest.mark.slow
def test_adapters_alone_are_what_peft_reads(
    pretrained: Callable[[str], Path], start_from: Callable[..., list[str]], tmp_path: Path, pretrained_text: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    given = start_from(pretrained("qwen2"), "model.lora_rank=4", "schedule.stage2.peak=1e-2")
    output, folder = finish(given, text_of=pretrained_text), tmp_path / "adapter"
    run = only_run(output)
    store = ["--store", str(output / "store")]
    assert store_command(["export", str(run["run_id"]), str(folder), "--adapter", *store]) == 0
    base = AutoModelForCausalLM.from_pretrained(pretrained("qwen2"))
    network = PeftModel.from_pretrained(base, folder).eval()
    found = losses_of(network, output).values()
    assert min(abs(loss - float(run["target_loss"])) for loss in found) < 1e-5  # type: ignore[arg-type]


@pytest.fixture
def finished(command: Callable[..., list[str]], whole: Path) -> tuple[list[str], str, Path]:
    """A study of one run that is done: its command, the run's id, its output folder."""
    output = finish(command("keep_states=none"), text_of=whole)
    return command(), str(only_run(output)["run_id"]), output


@pytest.mark.slow
def test_dropped_weights_are_made_again_by_the_command_that_is_named(
    finished: tuple[list[str], str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, run_id, output = finished
    before, folder = only_run(output), tmp_path / "exported"
    export = ["export", run_id, str(folder), "--store", str(output / "store")]
    assert store_command(export) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "were dropped" in line and "--again" in line and line.endswith("keep_states=leaves")
    assert store_command([*export, "--again"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("keep_states=leaves") and "made again by: replay-sweep " in line
    assert main(command) == 0 and store_command(export) == 0
    assert (folder / "model.safetensors").is_file()
    assert only_run(output)["target_loss"] == before["target_loss"]


@pytest.mark.slow
def test_what_cannot_be_exported_is_told_in_one_line(
    finished: tuple[list[str], str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, run_id, output = finished
    full = save_model(tmp_path / "full", "llama")
    store = ["--store", str(output / "store")]
    for wrong, said in (
        (["no-such-run", str(tmp_path / "new")], f"there is no run no-such-run in {output / 'store'}; run ids are in"),
        ([run_id, str(full)], "exists and is not empty"),
    ):
        assert store_command(["export", *wrong, *store]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_run_is_not_exported_into_other_weights_than_it_started_from(
    pretrained: Callable[[str], Path],
    start_from: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    pretrained_text: Path,
) -> None:
    from safetensors.torch import load_file, save_file

    from replay_sweeps.models.pretrained import describe

    folder = shutil.copytree(pretrained("qwen2"), tmp_path / "model")
    finish(start_from(folder, "model.lora_rank=4"), text_of=pretrained_text)
    file = folder / "model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    describe.cache_clear()  # as in another process
    capsys.readouterr()
    run_id, store = str(only_run(tmp_path / "output")["run_id"]), str(tmp_path / "output" / "store")
    assert store_command(["export", run_id, str(tmp_path / "exported"), "--store", store]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"{folder} holds another model now" in line and not (tmp_path / "exported").exists()
