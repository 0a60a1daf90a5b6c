"""What must hold in a run's configuration beyond its types: ranges, what fits, what contradicts what."""

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replay_sweeps.config import ModelConfig, RateConfig, RunConfig, ScheduleConfig, TrainerConfig
from replay_sweeps.config_builder import known_settings
from replay_sweeps.models.numerics import why_not_fused
from replay_sweeps.models.pretrained_checks import why_logits_needed
from replay_sweeps.schedule.data_schedule import misfit
from replay_sweeps.schedule.run_schedule import target_tokens
from replay_sweeps.setting import Setting

Problem = tuple[str, str]  # the dotted name of a setting, and what is wrong with its value


def check_run(run: RunConfig) -> list[Problem]:
    """Everything that is wrong with the configuration of one run; needs no text, no torch and no network."""
    problems = [*_plan(run), *_ranges(run), *_sources(run), *_model(run.model), *_trainer(run)]
    # what a schedule lacks is told from its own values; those of a stage's learning rate may be wrong besides
    if not any(name.startswith("schedule.") and name.count(".") == 1 for name, _ in problems):
        problems += _schedule_shape(run.schedule, run.model)
    counted = ("schedule.", "trainer.row_length", "trainer.batch_rows")
    if not any(name.startswith(counted) for name, _ in problems):
        problems += check_counts(run)
    return problems


def check_launcher(trainer: TrainerConfig, tasks_per_node: int, nodes: int) -> Iterator[Problem]:
    """Whether a launcher that starts so many tasks for a worker suits the devices that one model is trained on."""
    started = (tasks_per_node, nodes)
    if started != (trainer.devices, trainer.nodes) and (trainer.nodes > 1 or started != (1, 1)):
        yield (
            "trainer.nodes" if trainer.nodes > 1 else "trainer.devices",
            f"needs hydra/launcher=submitit_slurm hydra.launcher.nodes={trainer.nodes} "
            f"hydra.launcher.tasks_per_node={trainer.devices}: the launcher starts {tasks_per_node * nodes} processes",
        )


def nearest_multiples(value: int, unit: int) -> str:
    """The multiples of `unit` around `value`, as words."""
    below = value // unit * unit
    return f"{below:,} or {below + unit:,}" if below else f"{unit:,}"


