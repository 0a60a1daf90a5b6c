"""Local files of every kind give their documents, or one line that says what is wrong with a file."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.documents import check_source, documents
from replay_sweeps.errors import UserError


def local(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig("mine", "local", path=str(path), **more)


def write_parquet(path: Path, **columns: list[Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_kind_of_file_in_a_folder_is_read_in_the_order_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("from txt")
    (tmp_path / "b.md.gz").write_bytes(gzip.compress(b"from gz"))
    frames = zstandard.compress(b"from ") + zstandard.compress(b"zst")
    (tmp_path / "c.rst.zst").write_bytes(frames)
    (tmp_path / "d.jsonl").write_text('{"text": "line 1"}\n\n{"text": null}\n{"text": "line 2"}\n')
    (tmp_path / "e.json").write_text(json.dumps([{"text": "array 1"}, {"text": "array 2"}]))
    write_parquet(tmp_path / "f.parquet", text=["row 1", None, "row 2"])
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "h.py").write_text("deeper = 1")
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / "ignored.doc").write_text("ignored")
    expected = ["from txt", "from gz", "from zst", "line 1", "line 2", "array 1", "array 2", "row 1", "row 2"]
    assert list(documents(local(tmp_path))) == [*expected, "deeper = 1"]
    assert check_source(local(tmp_path)) == []


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: folder / "absent", "does not exist"),
        (lambda folder: folder, "has no file that ends in .txt .md"),
        (lambda folder: written(folder / "a.parquet", b"no"), "is not a parquet file"),
        (lambda folder: written(folder / "a.doc", b"no"), "does not end in"),
        (lambda folder: written(folder / "a.jsonl", b'{"body": 1, "id": 2}'), "no column 'text'; there are: body, id"),
        (lambda folder: written(folder / "a.jsonl", b"hello"), "line 1: not JSON"),
        (lambda folder: written(folder / "a.jsonl", b'{"text": 5}'), "holds int, not text"),
    ],
)
def test_what_is_wrong_with_a_path_is_said_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], expected: str
) -> None:
    problems = check_source(local(make(tmp_path)))
    assert len(problems) == 1
    assert problems[0].startswith("mine: ")
    assert expected in problems[0]
    assert "\n" not in problems[0]


def test_a_missing_parquet_column_is_answered_with_the_columns_there_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", body=["x"], title=["y"])
    assert "no column 'text'; there are: body, title" in check_source(local(tmp_path))[0]
    assert list(documents(local(tmp_path, text_column="body"))) == ["x"]


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_truncated_compressed_file_is_an_error_not_a_shorter_text(tmp_path: Path, ending: str) -> None:
    content = os.urandom(100_000).hex().encode()
    whole = gzip.compress(content) if ending == "gz" else zstandard.compress(content)
    (tmp_path / f"a.txt.{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="can't be read"):
        list(documents(local(tmp_path)))
