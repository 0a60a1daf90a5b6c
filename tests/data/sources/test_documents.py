"""A source's documents are limited in number, and its fingerprint follows its files and not its name."""

import json
import os
from pathlib import Path
from typing import Any

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.documents import documents, input_fingerprint


def local(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig("mine", "local", path=str(path), **more)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_max_documents_limits_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"t{i}"}) + "\n" for i in range(9)))
    assert list(documents(local(tmp_path, max_documents=3))) == ["t0", "t1", "t2"]


def test_the_input_fingerprint_follows_the_files_and_not_the_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"one")
    before = input_fingerprint(local(tmp_path))
    assert before == input_fingerprint(SourceConfig("another name", "local", path=str(tmp_path)))
    assert before != input_fingerprint(local(tmp_path, split_above_characters=10))
    os.utime(path, ns=(1, 1))
    assert before != input_fingerprint(local(tmp_path))
