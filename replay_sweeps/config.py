"""The schema of a run's configuration: each setting's name, type, meaning, range and role. Values live in `conf/`.

A setting is added here, in one line: `setting` where another value gives trained states other names, `detail` where it
does not. Ranges, help and the words of reports are derived from that line; a test compares it with the keys.
"""

from fractions import Fraction
from typing import Literal

from replay_sweeps.setting import detail, group, setting

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


@group
class SourceConfig:
    """Where a text comes from; one document is one training document."""

    name: str = detail("how reports call the text", role="axis", column="{group}")
    kind: SourceKind = setting("where the text is read")
    path: str | None = setting(
        "local: a file or folder; hub: the data set's id; self_generated: the model", default=None
    )
    subset: str | None = setting(
        "hub: the data set's configuration; several, comma-separated, are read one by one", default=None
    )
    folder: str | None = setting(
        "hub: the folder of the data set whose files are read, where not all belong together", default=None
    )
    split: str = setting("hub: the part of the data set", default="train")
    revision: str | None = setting("hub, self_generated: a branch, tag or commit", default=None)
    format: Literal["text", "chat"] = setting("chat: conversations; their responses alone are learned", default="text")
    text_column: str = setting("text in tables: the column that holds it", default="text")
    messages_column: str = setting("chat: the column of a list of {role, content}", default="messages")
    prompt_column: str | None = setting("chat: instead of messages, a prompt and its response", default=None)
    response_column: str | None = setting("chat: the column of the response to a prompt", default=None)
    max_documents: int | None = setting("how many to read, or to sample; null: all", default=None, minimum=1)
    document_tokens: int = setting("self_generated: tokens of a document, at most", default=512)
    temperature: float = setting("self_generated: temperature of sampling", default=1.0)
    generation_seed: int = setting("self_generated: seed of sampling", default=0)
    validation_fraction: float = setting(
        "share of documents held out, chosen by a hash of their text", default=0.05, above=0, below=1
    )
    split_above_characters: int = setting(
        "longer documents are cut at paragraphs before anything else happens", default=20_000, minimum=200
    )
    repeat: bool = detail("rows may be seen more than once when there are too few", default=False, only="generic")
    order_seed: int = setting("the order of the rows", default=0, only="generic")


@group
class TokenizerConfig:
    """A Hugging Face tokenizer by name or path, or `bpe`: byte-level BPE trained on the generic text."""

    path: str = setting("a folder, a hub id, or bpe", default="bpe")
    vocab_size: int | None = setting(
        "bpe: how many tokens to learn; else: rows of the model's embedding, at least the tokenizer's", default=None
    )
    revision: str | None = setting("of a hub id: a branch, tag or commit", default=None)
    chat_template: str | None = setting("a Jinja file, in place of the tokenizer's own", default=None)


@group
class ModelConfig:
    """A causal language model: of the Llama architecture from `init_seed`, or any pretrained one from `path`."""

    name: str = detail("how reports call the model", role="axis", column="{group}")
    tokenizer: TokenizerConfig
    hidden_size: int = setting("width of the residual stream", default=0)
    layers: int = setting("decoder layers", default=0)
    heads: int = setting("attention heads of a layer", default=0)
    key_value_heads: int = setting("heads of keys and values of a layer, which divide its heads", default=0)
    mlp_size: int = setting("width of the gated MLP", default=0)
    max_positions: int = setting("the longest row that the model takes, in tokens", default=4096)
    rope_theta: float = setting("base of the rotary position embedding", default=10_000.0)
    tie_embeddings: bool = setting("one matrix for embedding and output", default=False)
    init_seed: int = setting("new weights, those of LoRA among them", default=0, role="seed", symbol="seed")
    new_weights: bool = detail("from_pretrained: new weights stand in for a pretrained model's", default=False)
    path: str | None = setting("a folder that save_pretrained wrote, or a hub id", default=None)
    revision: str | None = setting("of a hub id: a branch, tag or commit", default=None)
    allow_pickle: bool = detail("unpickle weights that are no safetensors: trust their author", default=False)
    lora_rank: int | None = setting(
        "train low-rank adapters alone (LoRA, arXiv 2106.09685); null: all weights", default=None, above=0
    )
    lora_alpha: float | None = setting("scale of the adapters; null: twice the rank", default=None, above=0)
    lora_targets: str = setting(
        "modules that get adapters, by the end of their names, comma-separated", default="all-linear"
    )


