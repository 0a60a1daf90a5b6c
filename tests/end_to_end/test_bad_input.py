"""Everything wrong with a command is said at once, a line each, with exit code 2 and nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.main import main

CASES = {
    "unknown study": (["study=quikstart"], ["no study 'quikstart'; did you mean quickstart?"]),
    "unknown choice in a sweep": (["model=1m,7m"], ["no model '7m'; did you mean"]),
    "no text beside a swept group": (
        ["target=mathematics,code", "target.path=null", "generic.path=nowhere"],
        ["generic.path=nowhere (command line): local: nowhere does not exist"],
    ),
    "unknown setting": (["schedule.replay_fractn=0"], ["did you mean schedule.replay_fraction?"]),
    "unknown group": (["modle=1m"], ["no setting or group modle; did you mean model?"]),
    "not key=value": (["replay"], ["replay (command line): cannot be read as key=value"]),
    "a group of settings": (["schedule.stage1=3"], ["is a group of settings; set one of schedule.stage1."]),
    "wrong type": (
        ["trainer.compile=maybe"],
        ["trainer.compile=maybe (command line): 'maybe' is not one of true, false, layers"],
    ),
    "wrong type in a sweep": (
        ["schedule.target_epochs=1,x"],
        ["schedule.target_epochs=x (command line): 'x' is not a"],
    ),
    "rho of 1": (["schedule.replay_fraction=1"], ["must be at least 0 and below 1"]),
    "negative rho": (["schedule.replay_fraction=-1/9"], ["must be at least 0 and below 1"]),
    "alpha above 1": (["schedule.stage2_allocation=1.5"], ["must be from 0 to 1"]),
    "alpha of 0 with replay": (
        ["schedule.stage2_allocation=0", "schedule.replay_fraction=0.5"],
        ["must be 0 where stage2_allocation is 0"],
    ),
    "cells that do not fit, all of them": (
        ["schedule.replay_fraction=0.98,0.99"],
        ["N=256, E=4, ρ=0.98", "N=256, E=4, ρ=0.99", "does not fit: it needs", "too many; would fit: N ≤"],
    ),
    "N not whole rows": (["schedule.target_tokens=100"], ["whole rows of 32 tokens: the nearest N are 96 or 128"]),
    "N/T not whole rows": (["schedule.target_fraction=1/100"], ["(N = 327.7): the nearest N are 320 or 352"]),
    "T not whole steps": (["schedule.total_tokens=1000"], ["whole steps of 512 tokens: 512 or 1,024"]),
    "rows too long": (["trainer.row_length=128"], ["must be at most the model's 64 positions"]),
    "batch does not divide": (["trainer.micro_batch_rows=5"], ["must divide trainer.batch_rows=16; 4 does"]),
    "missing path": (["target.path=/no/such/folder"], ["/no/such/folder does not exist"]),
    "unknown tokenizer": (["model.tokenizer.path=/no/such/tokenizer"], ["/no/such/tokenizer is not a folder"]),
    "output is a file": (["paths.output=/etc/hostname/x"], ["/etc/hostname is a file; give a folder"]),
    "stage 2 without a schedule": (["schedule.stage2.peak=1"], ["has no effect in mode mid_train"]),
    "two warm-ups": (["schedule.stage1.warmup_steps=3"], ["give exactly one of warmup_steps and warmup_fraction"]),
    "N twice": (["schedule.target_tokens=64"], ["give exactly one of schedule.target_tokens"]),
    "no model to start from": (["schedule=from_pretrained"], ["needs a model to start from in mode from_pretrained"]),
    "several at once": (
        ["schedule.replay_fraction=2", "trainer.micro_batch_rows=5", "target.path=/no/such/folder"],
        ["below 1", "must divide", "does not exist"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_command_is_told_in_lines_and_writes_nothing(
    case: str,
    command: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wrong, said = CASES[case]
    given = command(*wrong)
    if case == "no model to start from":
        given = [item for item in given if not item.startswith("schedule.")]
    if case == "N not whole rows":
        given = [item for item in given if not item.startswith("schedule.target_fraction")]
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert all(line.startswith("replay-sweep: ") for line in lines)
    for part in said:
        assert any(part in line for line in lines), output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["target", "generic"])
def test_text_too_short_for_the_grid_is_told_before_training(
    text: str, command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["schedule.total_tokens=33554432"]
    if text == "generic":
        wrong += ["schedule.target_fraction=1/131072"]
    assert main(command(*wrong)) == 2
    said = capsys.readouterr().err
    assert f"{text} local has " in said and "the grid needs " in said
    assert not (tmp_path / "output" / "runs.csv").exists()
    assert not (tmp_path / "output" / "store" / "states").exists()
