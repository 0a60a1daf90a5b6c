"""Settings are tuned per cell, seeds are averaged, and cells are compared on the seeds that they share."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.findings.seeds import seed_means
from analysis.findings.tuning import Edge, completed_runs, edges_text, tuned_runs
from analysis.runs import checked_runs
from analysis.simulate import simulate_runs
from tests.analysis.helpers import warning_codes


def tuned(rows: list[dict[str, object]], **options):
    base = {"target_tokens": 4096, "replay_fraction": 0.0, "order_seed": 0}
    return tuned_runs(completed_runs(checked_runs(pd.DataFrame([base | row for row in rows]), "table")), **options)


def test_the_best_setting_is_chosen_on_the_selection_half_and_reported_on_the_other():
    result = tuned(
        [
            {"target_epochs": 4, "target_loss_selection": 3.6, "target_loss": 3.5},
            {"target_epochs": 8, "target_loss_selection": 3.5, "target_loss": 3.7},
            {"target_epochs": 16, "target_loss_selection": 3.8, "target_loss": 3.9},
        ]
    )
    assert result.cells["target_epochs"].tolist() == [8]
    assert result.runs["target_loss"].tolist() == [3.7]
    assert not result.warnings


def test_seeds_are_averaged_never_minimised_over():
    lucky = [{"target_epochs": 4, "order_seed": s, "target_loss": v} for s, v in enumerate((3.0, 4.0))]
    steady = [{"target_epochs": 8, "order_seed": s, "target_loss": 3.4} for s in range(2)]
    result = tuned(lucky + steady)
    assert result.cells["target_epochs"].tolist() == [8]
    assert len(result.runs) == 2


def test_without_a_selection_half_the_choice_is_said_to_flatter():
    result = tuned([{"target_epochs": e, "target_loss": 3.5 + e / 100} for e in (4, 8)])
    assert "choice_on_reported_loss" in warning_codes(result.warnings)


@pytest.mark.parametrize(
    ("losses", "edges", "words"),
    (
        ((3.4, 3.5, 3.6), (Edge("target_epochs", 4, "smallest"),), "target_epochs 4 is the smallest tried"),
        ((3.6, 3.5, 3.4), (Edge("target_epochs", 16, "largest"),), "target_epochs 16 is the largest tried"),
        ((3.5, 3.4, 3.5), (), ""),
    ),
)
def test_a_best_at_the_edge_of_what_was_tried_is_named(losses, edges, words):
    result = tuned([{"target_epochs": e, "target_loss": v} for e, v in zip((4, 8, 16), losses, strict=True)])
    assert result.cells["edges"].tolist() == [edges]
    assert edges_text(edges) == words


def test_one_epoch_and_no_weight_decay_are_natural_ends():
    result = tuned(
        [{"target_epochs": e, "weight_decay": w, "target_loss": 3 + e + w} for e in (1, 2) for w in (0.0, 0.1)]
    )
    assert result.cells["edges"].tolist() == [()]


def test_a_nuisance_column_can_be_made_an_axis():
    rows = [{"weight_decay": w, "target_epochs": e, "target_loss": 3 + w + e / 100} for w in (0.0, 0.1) for e in (4, 8)]
    assert len(tuned(rows).cells) == 1
    by_decay = tuned(rows, axes_from_nuisance=("weight_decay",))
    assert by_decay.cells["weight_decay"].tolist() == [0.0, 0.1]


def test_total_tokens_is_no_axis_where_training_starts_from_a_given_model():
    rows = [
        {"mode": "from_pretrained", "target_epochs": e, "total_tokens": 4096 * e, "target_loss": 3 + e / 100}
        for e in (4, 8)
    ]
    assert len(tuned(rows).cells) == 1
    assert len(tuned([row | {"mode": "mid_train"} for row in rows]).cells) == 2


def test_settings_are_compared_on_the_seeds_that_they_share():
    rows = [{"target_epochs": 4, "order_seed": s, "target_loss": v} for s, v in ((0, 3.50), (1, 3.90))]
    rows += [{"target_epochs": 8, "order_seed": 0, "target_loss": 3.55}]
    assert tuned(rows).cells["target_epochs"].tolist() == [4]


def test_missing_nuisance_values_are_one_setting():
    assert len(tuned([{"target_epochs": np.nan, "target_loss": 3.5, "order_seed": s} for s in range(2)]).runs) == 2


@given(seed=st.integers(0, 10_000), groups=st.integers(2, 6), seeds=st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_seed_means_of_a_full_design_are_plain_means(seed, groups, seeds):
    rng = np.random.default_rng(seed)
    group, label = np.repeat(np.arange(groups), seeds), np.tile(np.arange(seeds), groups)
    loss = rng.normal(3, 1, groups * seeds)
    result = seed_means(group, label, loss)
    np.testing.assert_allclose(result.means, loss.reshape(groups, seeds).mean(axis=1))
    assert not result.corrected and result.noise is not None and result.noise.dof == (groups - 1) * (seeds - 1)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_a_missing_seed_does_not_bend_differences_of_groups(seed):
    rng = np.random.default_rng(seed)
    level, effect = rng.normal(3, 1, 4), rng.normal(0, 1, 3)
    present = np.array([(g, s) for g in range(4) for s in range(3) if (g, s) not in ((1, 2), (3, 0), (3, 1))])
    loss = level[present[:, 0]] + effect[present[:, 1]]
    result = seed_means(present[:, 0], present[:, 1], loss)
    np.testing.assert_allclose(np.diff(result.means), np.diff(level), atol=1e-9)
    assert result.corrected and result.noise is not None and result.noise.sigma < 1e-7
    assert np.average(result.means, weights=result.counts) == pytest.approx(loss.mean())


def test_groups_without_a_common_seed_keep_plain_means_and_say_so():
    result = seed_means(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), np.array([1.0, 3.0, 5.0, 5.0]))
    assert result.means.tolist() == [2.0, 5.0] and not result.connected


def test_noise_comes_from_repeats_near_the_best_not_from_diverging_settings():
    steady = [{"target_epochs": e, "order_seed": s, "target_loss": 3.5 + 0.001 * s} for e in (4, 8) for s in range(2)]
    wild = [{"target_epochs": 64, "order_seed": s, "target_loss": 5.0 + s} for s in range(2)]
    assert set(tuned(steady + wild).near_best["target_epochs"]) == {4, 8}


def test_a_seed_effect_common_to_all_groups_is_no_noise():
    runs = completed_runs(checked_runs(simulate_runs(seeds=3, seed=4), "table"))
    runs = runs[runs["target_epochs"] == 8]
    key = runs.groupby(["target_tokens", "replay_fraction"]).ngroup()
    result = seed_means(key, runs["seeds"], runs["target_loss"].to_numpy())
    assert result.noise is not None and result.noise.sigma == pytest.approx(0.0054, rel=0.3)
