"""Each range is said in the words that it always had, once, and only where it is left; and what contradicts what."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from replay_sweeps.config import RunConfig
from replay_sweeps.config_builder import known_settings
from replay_sweeps.study.checks import check_launcher, check_run, nearest_multiples, unwritable
from tests.study.helpers import type_of, value_of, with_value

RANGES = {
    "must be at least 1": [
        *("workers", "schedule.target_epochs", "trainer.batch_rows", "trainer.micro_batch_rows", "trainer.devices"),
        *("trainer.nodes", "trainer.threads", "trainer.log_every_steps", "target.max_documents"),
        "generic.max_documents",
    ],
    "must be at least 2 tokens": ["trainer.row_length"],
    "must be at least 200": ["target.split_above_characters", "generic.split_above_characters"],
    "must not be negative": [
        *("optimizer.weight_decay", "trainer.save_every_minutes", "trainer.waypoints"),
        *("evaluation.after_stage2_steps", "schedule.stage1.warmup_steps", "schedule.stage2.warmup_steps"),
    ],
    "must be positive": [
        *("schedule.total_tokens", "schedule.target_tokens", "optimizer.epsilon", "optimizer.gradient_clip"),
        *("trainer.peak_tflops", "model.lora_rank", "model.lora_alpha"),
        *("schedule.stage1.peak", "schedule.stage2.peak"),
    ],
    "must be at least 0 and below 1": [
        *("schedule.replay_fraction", "optimizer.beta1", "optimizer.beta2"),
        *("schedule.stage1.warmup_fraction", "schedule.stage2.warmup_fraction"),
    ],
    "must be from 0 to 1": [
        "schedule.stage2_allocation",
        *(f"schedule.{s}.{n}" for s in ("stage1", "stage2") for n in ("final_fraction", "cooldown_fraction")),
    ],
    "must be above 0, to 1": ["schedule.target_fraction", "schedule.target_share", "trainer.utilisation"],
    "must be above 0 and below 1": ["target.validation_fraction", "generic.validation_fraction"],
}
WORDS = {name: words for words, names in RANGES.items() for name in names}


def values(name: str, step: int) -> Iterator[Any]:
    """Values at the ends of a setting's range: just outside of it for a step of 1, just inside for a step of -1."""
    known, kind = known_settings()[name], type_of(name)
    away = step if kind is int else kind(step) / 64
    for end, direction in ((known.minimum, -1), (known.maximum, 1)):
        if end is not None:
            yield kind(end) + direction * away if step > 0 else kind(end)
    for end, direction in ((known.above, -1), (known.below, 1)):
        if end is not None:
            yield kind(end) if step > 0 else kind(end) + direction * away


def changed(run: RunConfig, name: str, value: Any) -> RunConfig:
    found: RunConfig = with_value(run, name, value)
    assert found is not None and value_of(found, name) == value
    return found


def test_every_range_has_the_words_that_it_always_had() -> None:
    said = {name: known.range_text for name, known in known_settings().items() if known.has_range}
    assert said == WORDS


@pytest.mark.parametrize("name", WORDS)
def test_a_value_outside_of_its_range_is_told_once(name: str, fine_tune: RunConfig) -> None:
    assert not list(check_run(fine_tune))
    for value in values(name, 1):
        told = [message for setting, message in check_run(changed(fine_tune, name, value)) if setting == name]
        assert told.count(WORDS[name]) == 1, value


@pytest.mark.parametrize("name", WORDS)
def test_the_ends_of_a_range_are_in_it(name: str, fine_tune: RunConfig) -> None:
    for value in values(name, -1):
        assert (name, WORDS[name]) not in list(check_run(changed(fine_tune, name, value)))


def test_null_is_in_every_range_of_a_setting_that_may_be_null(fine_tune: RunConfig) -> None:
    null = [name for name in WORDS if value_of(fine_tune, name) is None]
    assert {"workers", "model.lora_rank", "schedule.target_tokens", "trainer.peak_tflops"} <= {*null}
    assert not check_run(fine_tune)


def test_all_ranges_that_are_left_are_told_together(fine_tune: RunConfig) -> None:
    run = fine_tune
    wrong = {"schedule.replay_fraction": Fraction(1), "optimizer.beta1": 1.0, "workers": 0, "target.max_documents": 0}
    wrong |= {"schedule.stage2.peak": 0.0, "evaluation.tokens": 31}
    for name, value in wrong.items():
        run = changed(run, name, value)
    told = dict(check_run(run))
    assert wrong.keys() <= told.keys() and told["evaluation.tokens"] == "must be at least one row"


