"""Shock, over-fitting, forgetting and relatedness, on histories small enough to work out by hand."""

import math

import pandas as pd
import pytest

from analysis.findings.evidence import Evidence, NotEnoughError
from analysis.findings.mechanisms import (
    final_gap,
    forgetting,
    headline_runs,
    mechanism_sentences,
    overfitting,
    shock,
)
from analysis.findings.relatedness import relatedness


def one_run(**columns) -> pd.DataFrame:
    row = {"run_id": "a", "replay_fraction": 0.0, "stage2_step": 100, "steps": 200, "target_loss": 3.0,
           "generic_loss": 3.6, "target_train_loss": 2.5}  # fmt: skip
    return pd.DataFrame([row | columns])


def history(*rows) -> pd.DataFrame:
    return pd.DataFrame([("a", *row) for row in rows], columns=["run_id", "step", "metric", "value"])


def test_shock_is_the_jump_from_just_before_to_just_after_stage_2_begins():
    seen = history(
        (50, "target_loss", 9.0), (100, "target_loss", 4.0), (105, "target_loss", 4.3), (200, "target_loss", 3.0),
        (100, "generic_loss", 3.5), (105, "generic_loss", 3.9), (200, "generic_loss", 3.6),
        *((step, "gradient_norm", 0.5) for step in range(80, 101)), (101, "gradient_norm", 2.0),
        (150, "gradient_norm", 99.0),
    )  # fmt: skip
    row = shock(one_run(), seen).iloc[0]
    assert row["target_jump"] == pytest.approx(0.3)
    assert row["generic_jump"] == pytest.approx(0.4)
    assert row["gradient_jump"] == pytest.approx(4.0)


def test_an_observation_at_the_end_is_no_shock():
    seen = history((100, "target_loss", 4.0), (200, "target_loss", 3.0))
    with pytest.raises(NotEnoughError):
        shock(one_run(), seen)


def test_runs_without_a_stage_1_have_no_shock():
    seen = history((0, "target_loss", 4.0), (5, "target_loss", 3.9))
    with pytest.raises(NotEnoughError):
        shock(one_run(stage2_step=0), seen)


def test_overfitting_compares_validation_with_recent_train_losses_of_stage_2():
    seen = history(
        (90, "train_target_loss", 9.0), *((step, "train_target_loss", 3.0) for step in range(105, 151, 5)),
        *((step, "train_target_loss", 2.0) for step in range(155, 201, 5)),
        (100, "target_loss", 4.0), (150, "target_loss", 3.4), (200, "target_loss", 3.3),
    )  # fmt: skip
    table = overfitting(one_run(), seen)
    assert table["progress"].tolist() == [0.5, 1.0]
    assert table["gap"].tolist() == pytest.approx([0.4, 1.3])


def test_the_final_gap_and_forgetting_come_from_the_run_table():
    assert final_gap(one_run())["gap"].tolist() == [0.5]
    table = forgetting(one_run(), history((100, "generic_loss", 3.5), (200, "generic_loss", 3.6)))
    assert table["forgotten"].tolist() == pytest.approx([0.1])
    assert forgetting(one_run())["forgotten"].isna().all()


@pytest.mark.parametrize(
    ("function", "table", "words"),
    (
        (shock, one_run(), "no history.parquet"),
        (overfitting, one_run().drop(columns="stage2_step"), "lacks stage2_step"),
        (forgetting, one_run().drop(columns="generic_loss"), "no generic_loss"),
    ),
)
def test_what_a_table_lacks_is_named(function, table, words):
    seen = None if "history" in words else history((100, "target_loss", 4.0))
    with pytest.raises(NotEnoughError, match=words):
        function(table, seen)


def test_missing_values_of_the_history_are_passed_over():
    seen = history((100, "target_loss", 4.0), (104, "target_loss", math.nan), (105, "target_loss", 4.2))
    assert shock(one_run(), seen)["target_jump"].tolist() == pytest.approx([0.2])


def test_each_mechanism_gets_its_sentence(full_evidence):
    found = mechanism_sentences(headline_runs(full_evidence.findings)[0], full_evidence.history)
    assert [sentence.split(":")[0] for sentence in found] == ["Shock", "Over-fitting", "Forgetting"]
    assert "at ρ = 0 and" in found[0]


def test_relatedness_sets_distance_against_worth(full_evidence):
    table = relatedness(full_evidence).set_index("target")
    assert table["divergence"].to_dict() == {"maths": 0.31, "code": 0.45}
    assert table["stage1_loss"].notna().all() and (table["multiplier"] > 1).all()


def test_one_target_has_no_relatedness(small_findings):
    with pytest.raises(NotEnoughError, match="two targets"):
        relatedness(Evidence(small_findings))
