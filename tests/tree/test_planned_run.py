"""What a planned run is observed on: each loss on the part of the text that is meant for it."""

import pytest

from replay_sweeps.data.prepared_text import TextFingerprints
from replay_sweeps.tree.planned_run import plan_run
from tests.fixtures.tiny_training import NUMERICS, VOCABULARY, tiny_config


@pytest.mark.parametrize(
    ("metric", "store"),
    [
        ("target_loss", "target report"),  # what is told
        ("target_loss_selection", "target selection"),  # what settings are chosen by
        ("generic_loss", "generic report"),
    ],
)
def test_settings_are_chosen_on_one_part_of_the_text_and_told_on_another(metric: str, store: str) -> None:
    target, generic = (
        TextFingerprints(*(f"{text} {part}" for part in ("train", "selection", "report")))
        for text in ("target", "generic")
    )
    run = plan_run(tiny_config(False), target, generic, "root", NUMERICS, VOCABULARY)
    assert {item.store for item in run.observations if item.metric == metric} == {store}
    assert (run.steps, metric) in {(item.step, item.metric) for item in run.observations}
    assert (run.target_store, run.generic_store) == ("target train", "generic train")
