"""The command `replay-store`: what it prints, and what it says when a store or a disk is in the way."""

from pathlib import Path

import pytest

from replay_sweeps.store import command as store_command
from replay_sweeps.store import gc
from replay_sweeps.store.marker import mark_store
from replay_sweeps.store.states import SegmentRecord, Store
from replay_sweeps.store.study_records import StudyRecord, write_study_record
from replay_sweeps.tree.state_name import StateName


def test_a_folder_that_is_no_store_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nothing"
    assert store_command.main(["list", "--store", str(folder)]) == 2
    assert capsys.readouterr().err == f"replay-store: {folder} is not a store; give its folder with --store\n"


def test_the_studies_of_a_store_are_listed_with_what_each_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    names = [StateName("a" * 64, step, f"{step}" * 64) for step in (1, 2, 3)]
    for name in names:
        record = SegmentRecord(0, None, {"step": [1]}, {}, 1.0)
        store.save_state(name, record, lambda folder: (folder / "model.safetensors").touch(), True)
    for study, complete, name in (("one", True, names[0]), ("two", False, names[1])):
        output = str(tmp_path / study)
        write_study_record(store.folder, StudyRecord(study, output, complete, frozenset({name.path}), {}, (), {}))
    (tmp_path / "one").mkdir()
    assert store_command.main(["list", "--store", str(store.folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"one: 1 states, 0.0 MB, complete, in {tmp_path / 'one'}",
        f"two: 1 states, 0.0 MB, unfinished, folder gone, in {tmp_path / 'two'}",
        "no study refers to: 1 states, 0.0 MB",
        f"all: 3 states, 0.0 MB, in {store.folder}",
    ]


@pytest.mark.parametrize("wanted", [["gc"], ["export", "run", "folder"]])
def test_a_store_command_says_in_one_line_that_a_disk_is_in_the_way(
    wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "there")

    monkeypatch.setattr(store_command, "export_run", refuse)
    monkeypatch.setattr(gc, "study_records", refuse)
    mark_store(tmp_path)
    assert store_command.main([*wanted, "--store", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        "replay-store: there cannot be written (Permission denied): give a folder that can\n"
    )
