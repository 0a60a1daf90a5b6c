"""Each kind of source gives its documents, or one line that says what is wrong with it."""

import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.documents import check_source, documents, input_fingerprint
from replay_sweeps.data.sources.installed_packages import docstrings, python_files
from replay_sweeps.errors import UserError


def local(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig("mine", "local", path=str(path), **more)


def write_parquet(path: Path, **columns: list[Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


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


def test_max_documents_limits_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(9)))
    assert list(documents(local(tmp_path, max_documents=3))) == ["t0", "t1", "t2"]


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


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


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


def test_the_hub_out_of_reach_is_one_line_that_offers_local_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    def out_of_reach(*args: object, **more: object) -> None:
        raise ConnectionError("no route to host\nwith details")

    monkeypatch.setattr(HfApi, "dataset_info", out_of_reach)
    with pytest.raises(UserError) as caught:
        list(documents(SourceConfig("web", "hub", path="some/data")))
    assert len(caught.value.problems) == 1
    assert "no route to host" in caught.value.problems[0]
    assert "`=local` with `.path=FOLDER`" in caught.value.problems[0]
    assert "\n" not in caught.value.problems[0]


def test_docstrings_are_found_dedented_and_in_order() -> None:
    filler = "word " * 20
    source = f'''"""Module {filler}"""
def f():
    """Function {filler}

    Indented.
    """
    class Inner:
        """Inner {filler}"""
add_newdoc("place", "name", """Attached {filler}""")
def short():
    """Too short."""
'''
    found = docstrings(source.encode())
    assert [text.split()[0] for text in found] == ["Module", "Function", "Inner", "Attached"]
    assert "\n\nIndented." in found[1]
    assert docstrings(b"not python (") == []


def test_installed_text_is_read_without_importing_it() -> None:
    before = set(sys.modules)
    assert len(python_files("sympy", tests=True)) > len(python_files("sympy", tests=False)) > 100
    assert not any(name.split(".")[0] == "sympy" for name in set(sys.modules) - before)
    assert next(iter(documents(SourceConfig("code", "standard_library"))))


def test_the_input_fingerprint_follows_the_files_and_not_the_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"one")
    before = input_fingerprint(local(tmp_path))
    assert before == input_fingerprint(SourceConfig("another name", "local", path=str(tmp_path)))
    assert before != input_fingerprint(local(tmp_path, split_above_characters=10))
    os.utime(path, ns=(1, 1))
    assert before != input_fingerprint(local(tmp_path))


def hub_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceConfig:
    """A data set as the hub holds them, in a folder: two subsets, and files that do not belong to them."""
    for name in ("first", "second", "other"):
        (folder / name).mkdir(parents=True)
        column = "text" if name != "other" else "content"
        (folder / name / "train.jsonl").write_text(
            "".join(json.dumps({column: f"{name} {i}"}) + "\n" for i in range(2))
        )
    subsets = "".join(f"- config_name: {name}\n  data_files: {name}/train.jsonl\n" for name in ("first", "second"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{subsets}---\n")
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)  # it is here: no question of reach
    return SourceConfig("web", "hub", path=str(folder))


def test_several_subsets_of_a_data_set_are_read_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(hub_data_set(tmp_path / "set", monkeypatch), subset="second, first")
    assert list(documents(source)) == ["second 0", "second 1", "first 0", "first 1"]
    assert input_fingerprint(source) != input_fingerprint(replace(source, subset="second"))


def test_a_folder_of_a_data_set_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(hub_data_set(tmp_path / "set", monkeypatch), text_column="content")
    (tmp_path / "set" / "README.md").unlink()
    source = replace(whole, folder="other")
    assert list(documents(source)) == ["other 0", "other 1"]
    assert input_fingerprint(source) != input_fingerprint(whole)
