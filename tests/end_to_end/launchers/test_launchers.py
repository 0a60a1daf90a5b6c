"""Every launcher runs the same grid to the same bits."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from replay_sweeps.main import main
from replay_sweeps.study.command import choices
from tests.conftest import ROOT
from tests.fixtures.outputs import assert_same
from tests.fixtures.processes import run_anew

PACKAGES = {"joblib": "hydra_plugins.hydra_joblib_launcher", "ray": "ray", "submitit_local": "submitit"}


@pytest.mark.slow
def test_local_workers_give_the_same_bits_each_pinned_to_its_share(
    grid: list[str], tmp_path: Path, whole: Path
) -> None:
    assert main([*grid, "hydra/launcher=local", "workers=2"]) == 0
    assert_same(tmp_path / "output", whole)
    assert len(list((tmp_path / "output" / "logs").iterdir())) == 3  # one for the trunk, two for the branches


@pytest.mark.slow
@pytest.mark.parametrize("launcher", PACKAGES)
def test_other_launchers_give_the_same_bits(launcher: str, grid: list[str], tmp_path: Path, whole: Path) -> None:
    pytest.importorskip(PACKAGES[launcher])
    done = run_anew([*grid, f"hydra/launcher={launcher}", "workers=2"], RAY_TMPDIR="/tmp/r")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "output", whole)
    assert len(list((tmp_path / "output" / "logs").iterdir())) >= 2


def test_each_launcher_has_a_config_that_says_what_it_is() -> None:
    assert choices("hydra/launcher") == ["in_process", "joblib", "local", "ray", "submitit_local", "submitit_slurm"]
    for name in choices("hydra/launcher"):
        file = ROOT / "conf" / "hydra" / "launcher" / f"{name}.yaml"
        assert file.read_text().startswith("# ") and "_target_" in yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("hydra/launcher=locl", "there is no hydra/launcher 'locl'; did you mean local?"),
        ("workers=0", "workers=0 (command line): must be at least 1"),
        ("keep_states=some", "'some' is not one of leaves, all, none"),
        ("plan=tree.png", "must be one of true, false, json, or a file name that ends in .svg"),
    ],
)
def test_a_wrong_setting_of_the_pool_is_told(wrong: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([wrong]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_launcher_that_is_not_installed_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["hydra/launcher=ray"]) == 2
    assert "is not installed: pip install 'replay-sweeps[ray]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("kill", "its worker was killed, twice"),
        ("unpicklable", "Unpicklable: holds a generator"),
    ],
)
def test_a_worker_that_goes_wrong_costs_its_path_alone(
    fault: str, reason: str, grid: list[str], tmp_path: Path, whole: Path
) -> None:
    given = [*grid, "hydra/launcher=local", "workers=2"]
    done = run_anew(given, ("-m", "tests.end_to_end.launchers.faulty"), FAULT=fault, FAULT_AT="60")
    assert done.returncode == 1, done.stderr
    runs = pd.read_csv(tmp_path / "output" / "runs.csv").set_index("run_id")
    assert sorted(runs.status) == ["done", "done", "failed"]
    [failed] = runs[runs.status == "failed"].itertuples()
    assert failed.reason.startswith(reason) and "steps 60 to 64" in failed.log
    first, last = done.stderr.splitlines()[-2:]
    assert first == f"replay-sweep: run {failed.Index} failed: {failed.reason}"
    assert last.startswith("replay-sweep: 1 runs failed") and " hydra/launcher=local workers=2" in last
    assert main(given) == 0
    assert_same(tmp_path / "output", whole)
