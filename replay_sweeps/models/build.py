"""Causal language models from `transformers`: from scratch by a seed, or from a local folder or the hub."""

import math

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from replay_sweeps.config import ModelConfig

INITIAL_STD = 0.02


def model_config(model: ModelConfig, vocab_size: int) -> LlamaConfig:
    """The `transformers` configuration of a model from scratch."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.key_value_heads,
        intermediate_size=model.mlp_size,
        max_position_embeddings=model.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        tie_word_embeddings=model.tie_embeddings,
        use_cache=False,
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def build_model(model: ModelConfig, vocab_size: int) -> PreTrainedModel:
    """A model of this shape; its weights are set by `initialise` or loaded from a state."""
    if model.path is not None:
        return load_pretrained(model.path)
    return LlamaForCausalLM(model_config(model, vocab_size))


def load_pretrained(folder: str) -> PreTrainedModel:
    """The model of a local folder in fp32; safetensors only, no code of others is run."""
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="sdpa",
    )


@torch.no_grad()
def initialise(network: PreTrainedModel, model: ModelConfig) -> None:
    """Set all weights to where training starts: those of `model.path`, or new ones from `model.init_seed`."""
    if model.path is None:
        draw_weights(network, model.init_seed)
        return
    parameters = dict(load_pretrained(model.path).named_parameters())
    for name, parameter in network.named_parameters():
        parameter.copy_(parameters[name])


@torch.no_grad()
def draw_weights(network: PreTrainedModel, seed: int) -> None:
    """Set all weights from a seed: normal with deviation 0.02, the layers' outputs scaled down with depth.

    Matrices that write into the residual stream have deviation 0.02/sqrt(2·layers) (GPT-2, Radford et al. 2019, 2.3),
    so that its variance does not grow with depth.
    """
    generator = torch.Generator().manual_seed(seed)
    depth = 1 / math.sqrt(2 * network.config.num_hidden_layers)
    for name, parameter in network.named_parameters():  # tied weights come once
        if parameter.dim() < 2:
            parameter.fill_(1.0)
            continue
        scale = depth if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        values = torch.empty(parameter.shape).normal_(0.0, INITIAL_STD * scale, generator=generator)
        parameter.copy_(values)
