"""Local files that are nested too deeply, vanish, have odd names or change while they are read: one line each."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.config import SourceConfig
from replay_sweeps.data import cleaning
from replay_sweeps.data.sources import local_files
from replay_sweeps.data.sources.documents import check_source, documents, input_fingerprint
from replay_sweeps.errors import UserError
from tests.data.conftest import made_up_document, write_documents

DEEP = "[" * 100_000 + "]" * 100_000


def local(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig("mine", "local", path=str(path), **more)


@pytest.mark.parametrize(("row", "format"), [(DEEP, "text"), (f'{{"messages": {DEEP}}}', "chat")])
def test_deeply_nested_json_names_file_and_line(tmp_path: Path, row: str, format: str) -> None:
    first = {"text": "x", "messages": [{"role": "user", "content": "x"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(first) + f"\n{row}\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: nested too deeply to be read; remove it") as caught:
        list(documents(local(tmp_path, format=format)))
    assert len(caught.value.problems) == 1
    (tmp_path / "a.jsonl").write_text(row)
    [problem] = check_source(local(tmp_path, format=format))
    assert "line 1: nested too deeply" in problem


def test_a_file_that_vanishes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    files = local_files.readable_files

    def gone(*arguments: Any) -> list[tuple[str, Path]]:
        found = files(*arguments)
        (tmp_path / "a.txt").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(local_files, "readable_files", gone)
    with pytest.raises(UserError, match=r"a\.txt: can't be read \(No such file or directory\)"):
        input_fingerprint(local(tmp_path))


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
    [problem] = check_source(local(tmp_path))
    assert "the name is not UTF-8; rename the file" in problem and problem.isascii()


def test_a_file_that_changes_while_it_is_read_is_refused_though_it_gets_its_old_time_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_documents(tmp_path / "texts", [made_up_document(seed) for seed in range(60)])
    source = local(folder, validation_fraction=0.3)
    changed, state = folder / "00059.txt", (folder / "00059.txt").stat()

    def read(*arguments: Any) -> Iterator[str]:
        for number, document in enumerate(documents(*arguments)):
            if number == 5:
                changed.write_text(changed.read_text()[::-1])
                os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns))
            yield document

    monkeypatch.setattr(cleaning, "documents", read)
    with pytest.raises(UserError, match=r"mine: 00059\.txt was changed while it was read"):
        cleaning.clean_text(source, tmp_path / "clean", None)
    assert list((tmp_path / "clean").iterdir()) == []
    monkeypatch.undo()
    cleaning.clean_text(source, tmp_path / "clean", None)
