"""How Lightning places one model on the ranks: copied (DDP) or sharded (FSDP2), in processes that already run."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.models.layers import decoder_layers


class _Environment(LightningEnvironment):
    """Tells Lightning the ranks as they are. On Slurm too, where its own environment would requeue jobs."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks
        self.set_global_rank(ranks.rank)
        self.set_world_size(ranks.world)

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self.ranks.local_rank

    def node_rank(self) -> int:
        return self.ranks.rank * self.ranks.nodes // self.ranks.world

    def teardown(self) -> None:
        """Does nothing: the process group is used for many segments."""


class _Sharded(ModelParallelStrategy):
    """FSDP2 over the mesh that the engine made with the network, instead of a new mesh for each segment."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__(data_parallel_size=mesh.size(), tensor_parallel_size=1)
        self._mesh = mesh

    def setup_environment(self) -> None:
        self._setup_distributed()
        self._device_mesh = self._mesh


def trainer_placement(ranks: Ranks, mesh: DeviceMesh | None) -> dict[str, Any]:
    """The arguments of a Trainer that say on which devices it trains and how; `mesh` is that of a sharded network.

    DDP gets a bucket for each parameter. It lays out larger buckets anew after its first step, which changes the order
    in which the gradients of many ranks are summed: a resumed run would then not end in the same bits.
    """
    arguments: dict[str, Any] = {
        "devices": ranks.world // ranks.nodes,
        "num_nodes": ranks.nodes,
        "plugins": [_Environment(ranks)],
    }
    if mesh is not None:
        return {**arguments, "strategy": _Sharded(mesh)}
    if ranks.world > 1:
        copied = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True, bucket_cap_mb_list=[1e-6])
        return {**arguments, "strategy": copied}
    return arguments


def shard(row_loss: nn.Module, network: PreTrainedModel, mesh: DeviceMesh, device: torch.device) -> None:
    """Cut a network without weights into shards on a device: one FSDP group for each decoder layer, one for the rest.

    `row_loss` is the module that is called, so the rest is its group. The shards hold no values until
    `broadcast_weights` or a state sets them.
    """
    for layer in decoder_layers(row_loss):
        fully_shard(layer, mesh=mesh)
    fully_shard(row_loss, mesh=mesh)
    row_loss.to_empty(device=device)
    network.tie_weights()  # `to_empty` gave tied weights memory of their own


@torch.no_grad()
def broadcast_weights(whole: nn.Module | None, network: nn.Module, ranks: Ranks) -> None:
    """Fill a sharded network with the weights and buffers of the whole one, which rank 0 alone has."""
    tensors = {**dict(whole.named_parameters()), **dict(whole.named_buffers())} if whole is not None else {}
    for name, held in [*network.named_parameters(), *network.named_buffers()]:
        value = (
            tensors[name].detach().to(held.device, held.dtype)
            if ranks.is_rank_zero
            else torch.empty(held.shape, dtype=held.dtype, device=held.device)
        )
        if isinstance(held, DTensor):
            held.copy_(distribute_tensor(value, held.device_mesh, held.placements))
        else:
            dist.broadcast(value, 0)
            held.copy_(value)
