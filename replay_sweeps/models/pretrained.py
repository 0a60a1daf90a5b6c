"""What can be known of a pretrained model without loading it: its shape, its weights' fingerprint, what is wrong."""

import dataclasses
import functools
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from replay_sweeps.config import ModelConfig
from replay_sweeps.errors import UserError
from replay_sweeps.files import fingerprint
from replay_sweeps.models.hub import ModelFiles, Shapes, is_hub_id, local_folder, read_local, read_remote
from replay_sweeps.packages import package_folder

SHAPE = {  # our names and those of `transformers` configuration files
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads"),
    "mlp_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_positions": ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len"),
}
ANY_LENGTH = 2**31 - 1  # positions of a model that names no limit
CAUSAL = ("ForCausalLM", "LMHeadModel", "LMHead")  # how `transformers` ends the names of causal language models
# model types whose logits are the last hidden states times the head's weights, and nothing more
PLAIN_HEADS = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "smollm3", "gpt2", "gpt_neox", "gemma")
HEADS = ("lm_head", "embed_out", "output")  # modules that make logits
_EMBEDDINGS = ("embed", "wte", "wpe")  # parts of the names of look-up tables


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What is known of a model: its configuration (of the text part) and the shapes of its parameters."""

    config: Mapping[str, Any]
    shapes: Shapes  # tied weights once, buffers not among them; empty where the weights are pickled
    parameters: int
    files: ModelFiles = dataclasses.field(compare=False, repr=False)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the whole configuration and the weights: the same for a folder and for the hub."""
        checksums = {file.name: file.checksum() for file in self.files.files}
        return fingerprint({"config.json": self.files.config_checksum, **checksums})

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's weights."""
        return bool(self.config.get("tie_word_embeddings", True)) or not any(map(is_head, self.shapes))

    def matrices(self) -> dict[str, tuple[int, ...]]:
        """The matrices that each token is multiplied with, by module: no look-up tables, unless they are the head too.

        Of a mixture of experts all that a token does not see are left out.
        """
        found = {module(name): shape for name, shape in self.shapes.items() if len(shape) >= 2}
        return {name: shape for name, shape in found.items() if not is_table(name) or self.tied_table(name)}

    def tied_table(self, name: str) -> bool:
        """Whether a module is the embedding of tokens that makes the logits too."""
        return self.tied and is_token_table(name)


def module(name: str) -> str:
    """The module that a parameter belongs to."""
    return name.removesuffix(".weight")


def is_head(name: str) -> bool:
    """Whether a module or parameter makes the logits."""
    return module(name).rpartition(".")[2] in HEADS


def is_table(name: str) -> bool:
    """Whether a module or parameter is a look-up table: an embedding of tokens or positions."""
    last = module(name).rpartition(".")[2]
    return not is_head(name) and any(part in last for part in _EMBEDDINGS)


def is_token_table(name: str) -> bool:
    """Whether a module or parameter is the embedding of tokens."""
    last = module(name).rpartition(".")[2]
    return is_table(name) and "wpe" not in last and "position" not in last


@functools.cache
def describe(path: str, revision: str | None = None, allow_pickle: bool = False) -> Pretrained:
    """What is known of a model; weights are not loaded, nor fetched. Raises UserError with a line for each problem."""
    folder = local_folder(path, revision, allow_pickle)
    files = read_local(folder, allow_pickle) if folder else read_remote(path, revision, allow_pickle)
    problems = list(_problems(path, files))
    if problems:
        raise UserError(*problems)
    config = _text_config(files.config)
    shapes = _parameters(config, {name: shape for file in files.files for name, shape in file.shapes.items()})
    count = sum(map(math.prod, shapes.values()))
    if not shapes:  # pickles stay closed
        count = sum(file.bytes for file in files.files) // (2 if "16" in str(_dtype(files.config)) else 4)
    return Pretrained(config, shapes, count, files)


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the language model, which a model of text and images keeps in a part of its own."""
    return {**config, **config.get("text_config", {})}


def _dtype(config: Mapping[str, Any]) -> Any:
    return config.get("dtype", config.get("torch_dtype"))


def _parameters(config: Mapping[str, Any], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes that are parameters: old files hold causal masks and rotary frequencies too, and a tied head twice."""
    tied = config.get("tie_word_embeddings", True)

    def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
        return name.endswith(("inv_freq", "masked_bias")) or (len(shape) == 4 and name.endswith(".bias"))

    return {
        name: shape
        for name, shape in shapes.items()
        if not is_buffer(name, shape) and not (tied and is_head(name) and len(shape) == 2)
    }


def _problems(path: str, files: ModelFiles) -> Iterator[str]:
    """What is wrong with a model as far as its configuration and the headers of its weights tell."""
    known, config = files.config, _text_config(files.config)
    kind, names = known.get("model_type"), known.get("architectures") or []
    missing = [ours for ours in ("hidden_size", "layers") if _value(config, ours) is None]
    missing += ["vocab_size"] if not isinstance(config.get("vocab_size"), int) else []
    if known.get("auto_map") and not _is_native(kind):
        yield (
            f"{path} needs code of its own (auto_map in its config.json), which is never run: "
            "give a model that the installed transformers knows"
        )
    elif known.get("is_encoder_decoder") or (names and not any(name.endswith(CAUSAL) for name in names)):
        if "text_config" not in known:
            what = names[0] if names else kind
            yield f"{path} is {what}, no causal language model: give one whose architecture ends in ForCausalLM"
    elif kind is None or missing:
        yield f"{path}: its config.json has no {', '.join([*(['model_type'] if kind is None else []), *missing])}"
    else:
        shapes = {name: shape for file in files.files for name, shape in file.shapes.items()}
        rows = [shape[0] for name, shape in shapes.items() if is_token_table(name) and len(shape) == 2]
        if rows and config["vocab_size"] not in rows:
            yield (
                f"{path}: its config.json has vocab_size={config['vocab_size']}, its weights an embedding of "
                f"{rows[0]} rows: one of them is damaged or of another model"
            )