@group
class RateConfig:
    """The learning-rate schedule of a stage: peak and law. Warm-up is counted from the start of the stage."""

    law: Literal["wsd", "cosine", "linear", "constant"] = setting(
        "how the rate goes on after warm-up", role="nuisance", column="lr_schedule"
    )
    peak: float = setting(
        "the peak, after warm-up", above=0, role="nuisance", column="{group}_lr", symbol="learning rate"
    )
    final_fraction: float = setting("the last rate as a share of the peak", default=0.0, minimum=0, maximum=1)
    warmup_steps: int | None = setting("steps of warm-up; or warmup_fraction", default=None, minimum=0)
    warmup_fraction: float | None = setting(
        "stage 1: share of the steps of the whole run; stage 2 alone: of its own steps",
        default=None,
        minimum=0,
        below=1,
    )
    cooldown_fraction: float = setting(
        "wsd: share of the steps of the schedule",
        default=0.1,
        minimum=0,
        maximum=1,
        role="nuisance",
        column="lr_schedule",
    )
    cooldown_shape: Literal["linear", "1-sqrt"] = setting("wsd: how the rate falls", default="linear")


@group
class ScheduleConfig:
    """Which data and which learning rate a run sees at each step, in the words of docs/vocabulary.md."""

    mode: Mode = setting("how the stages are trained", role="axis")
    target_epochs: int = setting("how often each target token is seen", minimum=1, role="nuisance", symbol="E")
    replay_fraction: Fraction = setting(
        "share of generic tokens in stage 2, from 0 to below 1", minimum=0, below=1, role="axis", symbol="ρ"
    )
    stage2_allocation: Fraction = setting(
        "share of the target tokens seen in stage 2, the rest in stage 1",
        default=Fraction(1),
        minimum=0,
        maximum=1,
        role="axis",
        symbol="α",
    )
    total_tokens: int | None = setting(
        "all tokens; from_pretrained: derived", default=None, above=0, role="axis", symbol="T"
    )
    target_tokens: int | None = setting(
        "unique target tokens; or target_fraction, target_share", default=None, above=0, role="axis", symbol="N"
    )
    target_fraction: Fraction | None = setting(
        "unique target tokens as a share of all tokens",
        default=None,
        above=0,
        maximum=1,
        role="axis",
        column="target_tokens",
        symbol="N/T",
    )
    target_share: Fraction | None = setting(
        "N as a share of the target text's training rows, rounded down to rows",
        default=None,
        above=0,
        maximum=1,
        role="axis",
        column="target_tokens",
        symbol="share of the target",
    )
    order_seed: int = setting("the order of the target's rows", default=0, role="seed", symbol="seed")
    subset_seed: int = setting("which target rows are the N", default=0, role="seed", symbol="seed")
    stage1: RateConfig | None = None  # mid_train: both stages
    stage2: RateConfig | None = None  # fine_tune and from_pretrained


@group
class OptimizerConfig:
    """AdamW; weight decay acts on matrices only."""

    weight_decay: float = setting("decay of matrices, not of vectors", default=0.1, minimum=0, role="nuisance")
    beta1: float = setting("decay of the mean of the gradients", default=0.9, minimum=0, below=1)
    beta2: float = setting("decay of the mean of their squares", default=0.95, minimum=0, below=1)
    epsilon: float = setting("added to the root of the mean square", default=1e-8, above=0)
    gradient_clip: float = setting("largest norm of all gradients together", default=1.0, above=0)


