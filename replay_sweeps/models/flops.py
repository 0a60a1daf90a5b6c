"""Parameters and floating-point operations of a model, from its shape alone."""

from replay_sweeps.config import ModelConfig


def parameters(model: ModelConfig, vocab_size: int) -> int:
    """How many parameters a model of this shape has (tied embeddings once)."""
    head = model.hidden_size // model.heads
    attention = model.hidden_size * head * (2 * model.heads + 2 * model.key_value_heads)
    layer = attention + 3 * model.hidden_size * model.mlp_size + 2 * model.hidden_size
    embeddings = vocab_size * model.hidden_size * (1 if model.tie_embeddings else 2)
    return embeddings + model.layers * layer + model.hidden_size


def flops_per_token(model: ModelConfig, vocab_size: int, row_length: int) -> float:
    """Operations of one training step per token, forward and backward.

    6 for each weight of a matrix that a token passes (the input embedding is a look-up), and 6·layers·T·width for
    causal attention (Kaplan et al. 2020, 2.1, with half of the square masked).
    """
    matrices = parameters(model, vocab_size) - model.hidden_size * (2 * model.layers + 1)
    if not model.tie_embeddings:
        matrices -= vocab_size * model.hidden_size
    return 6.0 * matrices + 6.0 * model.layers * row_length * model.hidden_size
