"""The processes that train one model together, as one of them sees them: its rank, its share, what all must agree on.

Rank 0 decides (when to save, whether to stop) and writes; the others do as it says. Collectives of CPU tensors always
use gloo, also where training uses GPUs: the end of another process then shows at once as a closed connection.
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
    local_rank: int = 0  # among the ranks of its node
    nodes: int = 1

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the rank that decides and writes."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """This rank's contiguous share of `rows` rows; `rows` must be a multiple of `world`."""
        size = rows // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, concatenated along the first dimension in the order of ranks; all of one shape."""
        if self.world == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def broadcast_int(self, value: int = 0) -> int:
        """The integer that rank 0 passes; what the other ranks pass is ignored."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.int64)
        dist.broadcast(tensor, 0)
        return int(tensor)

    def broadcast_object(self, value: Any = None) -> Any:
        """The JSON value that rank 0 passes; what the other ranks pass is ignored."""
        if self.world == 1:
            return value
        text = json.dumps(value).encode() if self.is_rank_zero else b""
        tensor = torch.empty(self.broadcast_int(len(text)), dtype=torch.uint8)
        if self.is_rank_zero:
            tensor.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(tensor, 0)
        return json.loads(tensor.numpy().tobytes())

    def on_rank_zero(self, do: Callable[[], Any], expected: type[Exception]) -> Any:
        """Call `do` on rank 0 alone; all ranks return its result, a JSON value, or raise its exception of that type."""
        outcome: dict[str, Any] = {}
        if self.is_rank_zero:
            try:
                outcome = {"value": do()}
            except expected as error:
                outcome = {"error": str(error)}
        outcome = self.broadcast_object(outcome)
        if "error" in outcome:
            raise expected(outcome["error"])
        return outcome["value"]


ALONE = Ranks()


def clip_grad_norm(parameters: Sequence[nn.Parameter], max_norm: float, ranks: Ranks) -> Tensor:
    """Clip the gradients by their norm over all parameters, and return that norm.

    Each rank computes the norm of its share of the rows of every gradient, which is the share that it holds of a
    sharded model. A sharded and a copied model are therefore clipped by the same bits.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local_gradients = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    shares = [
        local if isinstance(gradient, DTensor) else _chunk(local, ranks)
        for gradient, local in zip(gradients, local_gradients, strict=True)
    ]
    norm = torch.linalg.vector_norm(ranks.gather(nn.utils.get_total_norm(shares).reshape(1)))
    torch._foreach_mul_(local_gradients, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    return norm


def _chunk(tensor: Tensor, ranks: Ranks) -> Tensor:
    """This rank's rows of a tensor, cut as FSDP2 cuts it; the last ranks may get none."""
    chunks = tensor.chunk(ranks.world)
    return chunks[ranks.rank] if ranks.rank < len(chunks) else tensor[:0]
