"""The typed schema of a run's configuration: names, types, units and checks. Values live in `conf/`."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Mode = Literal["mid_train", "fine_tune", "from_pretrained"]
Precision = Literal["auto", "fp32", "bf16"]
SourceKind = Literal[
    "hub",
    "local",
    "installed_documentation",
    "installed_documentation_without_standard_library",
    "sympy",
    "standard_library",
]


@dataclass(frozen=True)
class SourceConfig:
    """Where a text comes from; one document is one training document."""

    name: str
    kind: SourceKind
    path: str | None = None  # local: a file or folder; hub: the data set's id
    subset: str | None = None  # hub: the data set's configuration
    split: str = "train"
    revision: str | None = None  # hub: a branch, tag or commit
    text_column: str = "text"
    max_documents: int | None = None
    validation_fraction: float = 0.05  # share of documents held out, chosen by a hash of their text
    split_above_characters: int = 20_000  # longer documents are cut at paragraphs before anything else happens
    repeat: bool = False  # generic text only: rows may be seen more than once when there are too few
    order_seed: int = 0  # generic text only: the order of its rows


@dataclass(frozen=True)
class TokenizerConfig:
    """A Hugging Face tokenizer by name or path, or `bpe`: byte-level BPE trained on the generic text."""

    path: str = "bpe"
    vocab_size: int | None = (
        None  # bpe: how many to learn; else: rows of the model's embedding, at least the tokenizer's
    )


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-architecture causal language model; from `init_seed`, or from the local folder `path`."""

    name: str
    tokenizer: TokenizerConfig
    hidden_size: int = 0
    layers: int = 0
    heads: int = 0
    key_value_heads: int = 0
    mlp_size: int = 0
    max_positions: int = 4096
    rope_theta: float = 10_000.0
    tie_embeddings: bool = False
    init_seed: int = 0
    path: str | None = None


@dataclass(frozen=True)
class RateConfig:
    """The learning-rate schedule of a stage: peak and law. Warm-up is counted from the start of the stage."""

    law: Literal["wsd", "cosine", "linear", "constant"]
    peak: float
    final_fraction: float = 0.0  # the last rate as a share of the peak
    warmup_steps: int | None = None
    warmup_fraction: float | None = None  # stage 1: of the steps of the whole run; stage 2 alone: of its own steps
    cooldown_fraction: float = 0.1  # wsd: share of the steps of the schedule
    cooldown_shape: Literal["linear", "1-sqrt"] = "linear"


@dataclass(frozen=True)
class ScheduleConfig:
    """Which data and which learning rate a run sees at each step, in the vocabulary of PAPER.md's table."""

    mode: Mode
    target_epochs: int
    replay_fraction: Fraction
    stage2_allocation: Fraction = Fraction(1)
    total_tokens: int | None = None  # T; derived in mode from_pretrained
    target_tokens: int | None = None  # N; give this or target_fraction
    target_fraction: Fraction | None = None  # N/T
    order_seed: int = 0
    subset_seed: int = 0
    stage1: RateConfig | None = None  # mid_train: both stages
    stage2: RateConfig | None = None  # fine_tune and from_pretrained


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; weight decay acts on matrices only."""

    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    gradient_clip: float = 1.0


@dataclass(frozen=True)
class TrainerConfig:
    """How a stretch of steps is computed."""

    row_length: int  # tokens
    batch_rows: int  # rows of one optimizer step
    micro_batch_rows: int | None = None  # rows computed at once; null: all
    precision: Precision = "auto"  # bf16 where a measurement finds it faster
    compile: bool = True
    threads: int | None = None  # null: torch's own choice
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    save_every_minutes: float = 5.0
    log_every_steps: int = 8
    waypoints: int = 16  # states kept along the trunk, so that a value added later branches near one


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation: each half of a validation set is cut to `tokens`."""

    tokens: int = 32_768
    at_steps: tuple[int, ...] = ()  # besides the end, the start of stage 2 and a few steps after it
    after_stage2_steps: int = 8


@dataclass(frozen=True)
class LoggerConfig:
    """The mirror of finished runs: CSV always; Weights & Biases offline, online or not at all (csv)."""

    mode: Literal["offline", "online", "csv"] = "offline"
    project: str = "replay-sweeps"
    entity: str | None = None


