"""A model of the hub is found in the Hugging Face cache without a network, and named as in a folder."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.main import main
from replay_sweeps.models.hub import local_folder, read_local
from replay_sweeps.models.pretrained import describe
from tests.fixtures.shared import share_text

from .hub_stub import COMMIT, hub_of


def cache_of(home: Path, model: Path, leave_out: str = "") -> Path:
    """A cache as `huggingface_hub` lays it out, with a model of the hub in it; the folder of its snapshot."""
    repository = home / "hub" / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in model.iterdir():
        if file.name != leave_out:
            content = file.read_bytes()
            blob = repository / "blobs" / hashlib.sha256(content).hexdigest()
            blob.write_bytes(content)
            (snapshot / file.name).symlink_to(blob)
    return snapshot


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


def test_a_model_of_the_cache_has_the_fingerprint_of_its_folder(home: Path, pretrained: Callable[[str], Path]) -> None:
    snapshot = cache_of(home, pretrained("qwen2"))
    assert local_folder("org/name", None, False) == local_folder("org/name", COMMIT, False) == snapshot
    cached, given = describe("org/name"), describe(str(pretrained("qwen2")))
    assert cached == given and cached.fingerprint == given.fingerprint
    for file in read_local(snapshot, False).files:  # the cache's name of a file is its hash: it is not read
        assert file.checksum() == hashlib.sha256((snapshot / file.name).read_bytes()).hexdigest()


def test_a_model_whose_weights_were_not_fetched_is_not_in_the_cache(
    home: Path, pretrained: Callable[[str], Path]
) -> None:
    cache_of(home, pretrained("qwen2"), leave_out="model.safetensors")
    assert local_folder("org/name", None, False) is None


@pytest.mark.slow
def test_a_model_of_the_cache_is_planned_and_trained_offline(
    tmp_path: Path, pretrained: Callable[[str], Path], start_from: Callable[..., list[str]], pretrained_text: Path
) -> None:
    share_text(pretrained_text, tmp_path / "output")
    cache_of(tmp_path / "home", pretrained("qwen2"))
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-m", "replay_sweeps.main"]
    given = start_from("org/name")
    planned = subprocess.run([*run, *given, "plan=json"], env=environment, capture_output=True, text=True)
    assert json.loads(planned.stdout)["parameters"] == describe(str(pretrained("qwen2"))).parameters
    done = subprocess.run([*run, *given], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = subprocess.run([*run, *given, "plan=json"], env=environment, capture_output=True, text=True)
    assert json.loads(again.stdout)["done"] == 1


@pytest.mark.slow
def test_a_plan_of_a_hub_model_fetches_no_weights_and_training_does(
    tmp_path: Path, pretrained: Callable[[str], Path], start_from: Callable[..., list[str]], pretrained_text: Path
) -> None:
    from transformers import AutoModelForCausalLM

    share_text(pretrained_text, tmp_path / "output")
    model = tmp_path / "model"
    shutil.copytree(pretrained("qwen2"), model)
    (model / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(pretrained("qwen2")).save_pretrained(model, max_shard_size="40KB")
    weights = len(list(model.glob("*.safetensors")))
    asked: list[str] = []
    with hub_of(model, asked) as address:
        known = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": address, "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, **known, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        run = [sys.executable, "-m", "replay_sweeps.main"]
        given = start_from("org/name")
        planned = subprocess.run([*run, *given, "plan=json"], env=environment, capture_output=True, text=True)
        assert planned.returncode == 0, planned.stderr
        of_weights = [
            line for line in asked if line.startswith("GET") and ".safetensors" in line and "index" not in line
        ]
        assert len(of_weights) == weights and all("bytes=0-100000" in line for line in of_weights), asked
        assert local_folder_of(tmp_path / "home") is None
        done = subprocess.run([*run, *given], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert json.loads(planned.stdout)["parameters"] == describe(str(model)).parameters
    records = list((tmp_path / "output" / "store" / "records").glob("*/*"))
    assert main(start_from(model)) == 0  # the folder's weights are those of the hub: nothing is trained
    assert records and list((tmp_path / "output" / "store" / "records").glob("*/*")) == records


def local_folder_of(home: Path) -> Path | None:
    """The weights in a cache, or None."""
    return next(iter((home / "hub").glob("models--org--name/snapshots/*/*.safetensors")), None)
