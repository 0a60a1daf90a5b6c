"""Prepared text is found again, changed text is prepared anew, and all problems are said before work begins."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.prepare import find_prepared
from replay_sweeps.errors import UserError
from tests.data.conftest import Prepare, Sources, made_up_document, request


def test_what_was_prepared_is_found_again_without_heavy_imports(
    two_sources: Sources, prepare: Prepare, tmp_path: Path
) -> None:
    asked = request(*two_sources, folder=tmp_path / "prepared")
    assert find_prepared(asked) is None
    prepared = prepare(*two_sources)
    assert find_prepared(asked) == prepared == prepare(*two_sources)
    script = f"""
import sys
from dataclasses import replace
from pathlib import PosixPath, WindowsPath
from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.prepare import find_prepared
from replay_sweeps.data.text_keys import TextRequest
assert find_prepared({asked!r}) is not None
heavy = {{"torch", "transformers", "tokenizers", "rensa", "datasets", "scipy", "pandas"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_changed_text_is_prepared_anew(two_sources: Sources, prepare: Prepare, tmp_path: Path) -> None:
    generic, target = two_sources
    changing = replace(target, path=str(shutil.copytree(str(target.path), tmp_path / "changing")))
    before = prepare(generic, changing)
    (tmp_path / "changing" / "new.txt").write_text(made_up_document(9999))
    after = prepare(generic, changing)
    assert after.generic.train == before.generic.train
    assert after.targets[0].counts["documents"] == before.targets[0].counts["documents"] + 1


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_written(prepare: Prepare, tmp_path: Path) -> None:
    missing = [SourceConfig(name, "local", path=str(tmp_path / name)) for name in ("a", "b")]
    with pytest.raises(UserError) as caught:
        prepare(*missing, tokenizer=TokenizerConfig("bpe", 3))
    assert len(caught.value.problems) == 3
    assert list(tmp_path.iterdir()) == []
