"""Builds causal language models of `transformers`: from scratch by a seed, or from a local folder or the hub."""

import math
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from replay_sweeps.config import ModelConfig
from replay_sweeps.errors import UserError, one_line
from replay_sweeps.models.hub import fetch, local_folder
from replay_sweeps.models.lora import add_adapters, draw_adapters
from replay_sweeps.models.quiet import quiet_libraries

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


def build_model(model: ModelConfig, vocab_size: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of this shape; its weights are set by `initialise` or loaded from a state.

    Dropout is off: what a step computes depends on its batch and the weights alone.
    """
    quiet_libraries()
    if model.path is not None:
        network = load_pretrained(model, dtype)
        if model.lora_rank is not None:
            add_adapters(network, model)
    else:
        network = LlamaForCausalLM(model_config(model, vocab_size))
        for parameter in network.parameters():  # not `.to`, which would round the rotary frequencies too
            parameter.data = parameter.data.to(dtype)
    return network.eval()


def build_shape(model: ModelConfig, vocab_size: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The network of `build_model` without its weights: on the meta device, where they take no memory."""
    quiet_libraries()
    with torch.device("meta"):
        if model.path is None:
            return build_model(model, vocab_size, dtype)
        config = AutoConfig.from_pretrained(_folder(model), trust_remote_code=False, local_files_only=True)
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        if model.lora_rank is not None:
            add_adapters(network, model)
    network.config.use_cache = False
    return network.eval()


def fetch_pretrained(model: ModelConfig) -> None:
    """Fetch a model unless it is on this machine, and check that `transformers` can build it. Raises UserError."""
    quiet_libraries()
    assert model.path is not None
    folder = fetch(model.path, model.revision, model.allow_pickle)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a damaged or unknown configuration may raise
        raise UserError(_cannot_load(model.path, error)) from error


def _folder(model: ModelConfig) -> Path:
    assert model.path is not None
    folder = local_folder(model.path, model.revision, model.allow_pickle)
    if folder is None:
        raise OSError("it is not whole in the Hugging Face cache")
    return folder


def _cannot_load(path: str, error: Exception) -> str:
    return f"model.path: {path} cannot be loaded as a causal language model ({one_line(error)})"


def load_pretrained(model: ModelConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load the model at `model.path` from this machine; no code of it is run, and pickles are read only if allowed.

    Raises UserError when it cannot be loaded, or lacks weights.
    """
    quiet_libraries()
    assert model.path is not None
    try:
        folder = _folder(model)
        network, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=None if model.allow_pickle else True,
            weights_only=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a damaged or unknown model may raise
        raise UserError(_cannot_load(model.path, error)) from error
    if report["missing_keys"]:
        raise UserError(f"model.path: {model.path} lacks the weights {', '.join(sorted(report['missing_keys'])[:3])}")
    network.config.use_cache = False
    return network


@torch.no_grad()
def initialise(network: PreTrainedModel, model: ModelConfig) -> None:
    """Set all weights to where training starts: those of `model.path`, or new ones from `model.init_seed`."""
    if model.path is None:
        draw_weights(network, model.init_seed)
        return
    if model.lora_rank is not None:  # all other weights are frozen: they still hold what was loaded
        draw_adapters(network, model.init_seed)
        return
    parameters = dict(load_pretrained(model, next(network.parameters()).dtype).named_parameters())
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
