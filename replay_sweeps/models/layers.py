"""The decoder layers of a network: their activations computed anew in the backward pass, or compiled one by one."""

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from replay_sweeps.errors import UserError


def decoder_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that a network repeats, in order."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_activations(network: PreTrainedModel) -> None:
    """Keep a layer's input alone until its backward pass, which computes the rest anew: less memory, a third more work.

    Raises UserError for an architecture that cannot do so.
    """
    try:
        network.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    except ValueError as error:
        raise UserError(f"trainer.activation_checkpointing=true: {error}") from error
    for layer in decoder_layers(network):
        layer.training = True  # what layers ask before they do so; all below them stays as in evaluation: no dropout


def compile_layers(network: nn.Module) -> None:
    """Compile each decoder layer alone: layers of one shape share what was compiled."""
    for layer in decoder_layers(network):
        layer.compile(dynamic=False)