def _is_native(kind: Any) -> bool:
    """Whether the installed `transformers` has the code of a model type; found without importing it."""
    folder = package_folder("transformers")
    return isinstance(kind, str) and folder is not None and (folder / "models" / kind.replace("-", "_")).is_dir()


def _value(config: Mapping[str, Any], ours: str) -> Any:
    return next((config[name] for name in SHAPE[ours] if config.get(name) is not None), None)


@functools.cache
def check_pretrained(model: ModelConfig) -> tuple[tuple[str, str], ...]:
    """What is wrong with a model and its tokenizer: the setting, and a line."""
    assert model.path is not None
    try:
        known = describe(model.path, model.revision, model.allow_pickle)
    except UserError as error:
        return tuple(("model.path", problem) for problem in error.problems)
    tokens, rows = _tokens(model), known.config["vocab_size"]
    if tokens is not None and tokens > rows:
        name = "model.path" if model.tokenizer.path == model.path else "model.tokenizer.path"
        line = f"the tokenizer has {tokens:,} tokens, the model's embedding only {rows:,} rows: they do not match"
        return ((name, line),)
    return tuple(("model.lora_targets", problem) for problem in _lora_problems(model, known))


def _tokens(model: ModelConfig) -> int | None:
    """One more than the largest token of the model's tokenizer, where its file is here."""
    path = model.tokenizer.path
    if path == model.path:
        folder = local_folder(path, model.revision, model.allow_pickle)
    else:
        folder = None if is_hub_id(path) else Path(path).expanduser()
    try:
        known = json.loads((folder / "tokenizer.json").read_bytes()) if folder else {}
        vocabulary = known["model"]["vocab"]
        numbers = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return 1 + max([*numbers, *(token["id"] for token in known.get("added_tokens", []))])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # what is wrong with it is found where it is loaded


def _lora_problems(model: ModelConfig, known: Pretrained) -> Iterator[str]:
    if model.lora_rank is None or not known.shapes:
        return
    for target in lora_names(model) or ():
        if not adapted(known, [target]):
            last = sorted({name.rpartition(".")[2] for name in adapted(known, None)})
            yield f"there is no matrix {target} in the model to adapt; there are: {', '.join(last)}"


def lora_names(model: ModelConfig) -> list[str] | None:
    """The modules that get adapters, by the ends of their names; None: all matrices of the layers."""
    if model.lora_targets == "all-linear":
        return None
    return [name.strip() for name in model.lora_targets.split(",") if name.strip()]


def lora_alpha(model: ModelConfig) -> float:
    """The scale of the adapters times their rank."""
    return model.lora_alpha if model.lora_alpha is not None else 2.0 * (model.lora_rank or 0)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def adapted(known: Pretrained, targets: Collection[str] | None) -> dict[str, tuple[int, ...]]:
    """The matrices that get adapters, by module; `targets` as `lora_names` gives them."""
    return {
        name: shape
        for name, shape in known.matrices().items()
        if len(shape) == 2
        and f"{name}.weight" in known.shapes
        and not is_table(name)
        and ".experts." not in name  # `transformers` keeps all experts of a layer in one tensor
        and (not is_head(name) if targets is None else any(_ends(name, target) for target in targets))
    }


def with_pretrained_shape(model: ModelConfig) -> ModelConfig:
    """The configuration with the shape of the model in `model.path`, which `check_pretrained` passed."""
    if model.path is None:
        return model
    known = describe(model.path, model.revision, model.allow_pickle)
    shape = {ours: value for ours in SHAPE if (value := _value(known.config, ours)) is not None}
    shape.setdefault("heads", 0)
    shape.setdefault("key_value_heads", shape["heads"])
    shape.setdefault("mlp_size", 4 * shape["hidden_size"])
    shape.setdefault("max_positions", ANY_LENGTH)
    tokenizer = dataclasses.replace(model.tokenizer, vocab_size=known.config["vocab_size"])
    return dataclasses.replace(model, tokenizer=tokenizer, tie_embeddings=known.tied, **shape)


def model_type(model: ModelConfig) -> str:
    """The architecture, as `transformers` calls it."""
    known = describe(model.path, model.revision, model.allow_pickle).config if model.path is not None else {}
    return str(known.get("model_type", "llama"))


def why_logits(model: ModelConfig) -> str | None:
    """Why the loss of a model is not that of its last hidden states and the head's weights alone, or None."""
    if model_type(model) not in PLAIN_HEADS:
        return f"is for models whose logits are not scaled or capped: {', '.join(PLAIN_HEADS)}"
    if model.lora_rank is not None and any(map(is_head, lora_names(model) or ())):
        return "has no gradient for adapters of the head: leave it out of model.lora_targets"
    return None


def weights_fingerprint(model: ModelConfig) -> str:
    """A hash of a pretrained model's configuration and weights; read once in a process."""
    assert model.path is not None
    return describe(model.path, model.revision, model.allow_pickle).fingerprint
