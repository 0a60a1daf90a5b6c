"""N as a share of the target's own text: counted in whole training rows once the text is prepared."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from replay_sweeps.main import main


def sharing(command: Callable[..., list[str]], *extra: str) -> list[str]:
    kept = [item for item in command() if not item.startswith("schedule.target_fraction")]
    return [*kept, "schedule.target_epochs=1", *extra]


@pytest.mark.slow
def test_a_share_is_so_many_of_the_texts_own_rows_rounded_down_and_one_at_least(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = sharing(command, "schedule.target_share=1/4,1/10,1/100000", "schedule.total_tokens=65536")
    assert main([*given, "plan=json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert any(warning.startswith("N is an estimate: local") for warning in before["warnings"])
    assert main(given) == 0
    [target] = [s for s in json.loads((tmp_path / "output/study.json").read_text())["sources"] if s["role"] == "target"]
    rows = target["train_tokens"] // 32
    runs = pd.read_parquet(tmp_path / "output/runs.parquet")
    assert set(runs.status) == {"done"}
    assert sorted(runs.target_tokens) == [32, rows // 10 * 32, rows // 4 * 32]
    capsys.readouterr()
    assert main([*given, "plan=json"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert after["done"] == 3 and not any("estimate" in warning for warning in after["warnings"])


def test_a_plan_refuses_no_share_on_the_ground_of_an_estimate(
    command: Callable[..., list[str]], texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = sharing(command, "schedule.target_share=1,1/2", "schedule.total_tokens=1024", "plan=json")
    assert main(given) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["runs"] == 2
    [warning] = [line for line in plan["warnings"] if "schedule.target_share=1 does not fit" in line]
    assert "schedule.total_tokens=1024" in warning and "N = " in warning


def test_an_estimate_is_of_the_documents_that_are_read(
    command: Callable[..., list[str]], texts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = sharing(command, "schedule.target_share=1", "schedule.total_tokens=1048576", "plan=json")
    found = []
    for most in ("null", "20"):
        assert main([*given, f"target.max_documents={most}"]) == 0
        [line] = [w for w in json.loads(capsys.readouterr().out)["warnings"] if w.startswith("N is an estimate")]
        found.append(int(line.split("about ")[1].split()[0].replace(",", "")))
    whole, some = found
    assert whole / 12 < some < whole / 8  # 20 of 200


@pytest.mark.slow
def test_shares_that_come_to_the_same_rows_are_one_run(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sharing(command, "schedule.target_share=1/100000,1/200000")) == 0
    assert len(pd.read_parquet(tmp_path / "output/runs.parquet")) == 1


def test_a_share_that_the_run_has_no_room_for_is_told_once_it_is_counted(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sharing(command, "schedule.target_share=1", "schedule.total_tokens=1024")) == 2
    said = capsys.readouterr().err
    [line] = [line for line in said.splitlines() if line.startswith("replay-sweep: ")]
    assert "with schedule.target_share=1" in line and "does not fit" in line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["schedule.target_share=0"], "must be above 0, to 1"),
        (["schedule.target_share=1.5"], "must be above 0, to 1"),
        (["schedule.target_share=1/2", "schedule.target_tokens=64"], "give exactly one of schedule.target_tokens"),
    ],
    ids=["none", "more than all", "N twice"],
)
def test_a_share_that_is_none_is_told(
    given: list[str], said: str, command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sharing(command, *given)) == 2
    assert said in capsys.readouterr().err
