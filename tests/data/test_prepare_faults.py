"""Damage and interruption at any point of a preparation are noticed and made good, and the result is the same."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.data.prepared_text import PreparedText
from tests.data.conftest import Prepare, Sources, request

# A preparation that is killed at its n-th write.
PREPARE = """
import os
import signal
from pathlib import PosixPath, WindowsPath
from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data import cleaning, prepare, tokenizers
from replay_sweeps.data.text_keys import TextRequest

if __name__ == "__main__":
    writes, fsync = 0, os.fsync

    def killed_at_some_write(handle):
        global writes
        writes += 1
        if writes == {killed_at}:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = killed_at_some_write
    cleaning.BATCH_CHARACTERS = tokenizers.BATCH_CHARACTERS = 3000
    prepare.prepare_text({request!r}, workers={workers})
"""

PREPARED_FILES = [
    "tokens/*/*",
    "tokenizers/*/tokenizer.json",
    "records/*",
    "text/*/record.json",
    "text/*/*.zst",
    "text/*/*.signatures",
]


def content(prepared: PreparedText) -> list[str]:
    return [prepared.tokenizer.fingerprint, *(s.fingerprint for source in prepared.sources for s in source.stores)]


def flip_a_bit(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
@pytest.mark.parametrize("what", PREPARED_FILES)
def test_any_damaged_file_is_noticed_and_made_again(
    two_sources: Sources,
    prepare: Prepare,
    prepared_once: Path,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    damage: Callable[[Path], None],
    what: str,
) -> None:
    shutil.copytree(prepared_once, tmp_path / "prepared")
    before = prepare(*two_sources)
    for path in (tmp_path / "prepared").glob(what):
        damage(path)
    if what.startswith("text"):  # looked at only when something has to be made from it
        for path in (tmp_path / "prepared" / "tokens").glob("*/*"):
            path.unlink()
    with caplog.at_level(logging.WARNING):
        after = prepare(*two_sources)
    after.verify()
    assert content(after) == content(before)
    if not (what == "records/*" and damage is Path.unlink):
        assert "made again" in caplog.text


def script(two_sources: Sources, folder: Path, workers: int = 1, killed_at: int = 0) -> list[str]:
    values = {"request": request(*two_sources, folder=folder), "workers": workers, "killed_at": killed_at}
    return [sys.executable, "-c", PREPARE.format(**values)]


@pytest.mark.parametrize("write", [*range(1, 12, 2), *range(12, 40, 5)])
def test_a_preparation_killed_at_any_write_leaves_nothing_half_made_that_is_used(
    two_sources: Sources, prepare: Prepare, prepared_once: Path, tmp_path: Path, write: int
) -> None:
    folder = tmp_path / "killed"
    killed = subprocess.run(script(two_sources, folder, killed_at=write))
    assert killed.returncode == -signal.SIGKILL
    resumed = prepare(*two_sources, folder=folder)
    resumed.verify()
    assert content(resumed) == content(prepare(*two_sources, folder=prepared_once))
    assert list(folder.rglob(".*.tmp")) == []


def test_many_processes_may_prepare_the_same_text_at_once(
    two_sources: Sources, prepare: Prepare, prepared_once: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    processes = [subprocess.Popen(script(two_sources, folder, workers=2)) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert content(prepare(*two_sources, folder=folder)) == content(prepare(*two_sources, folder=prepared_once))
