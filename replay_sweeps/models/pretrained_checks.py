"""What is wrong with a pretrained model, its tokenizer and the settings made for it; without loading it."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

from replay_sweeps.config import ModelConfig
from replay_sweeps.errors import UserError
from replay_sweeps.models.hub import is_hub_id, local_folder
from replay_sweeps.models.lora_targets import adapted_matrices, lora_names
from replay_sweeps.models.pretrained import PLAIN_HEADS, Pretrained, describe, is_head, model_type


@functools.cache
def check_pretrained(model: ModelConfig) -> tuple[tuple[str, str], ...]:
    """The problems of a model and its tokenizer, each as the setting to change and a line that says what is wrong."""
    assert model.path is not None
    try:
        known = describe(model.path, model.revision, model.allow_pickle)
    except UserError as error:
        return tuple(("model.path", problem) for problem in error.problems)
    tokens, rows = _vocabulary_size(model), known.config["vocab_size"]
    if tokens is not None and tokens > rows:
        name = "model.path" if model.tokenizer.path == model.path else "model.tokenizer.path"
        line = f"the tokenizer has {tokens:,} tokens, the model's embedding only {rows:,} rows: they do not match"
        return ((name, line),)
    return tuple(("model.lora_targets", problem) for problem in _lora_problems(model, known))


def _vocabulary_size(model: ModelConfig) -> int | None:
    """One more than the largest token of the model's tokenizer; None where its file is not here or cannot be read."""
    path = model.tokenizer.path
    if path == model.path:
        folder = local_folder(path, model.revision, model.allow_pickle)
    else:
        folder = None if is_hub_id(path) else Path(path).expanduser()
    try:
        known = json.loads((folder / "tokenizer.json").read_bytes()) if folder else {}
        vocabulary = known["model"]["vocab"]
        tokens = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return 1 + max([*tokens, *(token["id"] for token in known.get("added_tokens", []))])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # loading the tokenizer says what is wrong with it


def _lora_problems(model: ModelConfig, known: Pretrained) -> Iterator[str]:
    if model.lora_rank is None or not known.shapes:
        return
    for target in lora_names(model) or ():
        if not adapted_matrices(known, [target]):
            last = sorted({name.rpartition(".")[2] for name in adapted_matrices(known, None)})
            yield f"there is no matrix {target} in the model to adapt; there are: {', '.join(last)}"


def why_logits_needed(model: ModelConfig) -> str | None:
    """Why the loss cannot be computed from the last hidden states and the head's weights alone, or None if it can."""
    if model_type(model) not in PLAIN_HEADS:
        return f"is for models whose logits are not scaled or capped: {', '.join(PLAIN_HEADS)}"
    if model.lora_rank is not None and any(map(is_head, lora_names(model) or ())):
        return "has no gradient for adapters of the head: leave it out of model.lora_targets"
    return None
