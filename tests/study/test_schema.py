"""What the schema says of each setting agrees with the analysis, with the run table, and with the help."""

from dataclasses import dataclass
from typing import Any

import pytest

from analysis.findings.tuning import AXES
from analysis.runs import NUISANCE, SEEDS
from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import column_of, known_settings, renames_states, settings_of, with_role
from replay_sweeps.results.run_table import RunRecord, table_row
from replay_sweeps.setting import Setting, group, setting
from replay_sweeps.study.command import settings_with_symbol
from tests.study.helpers import value_of


def columns(role: Any) -> set[str]:
    return {column_of(name) for name in with_role(role)}


def test_the_roles_of_settings_are_those_that_the_analysis_knows() -> None:
    assert columns("axis") == set(AXES)
    assert columns("nuisance") == set(NUISANCE)
    assert columns("seed") == set(SEEDS)


def test_every_setting_with_a_role_has_its_column_in_the_run_table(plan_of: Any) -> None:
    plan = plan_of("schedule.target_fraction=1/128", "schedule.replay_fraction=0.5")
    [run] = plan.runs
    columns_of_row = table_row(RunRecord(run, None, {}), "study", None)
    for role in ("axis", "nuisance", "seed"):
        assert columns(role) <= columns_of_row.keys()
    same = ("schedule.target_epochs", "schedule.mode", "schedule.stage1.peak", "optimizer.weight_decay", "model.name")
    for name in (*same, "target.name", "generic.name", *with_role("seed")):
        assert columns_of_row[column_of(name)] == value_of(run.config, name)


def test_every_setting_says_what_it_is() -> None:
    for name, known in known_settings().items():
        assert known.help and not known.help.endswith("."), name


def test_a_field_that_says_nothing_of_itself_is_refused() -> None:
    @group
    class Inner:
        told: int = setting("something", default=1)
        untold: int = 2

    @dataclass(frozen=True)
    class Outer:
        inner: Inner

    with pytest.raises(TypeError, match=r"inner\.untold says nothing of itself"):
        dict(settings_of(Outer))


def test_a_setting_of_one_group_alone_renames_no_states_in_the_other() -> None:
    assert renames_states("generic.order_seed") and not renames_states("target.order_seed")


def test_the_help_has_a_line_for_each_setting_with_a_symbol() -> None:
    lines = list(settings_with_symbol())
    assert len(lines) == sum(bool(known.symbol) for known in known_settings().values())
    assert "schedule.target_epochs     E: how often each target token is seen" in lines
    assert all(len(line) <= 118 for line in lines)


def test_a_group_is_frozen_and_needs_what_has_no_default() -> None:
    @group
    class Group:
        needed: int = setting("no default", minimum=1)
        other: int = setting("a default", default=3)

    assert Group(2).other == 3
    with pytest.raises(TypeError):
        Group()  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Group(2).other = 4  # type: ignore[misc]


def test_the_schema_is_made_of_settings_alone() -> None:
    assert all(isinstance(known, Setting) for known in known_settings().values())
    assert "model.tokenizer.vocab_size" in known_settings() and "schedule.stage2.peak" in known_settings()
    assert RunConfig.__dataclass_params__.frozen  # type: ignore[attr-defined]
