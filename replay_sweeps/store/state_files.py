"""A state as files: weights and optimizer in safetensors, nothing that is unpickled.

A copied model's state is two files that rank 0 writes; a sharded model's a file of each rank, by
torch.distributed.checkpoint in the same format. Either is read into either: names and whole shapes are the same.
"""

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from replay_sweeps.errors import DamagedFile

WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


def write_state(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Write the weights, and with `optimizer` all that training needs to go on. Raises OSError as writing does.

    Of a sharded network each rank writes its shard: all call this together, and return when all have written.
    """
    weights, moments = _weights(network), _moments(network, optimizer) if optimizer is not None else None
    if is_sharded(network):
        _write_shards(folder, {**weights, **(moments or {})})
        return
    _save(weights, folder / WEIGHTS)
    if moments is not None:
        _save(moments, folder / OPTIMIZER)


def is_sharded(network: nn.Module) -> bool:
    """Whether each rank holds but a shard of the weights."""
    return any(isinstance(parameter, DTensor) for parameter in network.parameters())


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """What training changes, tied weights once; frozen ones are in the model that training started from."""
    return {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}


def _moments(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{part}": value.detach()
        for name, parameter in network.named_parameters()
        for part, value in optimizer.state.get(parameter, {}).items()
    }


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    with system_errors(file):
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, file)


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Raise as OSError what safetensors could not write: it names the system's error in words only."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        checkpoint.save(tensors, storage_writer=checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:  # raised by all ranks when one could not write
        raise next(failure for failure, _ in error.failures.values()) from error


@torch.no_grad()
def read_weights(folder: Path, network: nn.Module) -> None:
    """Copy the weights of a verified state into `network`, in place. Raises DamagedFile when they do not fit it."""
    parameters = _weights(network)
    if (folder / WEIGHTS).is_file() and not is_sharded(network):
        weights = load_file(folder / WEIGHTS)
        _check(folder, {name: tensor.shape for name, tensor in weights.items()}, parameters)
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
        return
    _check(folder, {name: shape for name, shape in _shapes(folder).items() if "/" not in name}, parameters)
    _read(folder, parameters)


def _check(folder: Path, found: Mapping[str, torch.Size], parameters: Mapping[str, Tensor]) -> None:
    if found != {name: parameter.shape for name, parameter in parameters.items()}:
        raise DamagedFile(f"{folder} holds the weights of another model")


@torch.no_grad()
def read_optimizer(folder: Path, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The optimizer's state of a verified state: for each parameter its step and moments, sharded as the network is."""
    # the tensors are copied: those of load_file are mapped from a file, and the file may be dropped
    if (folder / OPTIMIZER).is_file() and not is_sharded(network):
        moments = {name: value.clone() for name, value in load_file(folder / OPTIMIZER).items()}
    else:
        parameters = _weights(network)
        moments = {
            name: torch.empty_like(parameters[name.rpartition("/")[0]]) if shape else torch.zeros(())
            for name, shape in _shapes(folder).items()
            if "/" in name
        }
        _read(folder, moments)
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in moments.items():
        parameter, _, part = name.rpartition("/")
        state.setdefault(parameter, {})[part] = value
    return state


def _shapes(folder: Path) -> dict[str, torch.Size]:
    """The whole shapes of all tensors of a state, by name."""
    import torch.distributed.checkpoint as checkpoint

    known = checkpoint.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: held.size for name, held in known.items() if isinstance(held, checkpoint.TensorStorageMetadata)}


def _read(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors from a state's files; of a sharded one the shard that this rank holds, and nothing else is read."""
    import torch.distributed.checkpoint as checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no other process takes part: none is needed
        checkpoint.load(tensors, storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)), no_dist=True)
