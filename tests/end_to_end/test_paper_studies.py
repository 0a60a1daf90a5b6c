"""Each study of the paper, shrunk by `+scale=tiny`, runs from its text to the figure that answers its question."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.main import main as analyse
from replay_sweeps.main import main
from replay_sweeps.study.command import choices
from tests.fixtures.shared import MadeOnce

# The same grids in fewer, larger steps and with less text: 32 steps a run in place of 256.
SHORT = [
    "+scale=tiny",
    "schedule.total_tokens=65536",
    "trainer.row_length=16",
    "trainer.batch_rows=128",
    "trainer.micro_batch_rows=null",
    "trainer.waypoints=0",
    "evaluation.tokens=1024",
    "generic.max_documents=500",
    "target.max_documents=500",
    "logger=csv",
    "study.analyze=false",  # it is analysed here, in this process
]
ONE_TARGET = "target=finemath"  # where the grid shares little or is large: the other targets repeat its shape

# study → what its test leaves out or changes, how many runs are left, and the figures that answer its question
STUDIES: dict[str, tuple[list[str], int, list[str]]] = {
    "paper_mid_training": ([], 33, ["loss_against_replay", "reference_curve"]),
    "paper_fine_tuning": (
        [ONE_TARGET, "schedule.stage2.peak=3.0e-3"],
        44,
        ["loss_against_replay", "multiplier_against_replay"],
    ),
    "paper_data_schedules": ([ONE_TARGET], 26, ["data_schedules"]),
    "paper_reference_curve": ([ONE_TARGET], 28, ["reference_curve"]),
    "paper_lr_schedules": ([ONE_TARGET], 30, ["learning_rate_schedules"]),
    "paper_repetitions": ([], 63, ["repetitions"]),
    "paper_model_scale": ([ONE_TARGET], 20, ["multiplier_against_model"]),
    "paper_weight_decay": ([], 27, ["weight_decay_against_replay"]),
    "paper_basque": (["schedule.total_tokens=null"], 24, ["loss_against_replay"]),
}


@pytest.fixture(scope="session")
def workplace(made_once: MadeOnce) -> Path:
    """A folder with one store: what a study prepared or trained, the next one finds."""
    return made_once("paper", Path.mkdir)


def test_every_study_of_the_paper_is_run_here() -> None:
    assert set(STUDIES) == {name for name in choices("study") if name.startswith("paper_")}


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_a_study_of_the_paper_runs_to_its_figure(
    study: str, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes, count, figures = STUDIES[study]
    changed = {item.split("=")[0] for item in changes}
    given = [*(item for item in SHORT if item.split("=")[0] not in changed), *changes]
    output = workplace / study
    paths = [f"paths.store={workplace / 'store'}", f"paths.output={output}"]
    assert main([f"study={study}", *given, *paths]) == 0, capfd.readouterr().err
    assert analyse([str(output)]) == 0, capfd.readouterr().err
    runs = pd.read_parquet(output / "runs.parquet")
    assert set(runs.status) == {"done"} and len(runs) == count
    assert runs[["target_loss", "target_loss_selection", "generic_loss"]].notna().all(axis=None)
    report = (output / "report.md").read_text()
    for figure in figures:
        for ending in ("png", "pdf"):
            assert (output / "figures" / f"{figure}.{ending}").stat().st_size > 5_000
        assert f"figures/{figure}.png" in report
    assert json.loads((output / "study.json").read_text())["altered"]
    if study == "paper_model_scale":
        sizes = runs.groupby("model").parameters.first()
        assert list(sizes[["150m", "300m", "600m", "1_9b"]]) == sorted(set(sizes))  # as the names say, at any scale
