"""A file is on the disk, whole, before its name is; a record that does not match its checksum is never used."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import folder_made_atomically, inside, read_record, write_atomically, write_record


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was made durable, and which names were given, in this order; a temporary name without its random part."""
    seen: list[tuple[str, str]] = []

    def noted(word: str, call: Callable[..., object], name: Callable[..., str]) -> Callable[..., object]:
        def called(*arguments: object) -> object:
            seen.append((word, name(*arguments)))
            return call(*arguments)

        return called

    monkeypatch.setattr(
        os, "fsync", noted("synced", os.fsync, lambda handle: _name(str(Path(f"/proc/self/fd/{handle}").readlink())))
    )
    for function in ("replace", "rename"):
        monkeypatch.setattr(Path, function, noted("named", getattr(Path, function), lambda _, to: Path(to).name))
    return seen


def _name(path: str) -> str:
    """The name that a file has or will have."""
    name = Path(path).name
    return name.removeprefix(".").split(".")[0] if name.endswith(".tmp") else name


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_file_is_durable_before_it_is_named_and_its_name_before_anyone_goes_on(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    write_atomically(tmp_path / "folder" / "file", b"content")
    assert calls == [("synced", "file"), ("named", "file"), ("synced", "folder")]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_folder_and_its_files_are_durable_before_it_is_named(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    with folder_made_atomically(tmp_path / "place" / "state") as folder:
        (folder / "weights").write_bytes(b"weights")
    assert sorted(calls[:2]) == [("synced", "state"), ("synced", "weights")]
    assert calls[2:] == [("named", "state"), ("synced", "place")]


def test_a_record_that_was_changed_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_record(file, {"loss": 3.25, "step": 7})
    assert read_record(file) == {"loss": 3.25, "step": 7}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"step": 8}))
    with pytest.raises(DamagedFile):
        read_record(file)


@pytest.mark.parametrize(
    "name", ["..", "../victim", "a/../../victim", "/etc", "", ".", "link", "link/file", "loop", 3, None]
)
def test_no_path_that_a_file_names_leads_out_of_its_folder(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "victim").mkdir()
    (folder / "link").symlink_to(tmp_path / "victim")
    (folder / "loop").symlink_to("loop")
    assert inside(folder, "a/b") == folder / "a" / "b"
    with pytest.raises(DamagedFile):
        inside(folder, name)


def test_a_folder_in_a_files_place_is_put_aside_whole(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "inside").write_text("kept")
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert [path.read_text() for path in tmp_path.glob(".file.*.damaged/inside")] == ["kept"]
