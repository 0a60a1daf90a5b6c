"""The command `replay-store`: what it prints, and what it says when a store or a disk is in the way."""

from pathlib import Path

import pytest

from replay_sweeps.store import command as store_command
from replay_sweeps.store import gc


def test_a_folder_that_is_no_store_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nothing"
    assert store_command.main(["list", "--store", str(folder)]) == 2
    assert capsys.readouterr().err == f"replay-store: {folder} is not a store; give its folder with --store\n"


@pytest.mark.parametrize("wanted", [["gc"], ["export", "run", "folder"]])
def test_a_store_command_says_in_one_line_that_a_disk_is_in_the_way(
    wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr(store_command, "export_run", refuse)
    monkeypatch.setattr(gc, "study_records", refuse)
    assert store_command.main([*wanted, "--store", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "replay-store: there cannot be written (Permission denied): give a folder that can\n"
    )
