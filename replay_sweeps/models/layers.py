"""The decoder layers of a network: checkpointing of their activations, and compiling them one by one."""

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from replay_sweeps.errors import UserError


def decoder_layers(network: nn.Module) -> list[nn.Module]:
    """The decoder layers of a network, in order."""
    return [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_activations(network: PreTrainedModel) -> None:
    """Keep only the input of each layer; the backward pass computes the rest again: less memory, a third more work.

    Raises UserError for an architecture that cannot do so.
    """
    try:
        network.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    except ValueError as error:
        raise UserError(f"trainer.activation_checkpointing=true: {error}") from error
    for layer in decoder_layers(network):
        layer.training = True  # layers checkpoint in training mode only; their modules stay in evaluation: no dropout


def compile_layers(network: nn.Module) -> None:
    """Compile each decoder layer by itself: layers of one shape share the compiled code."""
    for layer in decoder_layers(network):
        layer.compile(dynamic=False)
