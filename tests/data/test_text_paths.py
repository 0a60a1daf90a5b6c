"""A record of text that names a path elsewhere, or something else in a file's place: nothing outside is touched."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.data.prepare import find_prepared
from replay_sweeps.files import fingerprint
from tests.data.conftest import Prepare, Sources, request
from tests.data.test_prepare_faults import content

Fault = Callable[[Path], Any]


@pytest.fixture
def prepared_folder(prepared_once: Path, tmp_path: Path) -> Path:
    """Prepared text beside a folder that is none of its business."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    return shutil.copytree(prepared_once, tmp_path / "prepared")


def rewritten(value: Any, path: str) -> Any:
    """A record's values with all its paths replaced."""
    if isinstance(value, dict):
        return {name: path if name == "path" else rewritten(item, path) for name, item in value.items()}
    return [rewritten(item, path) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "path", ["../victim", "VICTIM", "text/../../victim", ".", "tokens", "tokenizers", "to-victim", "", 3]
)
def test_a_path_that_leads_out_of_the_text_is_not_followed(
    path: Any, two_sources: Sources, prepare: Prepare, prepared_folder: Path
) -> None:
    victim = prepared_folder.parent / "victim"
    (prepared_folder / "to-victim").symlink_to(victim)
    before = prepare(*two_sources, folder=prepared_folder)
    names = {file.relative_to(prepared_folder) for file in prepared_folder.rglob("*")}
    for file in (prepared_folder / "records").iterdir():
        record = json.loads(file.read_text())
        record.pop("checksum")
        record = rewritten(record, str(victim) if path == "VICTIM" else path)
        file.write_text(json.dumps({**record, "checksum": fingerprint(record)}))
    assert find_prepared(request(*two_sources, folder=prepared_folder)) is None
    after = prepare(*two_sources, folder=prepared_folder)
    after.verify()
    assert content(after) == content(before)
    assert (victim / "precious").read_text() == "x"
    assert names <= {file.relative_to(prepared_folder) for file in prepared_folder.rglob("*")}


def folder_in_place(path: Path) -> None:
    (path / "inside").mkdir(parents=True)


OBSTACLES: dict[str, Fault] = {
    "folder": folder_in_place,
    "file": lambda path: path.write_text("x"),
    "pipe": os.mkfifo,
    "loop of links": lambda path: path.symlink_to(path),
    "link outside": lambda path: path.symlink_to(path.parent.parent.parent / "victim"),
}
PLACES = ["records/*", "text/*", "text/*/record.json", "text/*/*.zst", "tokenizers/*", "tokens/*", "tokens/*/*", "lock"]


@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("place", PLACES)
def test_something_else_in_place_of_a_file_or_folder_is_made_again(
    place: str, obstacle: str, two_sources: Sources, prepare: Prepare, prepared_folder: Path
) -> None:
    before = prepare(*two_sources, folder=prepared_folder)
    for path in list(prepared_folder.glob(place)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        OBSTACLES[obstacle](path)
    if place.startswith("text"):  # looked at only when something has to be made from it
        for path in (prepared_folder / "tokens").glob("*/*"):
            path.unlink()
    after = prepare(*two_sources, folder=prepared_folder)
    after.verify()
    assert content(after) == content(before)
    victim = prepared_folder.parent / "victim"
    assert [path.name for path in victim.iterdir()] == ["precious"] and (victim / "precious").read_text() == "x"


@pytest.mark.parametrize("name", ["records", "text", "tokenizers", "tokens"])
def test_a_file_in_place_of_a_folder_of_the_text_is_put_aside(
    name: str, two_sources: Sources, prepare: Prepare, prepared_folder: Path
) -> None:
    before = prepare(*two_sources, folder=prepared_folder)
    shutil.rmtree(prepared_folder / name)
    (prepared_folder / name).write_text("x")
    after = prepare(*two_sources, folder=prepared_folder)
    after.verify()
    assert content(after) == content(before)
