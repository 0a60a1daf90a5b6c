"""What a plan says, and that ten thousand runs are planned with work that grows with their number."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from replay_sweeps.main import main
from replay_sweeps.plan.drawing import splits, tree_lines, tree_svg
from replay_sweeps.plan.report import plan_report
from replay_sweeps.store.status import StudyStatus
from replay_sweeps.store.study_records import StudyRecord, renamed
from replay_sweeps.study.study import Study
from replay_sweeps.tree.study_plan import StudyPlan, plan_study
from tests.fixtures.studies import FakeTraining
from tests.workers.test_worker import worker_of

PAPER = ["study=paper_mid_training"]


def test_the_papers_grid_is_counted_as_in_the_paper(study_of: Callable[..., Study]) -> None:
    report = plan_report(plan_study(study_of(*PAPER), None, None))
    assert (report["runs"], report["steps_alone"], report["steps_shared"]) == (33, 33_792, 5_537)
    assert report["ratio"] >= 6.0 and report["rounds"] == 2 and report["round_widths"] == [1, 32]
    assert report["seconds_left"] is None
    splits = {item["setting"]: item["step"] for item in report["splits"]}
    assert splits == {"target": 512, "schedule.target_fraction": 512, "schedule.replay_fraction": 768}


def test_a_scaled_study_of_hub_texts_runs_on_texts_that_every_machine_has(study_of: Callable[..., Study]) -> None:
    study = study_of(*PAPER, "+scale=tiny")
    sources = {run.target for run in study.runs}
    assert len(sources) == 3 and len({(s.kind, s.path if s.kind == "local" else None) for s in sources}) == 3
    assert all(source.kind != "hub" for run in study.runs for source in (run.target, run.generic))
    altered = {item["setting"]: (item["from"], item["to"]) for item in study.altered}
    assert altered["target.kind (flan)"] == ("hub", "local") and altered["target.kind (finemath)"] == ("hub", "sympy")
    assert altered["generic.kind"][0] == "hub"
    assert plan_report(plan_study(study, None, None))["ratio"] >= 6.0


def test_what_the_command_line_gives_is_not_scaled(study_of: Callable[..., Study]) -> None:
    study = study_of(*PAPER, "+scale=tiny", "schedule.total_tokens=262144")
    assert {run.schedule.total_tokens for run in study.runs} == {262_144}


def test_a_changed_setting_is_named_when_it_renames_states(
    plan_of: Callable[..., StudyPlan],
) -> None:
    grid = ["schedule.replay_fraction=0,0.5"]
    plan = plan_of(*grid)
    before = StudyRecord.of(plan, True)
    assert renamed(plan, before) == []
    assert renamed(plan_of("schedule.replay_fraction=0,0.5,0.75"), before) == []
    assert renamed(plan_of(*grid, "schedule.order_seed=0,1"), before) == []
    [change] = renamed(plan_of(*grid, "optimizer.beta2=0.9"), before)
    assert change == {"setting": "optimizer.beta2", "from": 0.95, "to": 0.9, "runs": 2}
    assert renamed(plan_of(*grid, "evaluation.tokens=64", "trainer.threads=2"), before) == []


def test_the_time_is_estimated_from_the_rate_that_the_store_measured(
    plan_of: Callable[..., StudyPlan], training: FakeTraining
) -> None:
    from replay_sweeps.plan.time_and_disk import seconds_left

    plan = plan_of("schedule.replay_fraction=0,0.5")
    status = StudyStatus(plan.tree, training.store)
    assert seconds_left(status, status.missing(), 1) is None
    worker_of(plan, training).work()  # the stand-in writes a rate of one token a second
    more = StudyStatus(plan_of("schedule.replay_fraction=0,0.5,0.75").tree, training.store)
    missing = more.missing()
    _, steps = more.progress(missing)
    assert steps and seconds_left(more, missing, 1) == steps * 512


def test_the_tree_is_drawn_with_a_line_for_each_path(plan_of: Callable[..., StudyPlan]) -> None:
    plan = plan_of("schedule.replay_fraction=0,0.5,0.75", "schedule.target_fraction=1/128")
    axes = ("schedule.replay_fraction",)
    tree = plan.tree
    lines = list(tree_lines(tree, axes))[1:]
    assert len(lines) == len(tree.paths) == 3 and lines[0].startswith("0-64 replay_fraction=")
    assert tree_svg(tree, axes).count("<text") == 4
    [split] = splits(tree, axes)
    assert split["setting"] == axes[0] and 0 < split["share"] < 1


def test_a_plan_as_a_drawing_and_as_json_alone_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = tmp_path / "tree.svg"
    given = ["+scale=tiny", "schedule.replay_fraction=0,0.5", f"paths.output={tmp_path / 'output'}"]
    assert main([*given, f"plan={drawing}"]) == 0
    assert drawing.read_text().startswith("<svg") and "tree (steps" in capsys.readouterr().out
    assert main([*given, "plan=json"]) == 0
    report = json.loads(capsys.readouterr().out)
    fields = "runs steps_alone steps_shared ratio rounds tokens flops parameters state_bytes_peak done altered warnings"
    assert set(fields.split()) <= report.keys()
    assert not (tmp_path / "output").exists()


def test_a_plan_resolves_and_plans_the_study_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from replay_sweeps import main as command
    from replay_sweeps.tree import study_plan

    calls: Counter[str] = Counter()

    def counted(module: ModuleType, name: str) -> None:
        whole = getattr(module, name)

        def function(*given: Any) -> Any:
            calls[name] += 1
            return whole(*given)

        monkeypatch.setattr(module, name, function)

    for module, name in ((command, "resolve_study"), (study_plan, "plan_runs"), (study_plan, "StudyTree")):
        counted(module, name)
    assert main(["study=quickstart", "budget=1h", "plan=json", f"paths.output={tmp_path / 'output'}"]) == 0
    assert calls == {"resolve_study": 1, "plan_runs": 1, "StudyTree": 1}
    assert json.loads(capsys.readouterr().out)["runs"] > 1


def test_a_plan_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from replay_sweeps.main import main; main(['study=paper_mid_training', 'plan=json'])\n"
        "sys.exit(bool({'torch', 'transformers', 'lightning'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr


def calls_of(act: Callable[[], object]) -> int:
    """How many calls of functions it takes, which is the same on every machine."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.slow
def test_planning_grows_with_the_number_of_runs(study_of: Callable[..., Study], training: FakeTraining) -> None:
    def plan(seeds: int) -> None:
        study = study_of("+scale=tiny", "schedule.replay_fraction=0,0.25,0.5,0.75,0.8",
                         f"schedule.order_seed=range({seeds})")  # fmt: skip
        status = StudyStatus(plan_study(study, None, None).tree, training.store)
        assert len(study.runs) == 5 * seeds and any(status.missing())

    assert calls_of(lambda: plan(200)) < 15 * calls_of(lambda: plan(20))