@dataclass(frozen=True)
class PathsConfig:
    """Where a study writes and where states live; null store: `store` beside the default outputs, see the README."""

    output: str | None = None
    store: str | None = None


@dataclass(frozen=True)
class StudyConfig:
    """What the study is called and whether it ends with `replay-analyze`."""

    name: str = "study"
    title: str = ""
    analyze: bool = True


@dataclass(frozen=True)
class RunConfig:
    """Everything that one run is made of."""

    model: ModelConfig
    target: SourceConfig
    generic: SourceConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig
    paths: PathsConfig
    study: StudyConfig
    plan: str = "false"  # true: say what would be done; json: the same as JSON; NAME.svg: draw the tree, too
    scale: str | None = None
    workers: int | None = None  # at most so many at once; null: one in process, else one a core
    fail_fast: bool = False  # stop at the first run that fails
    keep_states: Literal["leaves", "all", "none"] = "leaves"  # trained states that stay when nothing waits for them


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """A hint that names the nearest known name, or all of them when none is near and they are few."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(known)}" if len(known) <= 24 else "see replay-sweep --help"


def leaves(schema: type = RunConfig, prefix: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    hints = typing.get_type_hints(schema)
    for item in dataclasses.fields(schema):
        inner = _dataclass_in(hints[item.name])
        if inner:
            yield from leaves(inner, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name


def _dataclass_in(hint: Any) -> type | None:
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)  # type: ignore[return-value]


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def build(schema: type, values: Mapping[str, Any], problems: list[tuple[str, str]], prefix: str = "") -> Any:
    """An instance of the dataclass `schema` from plain values.

    Every unknown name, missing value and wrong type is appended to `problems` as (dotted name, what is wrong); the
    result is to be used only when there are none.
    """
    hints = _hints(schema)
    fields = {item.name: item for item in dataclasses.fields(schema)}
    found: dict[str, Any] = {}
    unknown = sorted(values.keys() - fields.keys())
    problems.extend((prefix + name, f"no such setting; {nearest(name, fields)}") for name in unknown)
    for name, item in fields.items():
        if name not in values:
            if item.default is dataclasses.MISSING:
                problems.append((prefix + name, "needs a value"))
            continue
        found[name] = _convert(values[name], hints[name], prefix + name, problems)
    try:
        return schema(**found)
    except TypeError:
        return None


def convert(schema: type, field: str, value: Any, name: str, problems: list[tuple[str, str]]) -> Any:
    """A value for one field of `schema`, as `build` takes it; what is wrong with it is said of `name`."""
    return _convert(value, _hints(schema)[field], name, problems)


_hints = functools.cache(typing.get_type_hints)


def _convert(value: Any, hint: Any, name: str, problems: list[tuple[str, str]]) -> Any:
    if value is None and _is_union(hint):
        return None
    if value == "???" or value is None:
        problems.append((name, "needs a value"))
        return None
    if _is_union(hint):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    inner = _dataclass_in(hint)
    if inner:
        if isinstance(value, Mapping):
            return build(inner, value, problems, f"{name}.")
        problems.append((name, f"{value!r} is not a group of settings"))
        return None
    try:
        return _scalar(value, hint)
    except (ValueError, TypeError, ZeroDivisionError):
        problems.append((name, f"{value!r} is not {_description(hint)}"))
        return None


def _scalar(value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        text = str(value).lower() if isinstance(value, bool) else value
        if text not in typing.get_args(hint):
            raise ValueError
        return text
    if typing.get_origin(hint) is tuple:
        return tuple(_scalar(item, typing.get_args(hint)[0]) for item in value)
    if hint is bool:
        if not isinstance(value, bool):
            raise ValueError
        return value
    if isinstance(value, bool):
        if hint is str:
            return str(value).lower()
        raise ValueError
    if hint is Fraction:  # 0.125 and "1/9" are meant exactly; 0.1111111 is meant as 1/9
        return Fraction(str(value)).limit_denominator(10**9)
    if hint is int:
        number = float(value)
        if number != int(number):
            raise ValueError
        return int(value) if not isinstance(value, float) else int(number)
    if hint is float:
        number = float(Fraction(value)) if isinstance(value, str) and "/" in value else float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
        return number
    return str(value)


def _description(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list of " + _description(typing.get_args(hint)[0]).removeprefix("a ") + "s"
    return {int: "a whole number", float: "a number", Fraction: "a fraction", bool: "true or false"}.get(hint, "a text")
