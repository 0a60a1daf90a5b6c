"""Parameters and floating-point operations of a model, from its shape alone."""

import math

from replay_sweeps.config import ModelConfig
from replay_sweeps.models.lora_targets import adapted_matrices, lora_names
from replay_sweeps.models.pretrained import Pretrained, describe


def _pretrained(model: ModelConfig) -> Pretrained | None:
    return describe(model.path, model.revision, model.allow_pickle) if model.path is not None else None


def parameters(model: ModelConfig, vocab_size: int) -> int:
    """How many parameters a model has: tied embeddings count once, adapters do not count."""
    known = _pretrained(model)
    if known is not None:
        return known.parameters
    head = model.hidden_size // model.heads
    attention = model.hidden_size * head * (2 * model.heads + 2 * model.key_value_heads)
    layer = attention + 3 * model.hidden_size * model.mlp_size + 2 * model.hidden_size
    embeddings = vocab_size * model.hidden_size * (1 if model.tie_embeddings else 2)
    return embeddings + model.layers * layer + model.hidden_size


def adapter_parameters(model: ModelConfig) -> int | None:
    """How many parameters LoRA adds, rank·(in + out) for each matrix; None where all weights are trained."""
    known = _pretrained(model)
    if known is None or model.lora_rank is None:
        return None
    return sum(model.lora_rank * sum(shape) for shape in adapted_matrices(known, lora_names(model)).values())


def matrix_parameters(model: ModelConfig, vocab_size: int) -> int:
    """How many weights of matrices a token is multiplied with, its own experts' alone; look-up tables do not count."""
    known = _pretrained(model)
    if known is None or not known.shapes:
        rest = model.hidden_size * (2 * model.layers + 1) if known is None else 0
        return parameters(model, vocab_size) - rest - (0 if model.tie_embeddings else vocab_size * model.hidden_size)
    experts = known.config.get("num_experts") or known.config.get("num_local_experts") or 1
    seen = known.config.get("num_experts_per_tok", experts) / experts
    return round(sum(math.prod(s) * (seen if ".experts." in n else 1) for n, s in known.matrices().items()))


def flops_per_token(model: ModelConfig, vocab_size: int, row_length: int) -> float:
    """Operations of one training step per token, forward and backward.

    6 for each weight of a matrix that a token passes (the input embedding is a look-up), and 6·layers·T·width for
    causal attention (Kaplan et al. 2020, 2.1, with half of the square masked). With LoRA, frozen matrices need no
    gradient of their own: 4 for each of their weights (arXiv 2106.09685, 4.2).
    """
    width = model.hidden_size if model.heads else 0  # no attention: no square
    attention = 6.0 * model.layers * row_length * width
    adapters = adapter_parameters(model)
    matrices = matrix_parameters(model, vocab_size)
    return attention + (6.0 * matrices if adapters is None else 4.0 * matrices + 6.0 * adapters)