def budget_seconds(budget: str) -> float | None:
    """The seconds of a budget such as 90s, 45m, 2h or 1d, or None for another text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", budget)
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else None


def _plan(run: RunConfig) -> Iterator[Problem]:
    if run.budget is not None and not budget_seconds(run.budget):
        yield "budget", "must be a time such as 90s, 45m, 2h or 1d"
    if run.plan not in ("true", "false", "json") and not run.plan.endswith(".svg"):
        yield "plan", "must be one of true, false, json, or a file name that ends in .svg"


@functools.cache
def _ranges_by_group() -> dict[str, list[tuple[str, Setting]]]:
    """The settings that have a range, by the prefix of their group: the name there, and what it says of itself."""
    found: dict[str, list[tuple[str, Setting]]] = {}
    for name, setting in known_settings().items():
        if setting.has_range:
            prefix, dot, last = name.rpartition(".")
            found.setdefault(prefix + dot, []).append((last, setting))
    return found


def _ranges(run: RunConfig) -> Iterator[Problem]:
    for prefix, settings in _ranges_by_group().items():
        group: Any = run
        for part in prefix.split(".")[:-1]:
            group = getattr(group, part)
        if group is None:  # a stage without a learning-rate schedule
            continue
        for name, setting in settings:
            value = getattr(group, name)
            if value is not None and not setting.allows(value):
                yield prefix + name, setting.range_text
    if run.evaluation.tokens < run.trainer.row_length:
        yield "evaluation.tokens", "must be at least one row"


def _sources(run: RunConfig) -> Iterator[Problem]:
    for role, source in (("target", run.target), ("generic", run.generic)):
        if source.format == "chat" and source.kind not in ("local", "hub"):
            yield (
                f"{role}.format",
                f"must be text for {role}.kind={source.kind}; conversations are of kind local or hub",
            )
        if source.format == "text" and (source.prompt_column or source.response_column):
            yield f"{role}.prompt_column", f"has no effect; prompts and responses need {role}.format=chat"
        elif (source.prompt_column is None) != (source.response_column is None):
            yield f"{role}.prompt_column", f"give both {role}.prompt_column and {role}.response_column, or neither"


def _model(model: ModelConfig) -> Iterator[Problem]:
    if model.lora_rank is None and model.lora_alpha is not None:
        yield "model.lora_alpha", "has no effect without model.lora_rank"
    if model.path is not None:
        return
    if model.lora_rank is not None:
        yield "model.lora_rank", "needs a pretrained model to adapt: model=pretrained model.path=FOLDER"
    for name in ("hidden_size", "layers", "heads", "key_value_heads", "mlp_size"):
        if getattr(model, name) < 1:
            yield f"model.{name}", "must be at least 1 where no model.path is given"
            return
    if model.hidden_size % model.heads or model.hidden_size // model.heads % 2:
        yield "model.heads", f"must divide model.hidden_size={model.hidden_size} into heads of even width"
    if model.heads % model.key_value_heads:
        yield "model.key_value_heads", f"must divide model.heads={model.heads}"
    if model.tokenizer.path == "bpe" and (model.tokenizer.vocab_size or 0) < 300:
        yield "model.tokenizer.vocab_size", "must be at least 300 for a byte-level tokenizer"


def _trainer(run: RunConfig) -> Iterator[Problem]:
    trainer: TrainerConfig = run.trainer
    if trainer.row_length > run.model.max_positions:
        yield "trainer.row_length", f"must be at most the model's {run.model.max_positions:,} positions"
    if trainer.weights == "bf16" and trainer.precision == "fp32":
        yield "trainer.weights", "bf16 weights are multiplied in bf16: trainer.precision must be auto or bf16"
    if trainer.fused_loss == "true":
        lacking = why_not_fused() or ("needs a CUDA device" if trainer.accelerator == "cpu" else None)
        lacking = lacking or why_logits_needed(run.model)
        if lacking is not None:
            yield "trainer.fused_loss", lacking
    if trainer.devices < 1 or trainer.nodes < 1:
        return
    world = trainer.world_size
    if trainer.batch_rows % world:
        near = nearest_multiples(trainer.batch_rows, world)
        yield "trainer.batch_rows", f"must be a multiple of {world}, the devices that share it; the nearest are {near}"
        return
    micro, share = trainer.micro_batch_rows, trainer.batch_rows // world
    if micro and share % micro:
        divisors = [rows for rows in range(1, share + 1) if share % rows == 0]
        near = str(min(divisors, key=lambda rows: abs(rows - micro)))
        each = f", of which each of {world} devices computes {share}" if world > 1 else ""
        yield "trainer.micro_batch_rows", f"must divide trainer.batch_rows={trainer.batch_rows}{each}; {near} does"


def _schedule_shape(schedule: ScheduleConfig, model: ModelConfig) -> Iterator[Problem]:
    mode = schedule.mode
    if schedule.stage2_allocation == 0 and schedule.replay_fraction > 0:
        yield (
            "schedule.replay_fraction",
            "must be 0 where stage2_allocation is 0: without a stage 2 nothing is replayed",
        )
    if mode == "from_pretrained":
        if model.path is None and not model.new_weights:
            yield (
                "model.path",
                "needs a model to start from in mode from_pretrained: model=pretrained model.path=FOLDER",
            )
        if schedule.stage2_allocation != 1:
            yield "schedule.stage2_allocation", "must be 1 in mode from_pretrained: there is no stage 1"
        if schedule.total_tokens is not None:
            yield "schedule.total_tokens", "must be null in mode from_pretrained: T = N·E/(1-replay_fraction)"
        if schedule.target_fraction is not None:
            yield (
                "schedule.target_fraction",
                "must be null in mode from_pretrained, which has no T to take it of: give schedule.target_tokens or "
                "schedule.target_share",
            )
    elif schedule.total_tokens is None:
        yield "schedule.total_tokens", f"needs a number of tokens in mode {mode}"
    if sum(size is not None for size in (schedule.target_tokens, schedule.target_fraction, schedule.target_share)) != 1:
        yield (
            "schedule.target_tokens",
            "give exactly one of schedule.target_tokens, schedule.target_fraction and schedule.target_share",
        )
    for name, modes in (("stage1", ("mid_train", "fine_tune")), ("stage2", ("fine_tune", "from_pretrained"))):
        rate: RateConfig | None = getattr(schedule, name)
        if (rate is not None) != (mode in modes):
            wanted = "needs a learning-rate schedule" if mode in modes else "must be null: it has no effect"
            yield f"schedule.{name}", f"{wanted} in mode {mode}"
        elif rate is not None:
            yield from _rate(rate, f"schedule.{name}")


def _rate(rate: RateConfig, name: str) -> Iterator[Problem]:
    if (rate.warmup_steps is None) == (rate.warmup_fraction is None):
        yield f"{name}.warmup_steps", "give exactly one of warmup_steps and warmup_fraction, the other null"


def check_counts(run: RunConfig) -> Iterator[Problem]:
    """What is wrong with a run's numbers of tokens; an N that is a share of a text is looked at once it is counted."""
    schedule, trainer = run.schedule, run.trainer
    row, step = trainer.row_length, trainer.tokens_per_step
    total = schedule.total_tokens
    if total is not None and total % step:
        yield "schedule.total_tokens", f"must be whole steps of {step:,} tokens: {nearest_multiples(total, step)}"
        return
    if schedule.target_tokens is None and schedule.target_fraction is None:
        return
    tokens = target_tokens(schedule)
    if tokens % row:
        fraction = f" (N = {float(tokens):,.1f})" if schedule.target_fraction else ""
        near = nearest_multiples(int(tokens), row)
        yield (
            "schedule.target_fraction" if schedule.target_fraction else "schedule.target_tokens",
            f"must make N whole rows of {row:,} tokens{fraction}: the nearest N are {near}",
        )
        return
    if total is None:
        return
    rho = schedule.replay_fraction
    wrong = misfit(total // row, int(tokens) // row, schedule.target_epochs, rho, schedule.stage2_allocation)
    if wrong:
        fits = [
            f"N ≤ {wrong.largest_target_rows * row:,}" if wrong.largest_target_rows else "",
            f"E ≤ {wrong.largest_epochs}" if wrong.largest_epochs else "",
            f"ρ ≤ {float(wrong.largest_replay_fraction):.4g}" if wrong.largest_replay_fraction is not None else "",
        ]
        yield (
            "schedule.replay_fraction",
            f"the cell N={int(tokens):,}, E={schedule.target_epochs}, ρ={float(rho):.4g}, "
            f"α={float(schedule.stage2_allocation):.4g} does not fit: it needs {wrong.needed_rows * row:,} tokens of "
            f"T={total:,}, {(wrong.needed_rows - wrong.total_rows) * row:,} too many; would fit: "
            + (" or ".join(filter(None, fits)) or "a larger T"),
        )


def unwritable(folder: Path) -> str | None:
    """Why nothing could be written into `folder` (made if it is not there), or None; makes nothing."""
    if "${" in str(folder.absolute()):
        return "a folder with ${ in its name cannot be used: Hydra would replace it"
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is a file; give a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} cannot be written; give a folder that can"
    return None
