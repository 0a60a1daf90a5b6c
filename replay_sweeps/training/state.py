"""A state as files: weights and optimizer in safetensors, nothing that is unpickled."""

import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from replay_sweeps.errors import DamagedFile

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def write_state(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Write the weights, and with `optimizer` all that training needs to go on. Raises OSError as writing does."""
    _save(_weights(network), folder / WEIGHTS)
    if optimizer is not None:
        moments = {
            f"{name}/{part}": value.detach().cpu().contiguous()
            for name, parameter in network.named_parameters()
            for part, value in optimizer.state.get(parameter, {}).items()
        }
        _save(moments, folder / OPTIMIZER)


def _save(tensors: dict[str, Tensor], file: Path) -> None:
    try:
        save_file(tensors, file)
    except SafetensorError as error:  # it names the system's error in words only
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error


def _trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, tied ones once; frozen ones are in the model that training started from."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu().contiguous() for name, parameter in _trained(network).items()}


@torch.no_grad()
def read_weights(folder: Path, network: nn.Module) -> None:
    """Copy the weights of a verified state into `network`, in place. Raises DamagedFile when they do not fit it."""
    weights = load_file(folder / WEIGHTS)
    parameters = _trained(network)
    if weights.keys() != parameters.keys() or any(weights[n].shape != p.shape for n, p in parameters.items()):
        raise DamagedFile(f"{folder} holds the weights of another model")
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


def read_optimizer(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The optimizer's state of a verified state: for each parameter its step and moments."""
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in load_file(folder / OPTIMIZER).items():
        parameter, _, part = name.rpartition("/")
        state.setdefault(parameter, {})[part] = value.clone()  # not mapped from a file that may be dropped
    return state