def test_a_wrong_peak_does_not_hide_what_is_wrong_with_the_stages(fine_tune: RunConfig) -> None:
    run = changed(changed(fine_tune, "schedule.stage1.peak", 0.0), "schedule.stage2.warmup_steps", 3)
    told = dict(check_run(run))
    assert told["schedule.stage1.peak"] == "must be positive"
    assert (
        told["schedule.stage2.warmup_steps"] == "give exactly one of warmup_steps and warmup_fraction, the other null"
    )


@pytest.mark.parametrize(
    ("settings", "name", "said"),
    [
        ({"model.heads": 3}, "model.heads", "must divide model.hidden_size=32 into heads of even width"),
        ({"model.key_value_heads": 3}, "model.key_value_heads", "must divide model.heads=2"),
        ({"model.layers": 0}, "model.layers", "must be at least 1 where no model.path is given"),
        ({"model.lora_rank": 2}, "model.lora_rank", "needs a pretrained model to adapt"),
        ({"model.lora_alpha": 2.0}, "model.lora_alpha", "has no effect without model.lora_rank"),
        ({"model.tokenizer.vocab_size": 299}, "model.tokenizer.vocab_size", "must be at least 300"),
        ({"trainer.row_length": 65}, "trainer.row_length", "must be at most the model's 64 positions"),
        ({"trainer.weights": "bf16", "trainer.precision": "fp32"}, "trainer.weights", "are multiplied in bf16"),
        ({"trainer.devices": 3}, "trainer.batch_rows", "must be a multiple of 3, the devices that share it"),
        ({"trainer.micro_batch_rows": 5}, "trainer.micro_batch_rows", "must divide trainer.batch_rows=16; 4 does"),
        ({"schedule.target_tokens": 512}, "schedule.target_tokens", "give exactly one of schedule.target_tokens"),
        ({"schedule.stage1": None}, "schedule.stage1", "needs a learning-rate schedule in mode fine_tune"),
        ({"schedule.mode": "mid_train"}, "schedule.stage2", "must be null: it has no effect in mode mid_train"),
        ({"schedule.total_tokens": None}, "schedule.total_tokens", "needs a number of tokens in mode fine_tune"),
        ({"target.format": "chat"}, "target.format", "conversations are of kind local or hub"),
        ({"generic.prompt_column": "a"}, "generic.prompt_column", "has no effect"),
        ({"budget": "soon"}, "budget", "must be a time such as 90s, 45m, 2h or 1d"),
        ({"plan": "tree.png"}, "plan", "must be one of true, false, json, or a file name that ends in .svg"),
    ],
)
def test_what_contradicts_another_setting_is_told(
    settings: dict[str, Any], name: str, said: str, fine_tune: RunConfig
) -> None:
    run = fine_tune
    for setting, value in settings.items():
        if setting == "schedule.stage1":
            run = replace(run, schedule=replace(run.schedule, stage1=value))
        else:
            run = changed(run, setting, value)
    assert any(setting == name and said in message for setting, message in check_run(run))


@pytest.mark.parametrize(
    ("devices", "nodes", "tasks", "started", "blamed"),
    [
        (1, 1, 1, 1, None),
        (2, 1, 1, 1, None),  # the worker itself starts the second process
        (2, 2, 2, 2, None),
        (2, 1, 2, 1, None),
        (1, 1, 2, 1, "trainer.devices"),
        (2, 2, 1, 1, "trainer.nodes"),
        (2, 2, 2, 1, "trainer.nodes"),
    ],
)
def test_a_launcher_starts_as_many_processes_as_a_model_is_trained_on(
    devices: int, nodes: int, tasks: int, started: int, blamed: str | None, fine_tune: RunConfig
) -> None:
    trainer = replace(fine_tune.trainer, devices=devices, nodes=nodes)
    told = list(check_launcher(trainer, tasks, started))
    assert [name for name, _ in told] == ([blamed] if blamed else [])
    if told:
        assert f"hydra.launcher.nodes={nodes} hydra.launcher.tasks_per_node={devices}" in told[0][1]
        assert f"starts {tasks * started} processes" in told[0][1]


def test_the_nearest_multiples_are_around_a_number() -> None:
    assert [nearest_multiples(value, 32) for value in (1, 100, 1_000)] == ["32", "96 or 128", "992 or 1,024"]


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert unwritable(tmp_path / "new" / "below") is None and not (tmp_path / "new").exists()
    assert unwritable(tmp_path / "file" / "below") == f"{tmp_path / 'file'} is a file; give a folder"
