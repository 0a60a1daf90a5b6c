"""Whole made-up studies with a known answer: what is found, said and warned of."""

import numpy as np
import pandas as pd
import pytest

from analysis import analyse
from analysis.errors import UserError
from analysis.findings.study import Findings, Settings
from analysis.report.answer import all_warnings, answer, percent_text, tokens_text
from analysis.runs import checked_runs
from analysis.simulate import Truth, simulate_runs
from tests.analysis.helpers import full_study, warning_codes


def found(runs: pd.DataFrame, **settings) -> Findings:
    return analyse(checked_runs(runs, "table"), Settings(**{"n_resamples": 1000, **settings}))


@pytest.mark.parametrize("gain", (1.3, 2.0, 3.0))
def test_the_truth_of_a_made_up_study_is_found(gain):
    runs = simulate_runs(Truth(gain=gain), replay_tokens=(8192,), seeds=3, seed=11)
    headline = found(runs).groups[0].headline
    assert headline.row["replay_fraction"] == 0.75
    assert headline.row["target_epochs"] == 8
    assert headline.multiplier.low < gain < headline.multiplier.high
    assert headline.multiplier.value == pytest.approx(gain, rel=0.1)


def test_the_answer_is_one_plain_sentence():
    text = answer(found(simulate_runs(replay_tokens=(8192,), seeds=3, seed=11)))
    assert text.startswith("On 8.19 thousand target tokens, replaying 75 % is worth ")
    assert "(90 %: " in text and "keep ρ " in text and text.count(".") >= 1


def test_a_study_without_gain_says_so():
    runs = simulate_runs(Truth(gain=0.6), replay_tokens=(8192,), seeds=3, seed=2)
    assert "no replay fraction that was tried beats training without replay" in answer(found(runs))


def test_a_gain_within_the_noise_is_not_claimed():
    runs = simulate_runs(
        Truth(gain=1.03, noise=0.02), replay_tokens=(8192,), replay_fractions=(0, 0.75), seeds=1, seed=5
    )
    text = answer(found(runs))
    assert "cannot tell it from no gain" in text or "no replay fraction" in text


def test_an_untuned_baseline_is_called_so():
    result = found(simulate_runs(replay_tokens=(8192,), epochs=(16,), seeds=2))
    assert "untuned" in warning_codes(all_warnings(result))
    assert "against an untuned baseline" in answer(result)


def test_a_baseline_at_the_edge_is_warned_of():
    result = found(simulate_runs(replay_tokens=(8192,), epochs=(8, 16), seeds=2))
    edge = [w for w in all_warnings(result) if w.startswith("edge:")]
    assert edge and "target_epochs 8 is the smallest tried" in edge[0]


def test_a_best_replay_at_the_largest_tried_is_warned_of():
    result = found(simulate_runs(replay_tokens=(8192,), replay_fractions=(0, 0.25, 0.5), seeds=2))
    assert "edge_replay" in warning_codes(all_warnings(result))


def test_a_candidate_beyond_the_curve_gives_a_bound_in_the_answer():
    runs = simulate_runs(Truth(gain=4), target_tokens=(4096, 8192, 16384), replay_tokens=(8192,), seeds=2)
    assert "at least 2.0× the target data (beyond the reference points; extrapolated: " in answer(found(runs))


def test_failed_pending_and_diverged_runs_are_left_out_and_counted():
    runs = simulate_runs(replay_tokens=(8192,), seeds=2)
    runs.loc[0, ["status", "target_loss"]] = ["failed", np.nan]
    runs.loc[1, ["status", "target_loss"]] = ["pending", np.nan]
    runs.loc[2, "target_loss"] = np.nan
    result = found(runs)
    assert len(result.done) == len(runs) - 3
    assert {"incomplete", "diverged"} <= warning_codes(result.warnings)


def test_the_order_of_rows_is_irrelevant():
    runs = simulate_runs(replay_tokens=(8192,), seeds=2)
    shuffled = runs.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(found(runs).multipliers, found(shuffled).multipliers)


def test_another_unit_of_loss_noise_keeps_its_meaning_under_a_shift():
    runs = simulate_runs(replay_tokens=(8192,), seeds=2)
    shifted = runs.assign(target_loss=runs["target_loss"] + 1, target_loss_selection=runs["target_loss_selection"] + 1)
    one, other = (found(r, form="log").multipliers["multiplier"] for r in (runs, shifted))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_mixed_studies_are_refused_by_name():
    runs = pd.concat([simulate_runs(seeds=1), simulate_runs(seeds=1, seed=9).assign(study="other")], ignore_index=True)
    runs["run_id"] = range(len(runs))
    with pytest.raises(UserError, match="made_up, other"):
        found(runs)


def test_nothing_done_is_refused():
    with pytest.raises(UserError, match="nothing to analyse"):
        found(simulate_runs(seeds=1).assign(status="pending"))


