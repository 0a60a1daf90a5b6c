"""What a command line must not do: run code, replace what is quoted, ask for more than a grid can hold."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replay_sweeps.main import main
from replay_sweeps.study.command import choices, read_command
from replay_sweeps.study.study import Study

CALLS = "what a launcher runs cannot be set; choose one with hydra/launcher="
CASES = [
    ("hydra.launcher._target_=os.system", CALLS),
    ("++hydra.launcher._target_=os.system", CALLS),
    ("hydra.launcher._target_=os.system,os.abort", CALLS),
    ("hydra.launcher.cores={_target_:os.system}", CALLS),
    ("+hydra.launcher.a.b=[{c:{_target_:os.system}}]", CALLS),
    ("hydra.launcher.cores={a:1},{_target_:os.system}", CALLS),
    ("paths.output='a/${study.name}'", "${ in quotes would be replaced all the same"),
    ('paths.store="${oc.env:HOME}"', "${ in quotes would be replaced all the same"),
    ("target.name='${nope}'", "${ in quotes would be replaced all the same"),
    ("hydra.launcher.setup=['source ${x}']", "${ in quotes would be replaced all the same"),
    ("paths.output=${oc.env:NO_SUCH_VARIABLE}", "paths.output: its ${…} cannot be replaced: "),
    ("model.name=${model.name}", "its ${…} cannot be replaced: "),
    ("target.path=${nope}", "target.path: its ${…} cannot be replaced: "),
    ("hydra.launcher.partition=${oc.env:NO_SUCH_VARIABLE}", "hydra.launcher.partition: its ${…} cannot be replaced: "),
    (r"paths.output=a\${x}", "a folder with ${ in its name cannot be used"),
    ("schedule.order_seed=range(0,1000000000)", "holds about 1,000,000,000 values, more than the 10,000"),
    ("schedule.order_seed=shuffle(range(0,1000000000))", "holds about 1,000,000,000 values, more than the 10,000"),
    ("schedule.replay_fraction=range(0,1,1e-9)", "holds about 1,000,000,000 values, more than the 10,000"),
    ("schedule.order_seed=range(0,5,0)", "the step of a range must not be 0"),
    ("schedule.order_seed=" + "[" * 3000 + "]" * 3000, "brackets are nested more than 12 deep"),
]


@pytest.mark.parametrize(("argument", "said"), CASES, ids=[argument[:40] for argument, _ in CASES])
def test_a_command_that_cannot_be_meant_is_refused_in_one_line_at_once(
    argument: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    slurm = ["hydra/launcher=submitit_slurm"] if "partition" in argument or "setup" in argument else []
    before = time.process_time()
    checked = [] if argument.startswith("paths.output=a") else ["plan=true"]  # a plan writes nothing there
    assert main([*slurm, *checked, argument]) == 2
    assert time.process_time() - before < 20
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("replay-sweep: ") and said in line
    assert list(tmp_path.iterdir()) == []


def test_a_grid_that_is_too_large_is_refused_before_its_cells_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [f"schedule.{name}_seed=range(0,5000)" for name in ("order", "subset")]
    assert main([*seeds, "plan=true"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == "replay-sweep: the grid has 25,000,000 cells, more than 100,000: sweep over fewer values"


def test_what_can_be_meant_is_still_taken(study_of: Callable[..., Study]) -> None:
    assert [choice in ("joblib", "local") for choice in choices("hydra/launcher")].count(True) == 2
    assert study_of("hydra/launcher=local", "hydra.launcher.cores=1").elsewhere is False
    assert study_of("study.name=mine", "study.title=${study.name}").title == "mine"
    assert read_command(["schedule.order_seed=range(0,3)"]).swept == {"schedule.order_seed": [0, 1, 2]}
    assert read_command(["study.title='in quotes, $5 {x}'"]).values == {"study.title": "in quotes, $5 {x}"}
