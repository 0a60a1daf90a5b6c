"""Data sets of the hub give their subsets or one folder; a hub out of reach is one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.documents import documents, input_fingerprint
from replay_sweeps.errors import UserError


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