@group
class TrainerConfig:
    """How a stretch of steps is computed."""

    row_length: int = setting("tokens of a row", minimum=2, unit="tokens")
    batch_rows: int = setting("rows of one optimizer step, on all devices together", minimum=1)
    micro_batch_rows: int | None = setting(
        "that a device computes at once; null: all of its share", default=None, minimum=1
    )
    precision: Precision = setting("of matrix products: bf16 where a measurement finds it faster", default="auto")
    weights: Literal["fp32", "bf16"] = setting("of the master weights and the optimizer", default="fp32")
    compile: Literal["true", "false", "layers"] = setting(
        "the whole model, or each decoder layer alone", default="true"
    )
    activation_checkpointing: bool = setting("compute activations twice: less memory, more time", default=False)
    fused_loss: Literal["auto", "true", "false"] = setting("Liger's linear cross-entropy (extra: gpu)", default="auto")
    strategy: Literal["auto", "ddp", "fsdp"] = detail("of one model on many devices; auto: ddp", default="auto")
    devices: int = detail("of each node, that one model is trained on", default=1, minimum=1)
    nodes: int = detail("machines that one model is trained on", default=1, minimum=1)
    threads: int | None = detail("of a process; null: torch's own choice", default=None, minimum=1)
    accelerator: Literal["auto", "cpu", "cuda"] = setting("what the model is trained on", default="auto")
    save_every_minutes: float = detail("between states to go on from when killed", default=5.0, minimum=0)
    log_every_steps: int = detail("between logged training losses", default=8, minimum=1)
    utilisation: float = detail(
        "of the device's rate of matrix products, assumed where no rate was measured", default=0.4, above=0, maximum=1
    )
    peak_tflops: float | None = detail("of one device; null: as measured on this machine", default=None, above=0)
    waypoints: int = detail("states kept along the trunk: values added later branch there", default=16, minimum=0)

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step, on all devices together."""
        return self.batch_rows * self.row_length

    @property
    def world_size(self) -> int:
        """Devices, of all nodes together, that one model is trained on."""
        return self.devices * self.nodes


@group
class EvaluationConfig:
    """Validation: each half of a validation set is cut to `tokens`."""

    tokens: int = detail("of each half of a validation set, at most", default=32_768)
    at_steps: tuple[int, ...] = detail("validation steps besides those around stage 2", default=())
    after_stage2_steps: int = detail("steps after the start of stage 2", default=8, minimum=0)


@group
class LoggerConfig:
    """The mirror of finished runs: CSV always; Weights & Biases offline, online or not at all (csv)."""

    mode: Literal["offline", "online", "csv"] = detail("Weights & Biases, or CSV alone", default="offline")
    project: str = detail("the project on Weights & Biases", default="replay-sweeps")
    entity: str | None = detail("who it belongs to there", default=None)


@group
class PathsConfig:
    """Where a study writes and where states live; null store: `store` beside the default outputs, see the README."""

    output: str | None = detail("of the study; null: outputs/ and the study's name", default=None)
    store: str | None = detail("of states; null: outputs/store, or store below a given output", default=None)


@group
class StudyConfig:
    """What the study is called and whether it ends with `replay-analyze`."""

    name: str = detail("a plain folder name", default="study")
    title: str = detail("of reports", default="")
    analyze: bool = detail("whether the study ends with replay-analyze", default=True)


@group
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
    plan: str = detail(
        "true: say what would be done; json: the same as JSON; NAME.svg: draw the tree, too", default="false"
    )
    scale: str | None = detail("a smaller version of the same study", default=None)
    workers: int | None = detail("at most so many at once; null: one for each core", default=None, minimum=1)
    fail_fast: bool = detail("stop at the first run that fails", default=False)
    budget: str | None = detail("90s, 45m, 2h, 1d: the grid is cut, in the study's order, to what fits", default=None)
    keep_states: Literal["leaves", "all", "none"] = detail("states that stay when nothing waits", default="leaves")

    @property
    def packed(self) -> bool:
        """Whether the rows hold examples that are kept apart; plain rows are then computed in the same way."""
        return "chat" in (self.target.format, self.generic.format)
