"""The typed schema of a run's configuration: names, types and units. Values live in `conf/`, checks in `checks`."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Mode = Literal["mid_train", "fine_tune", "from_pretrained"]
Precision = Literal["auto", "fp32", "bf16"]
SourceKind = Literal[
    "hub",
    "local",
    "installed_documentation",
    "installed_documentation_without_standard_library",
    "sympy",
    "standard_library",
    "self_generated",
]


@dataclass(frozen=True)
class SourceConfig:
    """Where a text comes from; one document is one training document."""

    name: str
    kind: SourceKind
    path: str | None = None  # local: a file or folder; hub: the data set's id; self_generated: the model
    subset: str | None = None  # hub: the data set's configuration; several, comma-separated, are read one by one
    folder: str | None = None  # hub: the folder of the data set whose files are read, where not all belong together
    split: str = "train"
    revision: str | None = None  # hub, self_generated: a branch, tag or commit
    format: Literal["text", "chat"] = "text"  # chat: conversations, of which the responses alone are learned
    text_column: str = "text"
    messages_column: str = "messages"  # chat: a list of {role, content}
    prompt_column: str | None = None  # chat: instead of messages, a prompt and its response
    response_column: str | None = None
    max_documents: int | None = None  # self_generated: how many to sample
    document_tokens: int = 512  # self_generated: tokens of a document, at most
    temperature: float = 1.0  # self_generated: of sampling
    generation_seed: int = 0  # self_generated: of sampling
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
    revision: str | None = None  # of a hub id: a branch, tag or commit
    chat_template: str | None = None  # a Jinja file, where the tokenizer brings none or another is wanted


@dataclass(frozen=True)
class ModelConfig:
    """A causal language model: of the Llama architecture from `init_seed`, or any pretrained one from `path`."""

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
    init_seed: int = 0  # of new weights, those of LoRA among them
    new_weights: bool = False  # mode from_pretrained: new weights stand in for a pretrained model's
    path: str | None = None  # a folder that save_pretrained wrote, or a hub id
    revision: str | None = None  # of a hub id: a branch, tag or commit
    allow_pickle: bool = False  # unpickle weights that are no safetensors: only where their author is trusted
    lora_rank: int | None = None  # train low-rank adapters alone (LoRA, arXiv 2106.09685); null: all weights
    lora_alpha: float | None = None  # scale of the adapters; null: twice the rank
    lora_targets: str = "all-linear"  # modules that get adapters, by the end of their names, comma-separated


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
    target_tokens: int | None = None  # N; give this, target_fraction or target_share
    target_fraction: Fraction | None = None  # N/T
    target_share: Fraction | None = None  # N as a share of the target text's training rows, rounded down to rows
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
    batch_rows: int  # rows of one optimizer step, on all devices together
    micro_batch_rows: int | None = None  # rows that a device computes at once; null: all of its share
    precision: Precision = "auto"  # of matrix products: bf16 where a measurement finds it faster
    weights: Literal["fp32", "bf16"] = "fp32"  # of the master weights and the optimizer
    compile: Literal["true", "false", "layers"] = "true"  # torch.compile: the whole model, or each decoder layer alone
    activation_checkpointing: bool = False  # compute activations anew in the backward pass: less memory, more time
    fused_loss: Literal["auto", "true", "false"] = "auto"  # Liger's fused linear cross-entropy (extra: gpu)
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # of one model on many devices; auto: ddp
    devices: int = 1  # of each node, that one model is trained on
    nodes: int = 1
    threads: int | None = None  # null: torch's own choice
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    save_every_minutes: float = 5.0
    log_every_steps: int = 8
    utilisation: float = 0.4  # of the device's rate of matrix products, assumed where no rate was measured
    peak_tflops: float | None = None  # of one device; null: as measured on this machine
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
    workers: int | None = None  # at most so many at once, one a core where null; in process there is one
    fail_fast: bool = False  # stop at the first run that fails
    budget: str | None = None  # 90s, 45m, 2h, 1d: the grid is cut, in the study's order, to what fits
    keep_states: Literal["leaves", "all", "none"] = "leaves"  # trained states that stay when nothing waits for them