def test_targets_models_and_modes_are_kept_apart():
    result = found(full_study())
    assert {(g.label["target"], g.label["model"]) for g in result.groups} == {
        ("maths", "1m"), ("maths", "4m"), ("code", "1m"),
    }  # fmt: skip
    assert all(group.headline is not None for group in result.groups)


def test_a_mode_without_a_curve_borrows_one_and_says_so():
    curve = simulate_runs(replay_tokens=(), seeds=2)
    fine_tuned = simulate_runs(target_tokens=(8192,), seeds=2, mode="fine_tune")
    runs = pd.concat([curve, fine_tuned], ignore_index=True)
    runs["run_id"] = range(len(runs))
    group = next(g for g in found(runs).groups if g.label["mode"] == "fine_tune")
    assert "borrowed_curve" in warning_codes(group.warnings)
    assert group.headline.multiplier.value == pytest.approx(2.0, rel=0.2)


def test_one_target_size_gives_losses_but_no_multiplier():
    result = found(simulate_runs(target_tokens=(8192,), seeds=2))
    text = answer(result)
    assert "lowers the target loss by" in text and "at least two target sizes" in text
    assert len(result.multipliers) == 4 and "multiplier" not in result.multipliers


def test_a_table_without_any_baseline_says_what_it_lacks():
    runs = simulate_runs(seeds=1)
    text = answer(found(runs[runs["replay_fraction"] > 0]))
    assert text.startswith("What replay is worth cannot be said: there is no run without replay")


def test_early_target_data_is_a_candidate_too():
    result = found(simulate_runs(Truth(gain=2), replay_tokens=(8192,), allocations=(1.0, 0.5), seeds=2))
    row = result.groups[0].headline.row
    assert row["stage2_allocation"] == 0.5
    assert "with 50 % of the target data in stage 1" in answer(result)
    plain = result.multipliers.query("replay_fraction == 0")
    assert (plain["stage2_allocation"] == 0.5).all() and len(plain) == 5


def test_the_headline_size_is_chosen_by_what_was_tried_not_by_what_was_found():
    small = simulate_runs(Truth(gain=5), target_tokens=(4096, 8192, 16384, 32768), replay_tokens=(4096,),
                          replay_fractions=(0, 0.75), seeds=2)  # fmt: skip
    large = simulate_runs(Truth(gain=1.2), target_tokens=(16384,), replay_fractions=(0.25, 0.5, 0.75), seeds=2, seed=1)
    runs = pd.concat([small, large], ignore_index=True)
    runs["run_id"] = range(len(runs))
    assert found(runs).groups[0].headline.row["target_tokens"] == 16384


def test_differing_seeds_are_paired_and_said():
    runs = simulate_runs(Truth(seed_effect=0.2), replay_tokens=(8192,), seeds=2, seed=8)
    runs = runs[(runs["order_seed"] == 0) | (runs["target_tokens"] == 8192)]
    result = found(runs)
    assert "seeds_differ" in warning_codes(all_warnings(result))
    assert result.groups[0].headline.multiplier.value == pytest.approx(2.0, rel=0.15)


def test_many_rows_with_equal_settings_are_averaged():
    runs = simulate_runs(replay_tokens=(8192,), seeds=1)
    many = runs.loc[np.repeat(runs.index, -(-100_000 // len(runs)))].drop(columns="run_id")
    many["target_loss"] += 0.01 * np.random.default_rng(0).standard_normal(len(many))
    group = found(many).groups[0]
    assert group.headline.multiplier.value == pytest.approx(2.0, rel=0.1)
    assert len(group.cells) == 9 and group.cells["runs"].min() > 2000


def test_measured_instead_of_set_axes_are_refused():
    runs = pd.DataFrame({"target_tokens": np.arange(1, 30_001), "replay_fraction": 0.0, "target_loss": 3.0})
    with pytest.raises(UserError, match="measured rather than set"):
        found(runs)


def test_quantities_are_shown_in_words():
    assert [tokens_text(v) for v in (16, 4096, 16384, 4e6, 2e9)] == [
        "16", "4.1 thousand", "16.4 thousand", "4 million", "2 billion",
    ]  # fmt: skip
    assert [percent_text(v) for v in (0.75, 0.875, 1 / 9)] == ["75 %", "87.5 %", "11.1 %"]


def test_repeats_at_one_size_only_are_pooled_with_the_scatter_of_the_curve():
    runs = simulate_runs(Truth(seed_effect=0.0), replay_tokens=(8192,), seeds=4, seed=8)
    some = found(runs[(runs["order_seed"] == 0) | (runs["target_tokens"] == 8192)]).groups[0].curve.noise
    everywhere = found(runs).groups[0].curve.noise
    assert "scatter" in some.source and "scatter" not in everywhere.source
