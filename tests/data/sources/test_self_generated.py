"""Replay text that the pretrained model samples itself: seeded, resumable, and a source like any other."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources import self_generated
from replay_sweeps.data.sources.documents import check_source, documents, input_fingerprint
from replay_sweeps.main import main
from replay_sweeps.store import command as store_command
from replay_sweeps.study.command import read_command
from replay_sweeps.study.study import hydra_loader, resolve_study
from replay_sweeps.workers.run_study import fetch_models
from tests.conftest import ROOT
from tests.fixtures.pretrained_model import write_small_model

# The first `documents` of a source, killed at the n-th write.
KILLED = """
import os, sys
from pathlib import Path
from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources import self_generated
written, write = 0, self_generated.write_record
def counted(*arguments):
    global written
    written += 1
    if written == 3:
        os.kill(os.getpid(), {signal})
    write(*arguments)
self_generated.write_record = counted
list(self_generated.documents(SourceConfig("own", "self_generated", path={path!r}, max_documents=200,
    document_tokens=8), Path({kept!r})))
"""


@pytest.fixture(scope="module")
def source(texts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> SourceConfig:
    """Text of a small model that was never trained, with a tokenizer of its own."""
    folder = write_small_model(tmp_path_factory.mktemp("model"), sorted(texts[0].glob("*.txt")))
    return SourceConfig("own", "self_generated", path=str(folder), max_documents=200, document_tokens=8)


@pytest.fixture(scope="module")
def whole(source: SourceConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that the source samples: tests read it, and change nothing in it."""
    folder = tmp_path_factory.mktemp("whole")
    assert len(list(self_generated.documents(source, folder))) == 200
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_samples_the_same_text_and_another_seed_or_temperature_another(
    source: SourceConfig, whole: Path, tmp_path: Path
) -> None:
    settings = [source, replace(source, generation_seed=1), replace(source, temperature=0.3)]
    texts = [list(self_generated.documents(item, tmp_path / "kept")) for item in settings]
    assert texts[0] == list(self_generated.documents(source, whole))
    assert len({tuple(text) for text in texts}) == 3
    assert {len(text) for text in texts} == {200}
    assert len(set(texts[0])) > 150  # chunks differ from each other, too
    assert len({input_fingerprint(item) for item in settings}) == 3


def test_sampling_is_pure_whatever_the_models_folder_says_of_it(source: SourceConfig, tmp_path: Path) -> None:
    import torch

    assert source.path is not None
    told = shutil.copytree(source.path, tmp_path / "told")
    settings = json.loads((told / "generation_config.json").read_text())
    settings |= {"do_sample": True, "top_k": 1, "temperature": 0.1, "repetition_penalty": 2.0, "max_length": 3}
    (told / "generation_config.json").write_text(json.dumps(settings))
    few = replace(source, max_documents=64)
    before = torch.random.get_rng_state()
    plain = list(self_generated.documents(few, tmp_path / "kept"))
    assert list(self_generated.documents(replace(few, path=str(told)), tmp_path / "kept")) == plain
    assert len(set(plain)) > 60
    assert torch.equal(before, torch.random.get_rng_state())  # what else is drawn in this process stays as it was


