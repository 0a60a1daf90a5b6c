"""What can be known of a pretrained model without loading it: its shape, its weights' fingerprint, what is wrong."""

import dataclasses
import functools
import json
from pathlib import Path

from replay_sweeps.config import ModelConfig
from replay_sweeps.files import file_checksum, fingerprint

SHAPE = {  # our names and those of a `transformers` configuration file
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "mlp_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
}


def check_pretrained(folder: Path) -> list[str]:
    """What is wrong with a model's folder, one line each."""
    if not folder.is_dir():
        return [f"there is no folder {folder}: give a folder with config.json and *.safetensors"]
    problems = []
    try:
        known = json.loads((folder / "config.json").read_bytes())
        missing = [name for name in ("hidden_size", "num_hidden_layers", "vocab_size") if name not in known]
        if missing:
            problems.append(f"{folder / 'config.json'} has no {', '.join(missing)}: not a causal language model's")
    except (OSError, ValueError):
        problems.append(f"{folder} has no readable config.json: give a folder that save_pretrained wrote")
    if not list(folder.glob("*.safetensors")):
        pickled = [*folder.glob("*.bin"), *folder.glob("*.pt")]
        why = f"only {pickled[0].name}, which would be unpickled" if pickled else "no weights"
        problems.append(f"{folder} holds {why}: give weights as *.safetensors")
    return problems


def with_pretrained_shape(model: ModelConfig) -> ModelConfig:
    """The configuration with the shape of the model in `model.path`, a folder that `check_pretrained` passed."""
    if model.path is None:
        return model
    known = json.loads((Path(model.path) / "config.json").read_bytes())
    shape = {ours: known[theirs] for ours, theirs in SHAPE.items() if theirs in known}
    shape.setdefault("key_value_heads", shape.get("heads", 1))
    tokenizer = dataclasses.replace(model.tokenizer, vocab_size=known["vocab_size"])
    return dataclasses.replace(model, tokenizer=tokenizer, **shape)


@functools.cache
def weights_fingerprint(folder: Path) -> str:
    """A hash of a model's configuration and weights; read once in a process."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return fingerprint({file.name: file_checksum(file) for file in files})
