"""What is recommended, and what would settle it where the runs cannot tell."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import analyse
from analysis.curves.noise import Noise
from analysis.findings.evidence import Evidence
from analysis.findings.recommendation import Recommendation, seeds_needed
from analysis.findings.study import Findings, Settings
from analysis.main import main
from analysis.report.answer import answer, recommendation_text
from analysis.report.figures.question import loss_against_replay
from analysis.simulate import Truth, simulate_runs
from tests.analysis.helpers import write_study


def found(runs: pd.DataFrame, n_resamples: int = 1000) -> Findings:
    return analyse(runs, Settings(n_resamples=n_resamples))


def advice(runs: pd.DataFrame, n_resamples: int = 1000) -> tuple[Recommendation, str]:
    findings = found(runs, n_resamples)
    group = findings.groups[0]
    assert group.recommendation is not None
    return group.recommendation, recommendation_text(group)


def test_a_real_gain_is_recommended_with_its_replay_fraction_and_epochs():
    result, text = advice(simulate_runs(replay_tokens=(8192,), seeds=3, seed=11))
    assert (result.verdict, result.replay_fraction, result.target_epochs) == ("replay", 0.75, 8)
    truth = Truth()
    gain = truth.loss(8192, 8, 0) - truth.loss(8192, 8, 0.75)
    assert result.gain_low < gain < result.gain_high and result.gain_low > 0
    assert text.startswith("Recommendation: replay 75 %, 8 epochs: target loss 3.5") and "instead of 3.6" in text
    assert "generic loss with replay" in text and "What would" not in text


def test_where_replay_harms_it_is_advised_against():
    result, text = advice(simulate_runs(Truth(gain=0.6), replay_tokens=(8192,), seeds=3, seed=2))
    assert (result.verdict, result.replay_fraction, result.target_epochs) == ("no_replay", 0, 8)
    assert result.gain_high < 0 and "do not replay, 8 epochs" in text


def test_a_gain_within_the_noise_is_not_recommended_and_seeds_would_settle_it():
    runs = simulate_runs(
        Truth(gain=1.03, noise=0.02), replay_tokens=(8192,), replay_fractions=(0, 0.75), seeds=1, seed=5
    )
    result, text = advice(runs)
    assert result.verdict == "undecided" and result.gain_low < 0 < result.gain_high
    assert "these runs cannot tell whether to replay" in text
    assert "more seeds at ρ = 0 and ρ = 0.75 (schedule.order_seed" in result.settle[0]


def test_the_answer_keeps_a_range_of_fractions_only_where_replay_is_advised():
    seen = set()
    for seed in range(12):
        findings = found(simulate_runs(Truth(gain=1.2, noise=0.015), replay_tokens=(8192,), seeds=2, seed=seed))
        result = findings.groups[0].recommendation
        assert result is not None
        assert ("keep ρ" in answer(findings)) == (result.verdict == "replay")
        seen.add(result.verdict)
    assert seen == {"replay", "undecided"}


@pytest.mark.slow
def test_as_many_seeds_as_advised_do_settle_it():
    truth, settled, tries = Truth(gain=1.25, noise=0.02, seed_effect=0.0), 0, 0
    for seed in range(40):
        grid = {"replay_tokens": (8192,), "replay_fractions": (0, 0.75), "epochs": (8,), "seed": seed}
        result, _ = advice(simulate_runs(truth, seeds=2, **grid), n_resamples=200)
        if result.verdict != "undecided" or not result.settle[0].startswith("about "):
            continue
        more = int(result.settle[0].split()[1])
        after, _ = advice(simulate_runs(truth, seeds=2 + more, **{**grid, "seed": 1000 + seed}), n_resamples=200)
        tries, settled = tries + 1, settled + (after.verdict == "replay")
    assert tries >= 5 and settled >= tries / 3  # the gain and the noise that the advice rests on are themselves guesses


def test_the_noise_decides_how_many_seeds_it_takes():
    quiet, loud = Noise(0.01, 4, "made up"), Noise(0.05, 4, "made up")
    assert seeds_needed(0.1, quiet, 1, 1, 0.9) == 1
    needed = seeds_needed(0.05, loud, 2, 2, 0.9)
    assert needed is not None and needed > 1
    assert Noise(0.05, 4 + needed, "").half_width(0.9, 2 + needed, 2 + needed) < 0.05
    assert Noise(0.05, 3 + needed, "").half_width(0.9, 1 + needed, 1 + needed) >= 0.05
    assert seeds_needed(0.001, loud, 2, 2, 0.9) is None


def test_a_single_seed_and_size_ask_for_a_second_seed_and_smaller_sizes():
    runs = simulate_runs(target_tokens=(8192,), replay_fractions=(0, 0.5), seeds=1)
    result, text = advice(runs)
    assert result.verdict == "undecided" and np.isinf(result.gain_high)
    assert result.settle[0].startswith("a second seed at ρ = 0 and ρ = 0.5") and "nothing tells the noise" in text
    assert any("smaller target sizes" in line for line in result.settle)
    assert result.epochs_range == (4, 16) and result.replay_range == (0, 0.5)


def test_one_size_is_enough_to_recommend_where_seeds_tell_the_noise():
    result, _ = advice(simulate_runs(target_tokens=(8192,), replay_fractions=(0, 0.5), seeds=3))
    assert result.verdict == "replay"
    assert any("smaller target sizes" in line for line in result.settle)


def test_what_cannot_be_told_from_the_best_is_a_range():
    flat = Truth(tuning=0.0, noise=0.02)
    result, text = advice(simulate_runs(flat, replay_tokens=(8192,), replay_fractions=(0, 0.7, 0.75), seeds=2, seed=3))
    low, high = result.epochs_range
    assert result.verdict == "replay" and low < high
    assert f"{low:g} to {high:g} cannot be told from it" in text
    assert result.replay_range == (0.7, 0.75)


def test_halves_of_the_validation_set_that_contradict_each_other_decide_nothing():
    runs = simulate_runs(Truth(gain=1.2, noise=0.001), replay_tokens=(8192,), seeds=3, seed=4)
    runs.loc[runs.replay_fraction > 0, "target_loss_selection"] += 0.3
    result, _ = advice(runs)
    assert result.verdict == "undecided"
    assert any(line.startswith("more validation text (evaluation.tokens") for line in result.settle)


def test_a_best_on_the_edge_asks_for_a_wider_grid():
    result, _ = advice(simulate_runs(replay_tokens=(8192,), replay_fractions=(0, 0.5), epochs=(2, 4), seeds=2))
    assert any(line.startswith("target_epochs above 4") for line in result.settle)
    assert any(line.startswith("larger replay fractions than 0.5") for line in result.settle)


def test_without_a_baseline_nothing_is_recommended():
    findings = found(simulate_runs(replay_fractions=(0.25, 0.5), seeds=1))
    group = findings.groups[0]
    assert group.recommendation is None
    assert recommendation_text(group).startswith("Recommendation: none. What replay is worth cannot be said")


def test_the_figure_marks_what_is_recommended():
    findings = found(simulate_runs(replay_tokens=(8192,), seeds=2, seed=11))
    axis = loss_against_replay(Evidence(findings)).figure.axes[0]
    assert "use ρ = 0.75, E = 8" in axis.get_legend_handles_labels()[1]
    assert axis.containers  # the bars


def test_the_recommendation_is_printed_reported_and_written(tmp_path, capsys, no_figures):
    folder = write_study(
        tmp_path / "study",
        simulate_runs(replay_tokens=(8192,), seeds=3, seed=11),
        {"budget": {"budget": "2h", "left_out": ["ρ = 0.9 (4 runs)"]}},
    )
    assert main([str(folder), "--replicates", "500"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1].startswith("Recommendation: replay 75 %, 8 epochs")
    assert "warning: budget: of the study's grid, what did not fit into 2h: ρ = 0.9 (4 runs)" in said
    [entry] = json.loads((folder / "recommendation.json").read_text())
    assert (entry["verdict"], entry["replay_fraction"], entry["target_epochs"]) == ("replay", 0.75, 8.0)
    for name in ("report.html", "report.md"):
        assert "Recommendation: replay 75" in (folder / name).read_text()


@pytest.mark.parametrize("seeds", (1, 2))
def test_infinite_values_are_null_in_the_file(tmp_path, seeds, no_figures):
    folder = write_study(
        tmp_path / "s", simulate_runs(target_tokens=(8192,), replay_fractions=(0, 0.5), epochs=(8,), seeds=seeds)
    )
    assert main([str(folder), "--replicates", "500"]) == 0
    [entry] = json.loads((folder / "recommendation.json").read_text())
    assert (entry["gain_low"] is None) == (seeds == 1)