def test_a_killed_command_goes_on_to_the_same_text(source: SourceConfig, whole: Path, tmp_path: Path) -> None:
    code = KILLED.format(signal=int(signal.SIGKILL), path=source.path, kept=str(tmp_path / "killed"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=300).returncode == -signal.SIGKILL
    assert len(files(tmp_path / "killed")) == 2 < len(files(whole))
    resumed = list(self_generated.documents(source, tmp_path / "killed"))
    assert files(tmp_path / "killed") == files(whole)
    assert resumed == list(self_generated.documents(source, whole))


def test_more_documents_keep_what_was_sampled_and_damage_is_sampled_again(
    source: SourceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = list(self_generated.documents(replace(source, max_documents=70), tmp_path))
    before = files(tmp_path)
    sampled: list[int] = []
    sample = self_generated._Sampler.sample
    monkeypatch.setattr(
        self_generated._Sampler, "sample", lambda self, number: (sampled.append(number), sample(self, number))[1]
    )
    assert list(self_generated.documents(source, tmp_path))[:70] == few
    assert sampled == [2, 3] and before.items() <= files(tmp_path).items()
    damaged = next(tmp_path.rglob("000001.json"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert list(self_generated.documents(source, tmp_path))[:70] == few
    assert sampled == [2, 3, 1]


def test_documents_end_at_the_end_of_text_without_special_tokens(source: SourceConfig, tmp_path: Path) -> None:
    long = replace(source, document_tokens=60)
    found = list(documents(long, None, tmp_path))
    assert 190 < len(found) <= 200 and all(text.strip() and "<eos>" not in text for text in found)
    tokens = [json.loads(content)["tokens"] for content in files(tmp_path).values()]
    assert len(tokens) == 4 and all(64 * 30 < count < 64 * 60 for count in tokens)  # one token in 448 ends a text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": None}, "there is no model to sample from"),
        ({"path": "/no/such/model"}, "there is no folder /no/such/model"),
        ({"max_documents": None}, "max_documents: needs a value: how many documents to sample"),
        ({"temperature": 0.0}, "temperature: must be above 0"),
        ({"document_tokens": 65}, "document_tokens: must be at least 1 and at most the model's 64 positions"),
    ],
)
def test_settings_that_cannot_be_are_told(changes: dict[str, object], said: str, source: SourceConfig) -> None:
    [problem] = check_source(replace(source, **changes))  # type: ignore[arg-type]
    assert said in problem


def own_text(command: Callable[..., list[str]], model: str, *extra: str) -> list[str]:
    from tests.end_to_end.test_pretrained import arguments

    kept = [item for item in arguments(command, Path(model)) if not item.startswith("generic")]
    return [
        *kept,
        "generic=self_generated",
        "generic.max_documents=160",
        "generic.document_tokens=60",
        "generic.validation_fraction=0.2",
        "evaluation.tokens=256",
        "schedule.target_epochs=1",
        *extra,
    ]


def test_a_command_replays_what_the_model_says_itself(
    command: Callable[..., list[str]], source: SourceConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert source.path is not None
    plan = own_text(command, source.path, "plan=json")
    assert main(plan) == 0
    assert "160 documents are sampled from the model" in json.loads(capsys.readouterr().out)["warnings"][0]
    assert not (tmp_path / "output").exists()  # a plan samples nothing
    assert main(own_text(command, source.path)) == 0
    runs = pd.read_parquet(tmp_path / "output" / "runs.parquet")
    assert set(runs.status) == {"done"} and set(runs.generic) == {"self_generated"}
    about = json.loads((tmp_path / "output" / "study.json").read_text())
    own = next(item for item in about["sources"] if item["role"] == "generic")
    assert own["kind"] == "self_generated" and 100 < own["documents"] <= 160
    capsys.readouterr()
    assert main(plan) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2


def test_what_an_interrupted_command_sampled_is_not_collected(
    command: Callable[..., list[str]], source: SourceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source.path is not None
    sample = self_generated._Sampler.sample

    def interrupted(self: self_generated._Sampler, number: int) -> dict[str, Any]:
        if number == 1:
            raise KeyboardInterrupt
        return sample(self, number)

    monkeypatch.setattr(self_generated._Sampler, "sample", interrupted)
    store = tmp_path / "store"
    with pytest.raises(SystemExit):
        main(own_text(command, source.path, f"paths.store={store}"))
    [kept] = (store / "text" / "sampled").glob("*/*.json")
    assert store_command.main(["gc", "--store", str(store)]) == 0 and kept.is_file()
    shutil.rmtree(tmp_path / "output")
    assert store_command.main(["gc", "--store", str(store)]) == 0 and kept.is_file()
    assert store_command.main(["forget", str(tmp_path / "output"), "--store", str(store)]) == 0
    assert store_command.main(["gc", "--store", str(store)]) == 0 and not kept.exists()


def test_another_model_that_text_is_sampled_from_is_fetched_before_it_names_the_text(
    source: SourceConfig, monkeypatch: pytest.MonkeyPatch, command: Callable[..., list[str]]
) -> None:
    from replay_sweeps.models import build

    fetched: list[str | None] = []
    monkeypatch.setattr(build, "fetch_pretrained", lambda model: fetched.append(model.path))
    assert source.path is not None
    with hydra_loader() as loader:
        [run, *_] = resolve_study(read_command(own_text(command, source.path), loader), loader).runs
    fetch_models([replace(run, generic=replace(run.generic, path="some/other"))])
    assert fetched == [source.path, "some/other"]


def test_a_command_whose_model_cannot_sample_is_told_where_to_mend_it(
    command: Callable[..., list[str]], source: SourceConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert source.path is not None
    assert main(own_text(command, source.path, "generic.temperature=-1", "generic.document_tokens=100")) == 2
    told = capsys.readouterr().err
    assert "generic.temperature=-1 (command line): must be above 0" in told
    assert "generic.document_tokens=100 (command line): must be at least 1 and at most" in told
    assert main(command("generic=self_generated", "generic.path=null")) == 2
    assert "there is no model to sample from" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()
