"""A store that an earlier version made is found again: the same command trains nothing and gives the same table."""

import tarfile
from pathlib import Path

import pytest

from replay_sweeps.main import main
from replay_sweeps.models import numerics
from replay_sweeps.progress import Progress

from .golden import ARCHIVE, golden_command, write_texts

NAMED_BY_CONTENT = ("states", "records", "observations", "failures", "text")  # the others tell of machine and folder


def listing(store: Path) -> dict[str, int]:
    """The files of a store that are the same wherever it lies, and their sizes."""
    found = {}
    for kind in NAMED_BY_CONTENT:
        for file in sorted((store / kind).rglob("*")):
            if file.is_file():
                found[file.relative_to(store).as_posix()] = file.stat().st_size
    return found


def test_the_command_that_made_an_earlier_store_trains_nothing_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    write_texts(tmp_path)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(output, filter="data")
    table, before = (output / "runs.csv").read_text(), listing(output / "store")
    monkeypatch.setattr(numerics, "torch_version", lambda: "2.13.0")
    trained: list[int] = []
    monkeypatch.setattr(Progress, "stepped", lambda self, tokens: trained.append(tokens))
    assert main(golden_command(tmp_path)) == 0
    assert not trained and "duplicates dropped" not in capsys.readouterr().err
    assert (output / "runs.csv").read_text() == table
    assert listing(output / "store") == before
