"""The files of a state: weights and optimizer in safetensors; reading them never unpickles anything.

Where every rank holds the whole model, rank 0 writes two files. Where the model is sharded, each rank writes one file,
through torch.distributed.checkpoint and in the same format. Tensors have the same names and whole shapes in both, so a
state that was written one way can be read into a model of the other.
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
    """Write the weights and, where `optimizer` is given, its state, so that training can go on. Raises OSError.

    Where the network is sharded, all ranks call this together; each writes its shard, and all return when all have
    written.
    """
    weights, moments = _weights(network), _optimizer_state(network, optimizer) if optimizer is not None else None
    if is_sharded(network):
        _write_shards(folder, {**weights, **(moments or {})})
        return
    _save_tensors(weights, folder / WEIGHTS)
    if moments is not None:
        _save_tensors(moments, folder / OPTIMIZER)


def is_sharded(network: nn.Module) -> bool:
    """Whether each rank holds only a shard of the weights."""
    return any(isinstance(parameter, DTensor) for parameter in network.parameters())


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, tied ones once; frozen ones are in the model that training started from."""
    return {name: parameter.detach() for name, parameter in network.named_parameters() if parameter.requires_grad}


def _optimizer_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{part}": value.detach()
        for name, parameter in network.named_parameters()
        for part, value in optimizer.state.get(parameter, {}).items()
    }


def _save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    with system_errors(file):
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, file)


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Turn a failed write of safetensors into the OSError that it was; safetensors gives its number in words only."""
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
    except CheckpointException as error:  # all ranks raise it when one could not write
        raise next(failure for failure, _ in error.failures.values()) from error


@torch.no_grad()
def read_weights(folder: Path, network: nn.Module) -> None:
    """Copy a verified state's weights into `network`, in place. Raises DamagedFile where names or shapes differ."""
    parameters = _weights(network)
    if (folder / WEIGHTS).is_file() and not is_sharded(network):
        weights = load_file(folder / WEIGHTS)
        _check_shapes(folder, {name: tensor.shape for name, tensor in weights.items()}, parameters)
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
        return
    _check_shapes(folder, {name: shape for name, shape in _whole_shapes(folder).items() if "/" not in name}, parameters)
    _fill(folder, parameters)


def _check_shapes(folder: Path, found: Mapping[str, torch.Size], parameters: Mapping[str, Tensor]) -> None:
    if found != {name: parameter.shape for name, parameter in parameters.items()}:
        raise DamagedFile(f"{folder} holds the weights of another model")


@torch.no_grad()
def read_optimizer(folder: Path, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The optimizer's part of a verified state: each parameter's step and moments, sharded as the network is."""
    # the tensors are copied: those of load_file are mapped from a file, and the file may be dropped
    if (folder / OPTIMIZER).is_file() and not is_sharded(network):
        moments = {name: value.clone() for name, value in load_file(folder / OPTIMIZER).items()}
    else:
        parameters = _weights(network)
        moments = {
            name: torch.empty_like(parameters[name.rpartition("/")[0]]) if shape else torch.zeros(())
            for name, shape in _whole_shapes(folder).items()
            if "/" in name
        }
        _fill(folder, moments)
    state: dict[str, dict[str, Tensor]] = {}
    for name, value in moments.items():
        parameter, _, part = name.rpartition("/")
        state.setdefault(parameter, {})[part] = value
    return state


def _whole_shapes(folder: Path) -> dict[str, torch.Size]:
    """The whole shapes of all tensors of a state, by name."""
    import torch.distributed.checkpoint as checkpoint

    known = checkpoint.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: held.size for name, held in known.items() if isinstance(held, checkpoint.TensorStorageMetadata)}


def _fill(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors from a state's files. Of a sharded tensor only this rank's shard is read."""
    import torch.distributed.checkpoint as checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that no other process takes part; none is needed
        checkpoint.load(tensors, storage_reader=checkpoint.HuggingFaceStorageReader(str(folder)), no_dist=True)
