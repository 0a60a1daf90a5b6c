"""The cells of a grid: unions of products, what the command line replaces, and what a scale alters."""

from typing import Any

import pytest
from hydra.core.config_loader import ConfigLoader

from replay_sweeps.study.command import read_command
from replay_sweeps.study.composer import SIZES_OF_TARGET, Composer, grids_of, product


def composer(loader: ConfigLoader, *arguments: str) -> Composer:
    return Composer(read_command(arguments, loader), loader)


def grids(loader: ConfigLoader, *arguments: str) -> list[dict[str, list[Any]]]:
    made = composer(loader, *arguments)
    return grids_of(made.base, made.command)


def test_a_product_varies_its_last_setting_fastest() -> None:
    cells = list(product({"a": [1, 2], "b": [3, 4]}))
    assert cells == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]
    assert list(product({})) == [{}]


def test_a_study_is_a_union_of_products(loader: ConfigLoader) -> None:
    found = grids(loader, "study=quickstart")
    assert len(found) == 6
    assert found[0]["schedule.replay_fraction"] == [0] and found[3]["schedule.replay_fraction"] == [0.5, 0.75, 0.875]


def test_a_value_of_the_command_line_replaces_what_the_study_sweeps(loader: ConfigLoader) -> None:
    fixed = grids(loader, "study=quickstart", "schedule.target_epochs=4")
    assert len(fixed) == 6 and all("schedule.target_epochs" not in grid for grid in fixed)
    swept = grids(loader, "study=quickstart", "schedule.target_epochs=1,2")
    assert all(grid["schedule.target_epochs"] == [1, 2] for grid in swept)


def test_n_given_in_one_way_replaces_n_in_the_others(loader: ConfigLoader) -> None:
    assert set(SIZES_OF_TARGET) == {"schedule.target_tokens", "schedule.target_fraction", "schedule.target_share"}
    found = grids(loader, "study=quickstart", "schedule.target_tokens=4096")
    assert not any(name in grid for grid in found for name in SIZES_OF_TARGET)
    run, problems = composer(loader, "schedule.target_tokens=4096").run({})
    assert run is not None and not problems
    assert run.schedule.target_tokens == 4096 and run.schedule.target_fraction is None


def test_without_a_study_the_grid_is_that_of_the_command_line(loader: ConfigLoader) -> None:
    assert grids(loader) == [{}]
    assert grids(loader, "model=1m,4m", "workers=2") == [{"model": ["1m", "4m"]}]


def test_a_cell_chooses_groups_and_sets_values(loader: ConfigLoader) -> None:
    run, problems = composer(loader, "model=15m").run({"model": "4m", "schedule.replay_fraction": "1/3"})
    assert run is not None and not problems
    assert (run.model.name, run.model.layers, str(run.schedule.replay_fraction)) == ("4m", 6, "1/3")


@pytest.mark.parametrize(
    ("cell", "name", "said"),
    [
        ({"schedule.target_epochs": "x"}, "schedule.target_epochs", "'x' is not a whole number"),
        ({"schedule.stage2.peak": 1.0}, "schedule.stage2.peak", "must not be set: its group is null here"),
        ({"optimizer.beta1": None}, "optimizer.beta1", "needs a value"),
        ({"target": "local"}, "target.path", "needs a value"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_by_its_name(
    cell: dict[str, Any], name: str, said: str, loader: ConfigLoader
) -> None:
    _, problems = composer(loader).run(cell)
    assert (name, said) in problems or any(n == name and said in m for n, m in problems), problems


def test_a_problem_is_told_with_the_value_and_where_it_was_set(loader: ConfigLoader) -> None:
    made = composer(loader, "study=quickstart", "+scale=tiny", "optimizer.beta1=0.5", "workers=1,2")
    cell = {"workers": 1, "schedule.replay_fraction": 0.5}
    made.run(cell)
    lines = [made.line(name, "is wrong", cell) for name in ("optimizer.beta1", "workers", "schedule.replay_fraction")]
    assert lines == [
        "optimizer.beta1=0.5 (command line): is wrong",
        "workers=1 (command line): is wrong",
        "schedule.replay_fraction=0.5 (grid of conf/study/quickstart.yaml): is wrong",
    ]
    assert made.line("trainer.row_length", "x", cell) == "trainer.row_length=32 (conf/scale/tiny.yaml): x"
    assert made.line("study.name", "x", cell) == "study.name=quickstart (conf/study/quickstart.yaml): x"
    assert made.line("optimizer.beta2", "x", cell) == "optimizer.beta2=0.95 (conf/optimizer/adamw.yaml): x"
    assert made.line("budget", "x", cell) == "budget=null (conf/config.yaml): x"


def test_a_scale_alters_settings_but_none_that_the_command_line_gives(loader: ConfigLoader) -> None:
    assert not list(composer(loader, "study=quickstart").altered())
    made = composer(loader, "study=quickstart", "+scale=tiny", "trainer.row_length=16")
    made.run({})
    altered = {item["setting"]: (item["from"], item["to"]) for item in made.altered()}
    assert altered["model.hidden_size"] == (128, 32) and altered["trainer.batch_rows"] == (8, 16)
    assert "trainer.row_length" not in altered and "scale" not in altered


def test_a_scale_alters_the_text_and_the_shape_of_a_choice_where_the_choice_says_so(loader: ConfigLoader) -> None:
    made = composer(loader, "+scale=tiny")
    for target in ("finemath", "latxa"):
        run, problems = made.run({"target": target, "model": "300m"})
        assert run is not None and not problems
        assert run.model.hidden_size == 48 and run.target.kind in ("sympy", "local")
    altered = {item["setting"]: (item["from"], item["to"]) for item in made.altered()}
    assert altered["target.kind (finemath)"] == ("hub", "sympy") and altered["model.layers (300m)"] == (12, 2)


def test_a_grid_of_a_smaller_scale_is_told(loader: ConfigLoader) -> None:
    made = composer(loader, "study=paper_basque", "+scale=tiny")
    made.run({})
    changed = [item for item in made.altered() if item["setting"].endswith(" (grid)")]
    assert changed and all(item["from"] != item["to"] for item in changed)
