"""What is known of a pretrained model without loading it: its shape, its parameters, its weights' fingerprint."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from replay_sweeps.config import ModelConfig
from replay_sweeps.errors import UserError
from replay_sweeps.files import fingerprint
from replay_sweeps.models.hub import ModelFiles, Shapes, local_folder, read_local, read_remote
from replay_sweeps.packages import package_folder

SHAPE = {  # field of ModelConfig: its names in `transformers` configuration files
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads"),
    "mlp_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_positions": ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len"),
}
ANY_LENGTH = 2**31 - 1  # the `max_positions` of a model that names no limit
CAUSAL = ("ForCausalLM", "LMHeadModel", "LMHead")  # how `transformers` ends the names of causal language models
# model types whose logits are the last hidden states times the head's weights, and nothing more
PLAIN_HEADS = ("llama", "mistral", "qwen2", "qwen3", "olmo2", "smollm3", "gpt2", "gpt_neox", "gemma")
HEADS = ("lm_head", "embed_out", "output")  # modules that make logits
_EMBEDDINGS = ("embed", "wte", "wpe")  # parts of the names of look-up tables


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """What is known of a model: its configuration and the shapes of its parameters.

    Of a model of text and images, the configuration is that of the text part.
    """

    config: Mapping[str, Any]
    shapes: Shapes  # tied weights once, no buffers; empty where the weights are pickled
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
        """The shapes of the matrices that tokens are multiplied with, by module.

        Look-up tables are not among them, unless the head shares their weights. Of experts, all are there.
        """
        found = {module(name): shape for name, shape in self.shapes.items() if len(shape) >= 2}
        return {name: shape for name, shape in found.items() if not is_table(name) or self.tied_table(name)}

    def tied_table(self, name: str) -> bool:
        """Whether a module is a token embedding that also makes the logits."""
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
    """Describe a model; its weights are neither loaded nor fetched. Raises UserError with a line for each problem."""
    folder = local_folder(path, revision, allow_pickle)
    files = read_local(folder, allow_pickle) if folder else read_remote(path, revision, allow_pickle)
    problems = list(_problems(path, files))
    if problems:
        raise UserError(*problems)
    config = _text_config(files.config)
    shapes = _parameters(config, {name: shape for file in files.files for name, shape in file.shapes.items()})
    count = sum(map(math.prod, shapes.values()))
    if not shapes:  # pickles are not opened: their size tells the number of parameters
        count = sum(file.bytes for file in files.files) // (2 if "16" in str(_dtype(files.config)) else 4)
    return Pretrained(config, shapes, count, files)


def _text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the language model; a model of text and images keeps it under `text_config`."""
    return {**config, **config.get("text_config", {})}


def _dtype(config: Mapping[str, Any]) -> Any:
    return config.get("dtype", config.get("torch_dtype"))


def _parameters(config: Mapping[str, Any], shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters alone: old files also hold causal masks, rotary frequencies and a tied head."""
    tied = config.get("tie_word_embeddings", True)

    def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
        return name.endswith(("inv_freq", "masked_bias")) or (len(shape) == 4 and name.endswith(".bias"))

    return {
        name: shape
        for name, shape in shapes.items()
        if not is_buffer(name, shape) and not (tied and is_head(name) and len(shape) == 2)
    }


def _problems(path: str, files: ModelFiles) -> Iterator[str]:
    """What is wrong with a model, as far as its configuration and the headers of its weights tell."""
    known, config = files.config, _text_config(files.config)
    kind, names = known.get("model_type"), known.get("architectures") or []
    missing = [field for field in ("hidden_size", "layers") if _value(config, field) is None]
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


def _value(config: Mapping[str, Any], field: str) -> Any:
    return next((config[name] for name in SHAPE[field] if config.get(name) is not None), None)


def with_pretrained_shape(model: ModelConfig) -> ModelConfig:
    """The configuration with the shape of the model at `model.path`, in which `check_pretrained` found no problem."""
    if model.path is None:
        return model
    known = describe(model.path, model.revision, model.allow_pickle)
    shape = {field: value for field in SHAPE if (value := _value(known.config, field)) is not None}
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


def weights_fingerprint(model: ModelConfig) -> str:
    """A hash of a pretrained model's configuration and weights; read once per process."""
    assert model.path is not None
    return describe(model.path, model.revision, model.allow_pickle).fingerprint
