"""A command becomes a study: its distinct runs, or every problem of every cell, each said once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from replay_sweeps.errors import UserError
from replay_sweeps.study import study as study_module
from replay_sweeps.study.checks import Problem
from replay_sweeps.study.study import Study, folders
from replay_sweeps.study.surroundings import (
    folder_problems,
    needs,
    sampling_problems,
    text_problems,
    tokenizer_problems,
)

TINY = ["+scale=tiny", "schedule.target_fraction=1/128"]


def test_a_run_in_two_grids_is_one_run_of_the_first(study_of: Callable[..., Study]) -> None:
    study = study_of("study=quickstart", "schedule.target_fraction=1/512", "schedule.target_epochs=4,8")
    assert len(study.runs) == len(set(study.runs)) == 2 + 2 * 3 + 2 + 2
    assert [study.grid_of(run) for run in study.runs] == [0, 0, *[3] * 6, 4, 4, 5, 5]
    assert study.axes[0] == "schedule.replay_fraction" and "schedule.subset_seed" in study.axes


def test_all_cells_that_cannot_be_are_told(problems_of: Callable[..., list[str]]) -> None:
    told = problems_of("schedule.target_fraction=1/128", "schedule.replay_fraction=0,0.98,0.99")
    assert len(told) == 2
    assert ["ρ=0.98," in told[0], "ρ=0.99," in told[1]] == [True, True]


def test_a_problem_of_many_cells_is_told_once(problems_of: Callable[..., list[str]]) -> None:
    told = problems_of(*TINY[1:], "schedule.replay_fraction=0,0.25,0.5", "optimizer.beta1=2", "target=local,code",
                       "target.path=/no/such/folder")  # fmt: skip
    assert [line.partition(":")[0] for line in told] == [
        "optimizer.beta1=2 (command line)",
        "target.path=/no/such/folder (command line)",
    ]


def test_what_runs_need_around_them_is_looked_at_once(
    study_of: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def look(name: str) -> Iterator[Problem]:
        looked.append(name)
        yield from ()

    monkeypatch.setattr(study_module, "needs", lambda run: ((look, (run.target.name,)), (look, (run.generic.name,))))
    study = study_of(*TINY, "optimizer.beta2=0.9,0.8", "target=mathematics,code")
    assert len(study.runs) == 4 and looked == ["mathematics", "installed_documentation", "code"]


def test_a_run_needs_its_two_texts_a_tokenizer_and_folders(study_of: Callable[..., Study]) -> None:
    needed = needs(study_of(*TINY).runs[0])
    assert [check for check, _ in needed] == [text_problems, text_problems, tokenizer_problems, folder_problems]
    assert [about[0] for _, about in needed[:2]] == ["target", "generic"]


def test_folders_follow_from_what_is_given(study_of: Callable[..., Study], tmp_path: Path) -> None:
    run = study_of(*TINY).runs[0]
    assert folders(run) == (tmp_path / "output", tmp_path / "output" / "store")
    run = study_of(*TINY, "paths.output=null", "study.name=mine").runs[0]
    assert folders(run) == (Path("outputs/mine"), Path("outputs/store"))
    run = study_of(*TINY, "paths.output=null", f"paths.store={tmp_path}").runs[0]
    assert folders(run) == (Path("outputs/single"), tmp_path)


def test_who_trains_follows_from_the_launcher(study_of: Callable[..., Study]) -> None:
    inside = study_of(*TINY, "workers=4")
    assert inside.in_process and inside.workers == 1 and not inside.elsewhere
    local = study_of(*TINY, "workers=4", "hydra/launcher=local")
    assert not local.in_process and local.workers == 4 and not local.elsewhere


def test_a_launcher_is_checked_when_training_and_not_when_planning(
    problems_of: Callable[..., list[str]], study_of: Callable[..., Study]
) -> None:
    assert ["needs hydra/launcher=submitit_slurm" in line for line in problems_of(TINY[1], "trainer.nodes=2")] == [True]
    assert study_of(*TINY, "trainer.nodes=2", "plan=true").runs[0].trainer.world_size == 2


def test_the_file_of_a_plan_is_no_reason_to_refuse_it(study_of: Callable[..., Study], tmp_path: Path) -> None:
    (tmp_path / "output").touch()
    assert study_of(*TINY, "plan=json").runs
    run = study_of(*TINY, "plan=json").runs[0]
    [(name, message)] = folder_problems(run.paths, run.study, "false")
    assert name == "paths.output" and message.endswith("is a file; give a folder")


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a\\b"])
def test_a_study_has_a_plain_folder_name(name: str, problems_of: Callable[..., list[str]]) -> None:
    [line] = problems_of(TINY[1], f"study.name='{name}'")
    assert line.endswith("must be a plain folder name")


def test_text_that_a_model_samples_comes_from_the_model_that_is_trained(study_of: Callable[..., Study]) -> None:
    with pytest.raises(UserError) as error:
        study_of(*TINY, "generic=self_generated")
    assert [line for line in error.value.problems if line.startswith("generic.path=null")] == [
        "generic.path=null (conf/generic/self_generated.yaml): there is no model to sample from: model=pretrained "
        "model.path=FOLDER"
    ]


def test_each_need_says_the_setting_that_it_is_about(study_of: Callable[..., Study], tmp_path: Path) -> None:
    run = study_of(*TINY).runs[0]
    nowhere = replace(run.target, kind="local", path=str(tmp_path / "nowhere"))
    assert [name for name, _ in text_problems("target", nowhere)] == ["target.path"]
    sampled = replace(run.generic, kind="self_generated", path=None)
    assert [name for name, _ in sampling_problems("generic", sampled)] == ["generic.path"]
    assert list(text_problems("generic", sampled)) == list(sampling_problems("generic", sampled))
    templated = replace(run.model.tokenizer, chat_template=str(tmp_path / "nowhere.jinja"))
    assert [name for name, _ in tokenizer_problems(templated, False)] == ["model.tokenizer.chat_template"]
    assert not list(tokenizer_problems(run.model.tokenizer, False))
