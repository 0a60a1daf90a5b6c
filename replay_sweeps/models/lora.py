"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685): added to a frozen model, drawn from a seed, merged."""

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from replay_sweeps.config import ModelConfig
from replay_sweeps.errors import UserError, one_line
from replay_sweeps.models.lora_targets import lora_alpha, lora_names

if TYPE_CHECKING:  # a model from scratch needs no peft, which takes a second to import
    from peft import LoraConfig


def lora_config(model: ModelConfig) -> "LoraConfig":
    """The adapters of `model` in peft's words; no dropout, so that a step depends on its batch alone."""
    from peft import LoraConfig

    return LoraConfig(
        r=model.lora_rank or 0,
        lora_alpha=lora_alpha(model),  # type: ignore[arg-type]  # any number: it is divided by the rank
        target_modules=lora_names(model) or "all-linear",
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.path,
        revision=model.revision,
    )


def add_adapters(network: PreTrainedModel, model: ModelConfig) -> None:
    """Freeze all weights and add adapters, which alone are trained; adapters are fp32 whatever the weights are."""
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns that GPT-2 keeps its matrices transposed
        try:
            inject_adapter_in_model(lora_config(model), network)
        except ValueError as error:
            raise UserError(f"model.lora_targets={model.lora_targets}: {one_line(error)}") from error
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@torch.no_grad()
def draw_adapters(network: nn.Module, seed: int) -> None:
    """Set all adapters from a seed: A uniform (Kaiming), B zero, so that the model at first computes what it did."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if ".lora_A." in name:
            bound = 1 / math.sqrt(parameter.shape[1])
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        elif ".lora_" in name:
            parameter.zero_()


def save_adapters(network: nn.Module, model: ModelConfig, folder: Path) -> None:
    """Write the adapters alone, as `peft.PeftModel.from_pretrained` reads them."""
    tensors = {
        f"base_model.model.{name.replace('.default.', '.')}": parameter.detach().cpu().contiguous()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    lora_config(model).save_pretrained(str(folder))


def merge_adapters(network: PreTrainedModel) -> None:
    """Add the adapters' products to the weights that they adapt, and remove the adapters."""
    from peft.tuners.lora import LoraLayer

    for name, layer in [item for item in network.named_modules() if isinstance(item[1], LoraLayer)]:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, layer.get_base_layer())
    network.requires_grad_(True)
