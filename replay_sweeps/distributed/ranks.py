"""The processes that train one model together, as each of them sees it: its number, its share, what all must agree on.

Rank 0 decides (when to save, whether to stop) and writes; the others follow. Collectives of CPU tensors go through gloo
whatever the device, so that a process that is gone is noticed as a closed connection.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class Ranks:
    """One rank among `world`; its process group is the default one of torch.distributed."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among those of its node
    nodes: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the rank that decides and writes."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This rank's contiguous share of rows, of which there is a whole multiple of `world`."""
        size = rows // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape, along their first dimension in the order of ranks."""
        if self.world == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def broadcast_int(self, value: int = 0) -> int:
        """The integer that rank 0 gives."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.int64)
        dist.broadcast(tensor, 0)
        return int(tensor)

    def broadcast_object(self, value: Any = None) -> Any:
        """The JSON value that rank 0 gives."""
        if self.world == 1:
            return value
        text = json.dumps(value).encode() if self.is_rank_zero else b""
        tensor = torch.empty(self.broadcast_int(len(text)), dtype=torch.uint8)
        if self.is_rank_zero:
            tensor.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(tensor, 0)
        return json.loads(tensor.numpy().tobytes())

    def on_rank_zero(self, do: Callable[[], Any], expected: type[Exception]) -> Any:
        """What `do` returns on rank 0 alone, a JSON value. An exception of the expected type is raised on all ranks."""
        said: dict[str, Any] = {}
        if self.is_rank_zero:
            try:
                said = {"value": do()}
            except expected as error:
                said = {"error": str(error)}
        said = self.broadcast_object(said)
        if "error" in said:
            raise expected(said["error"])
        return said["value"]


ALONE = Ranks()


def clip_together(parameters: Sequence[nn.Parameter], most: float, ranks: Ranks) -> Tensor:
    """Clip by the norm over the gradients of all parameters, and return it.

    Each rank takes the norm of its share of rows of every gradient, the share that a sharded model holds: a sharded and
    a copied model then clip by the same bits.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    held = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    mine = [
        local if isinstance(gradient, DTensor) else _chunk(local, ranks)
        for gradient, local in zip(gradients, held, strict=True)
    ]
    norm = torch.linalg.vector_norm(ranks.gather(nn.utils.get_total_norm(mine).reshape(1)))
    torch._foreach_mul_(held, torch.clamp(most / (norm + 1e-6), max=1.0))
    return norm


def _chunk(tensor: Tensor, ranks: Ranks) -> Tensor:
    chunks = tensor.chunk(ranks.world)
    return chunks[ranks.rank] if ranks.rank < len(chunks) else tensor[:0]
