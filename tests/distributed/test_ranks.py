"""Ranks: one alone needs no process group; two agree on what rank 0 says, and each does its share."""

import contextlib
import math
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from replay_sweeps.distributed.ranks import ALONE, Ranks, clip_grad_norm
from replay_sweeps.errors import DamagedFile
from replay_sweeps.evaluation.loss import validation_loss
from tests.fixtures.tiny_training import ROW_LENGTH, write_rows

WORLD = 2
GRADIENTS = [[[3.0, 0.0], [0.0, 4.0], [0.0, 12.0]], [5.0]]  # three rows on two ranks, and one row
NORM = math.sqrt(3**2 + 4**2 + 12**2 + 5**2)


def test_one_rank_alone_needs_no_process_group() -> None:
    tensor = torch.arange(3)
    assert ALONE.is_rank_zero and ALONE.gather(tensor) is tensor
    assert ALONE.broadcast_int(5) == 5 and ALONE.broadcast_object({"a": [1]}) == {"a": [1]}
    assert ALONE.on_rank_zero(lambda: "result", DamagedFile) == "result"
    with pytest.raises(DamagedFile, match="broken"):
        ALONE.on_rank_zero(_fail, DamagedFile)


@pytest.mark.parametrize(("world", "rows"), [(1, 5), (2, 8), (3, 12), (4, 4)])
def test_the_shares_of_all_ranks_are_all_rows_in_order(world: int, rows: int) -> None:
    shares = [list(range(rows))[Ranks(rank, world).share(rows)] for rank in range(world)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert len({len(share) for share in shares}) == 1


def test_two_ranks_agree(tmp_path: Path) -> None:
    """All collectives in one start of two processes (gloo)."""
    store = write_rows(tmp_path / "rows", 7)
    context = multiprocessing.get_context("fork")  # which imports nothing again
    started = []
    for rank in range(WORLD):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=be_a_rank, args=(rank, tmp_path, sender), daemon=True)
        process.start()
        sender.close()
        started.append((process, receiver))
    try:
        assert all(receiver.poll(60) for _, receiver in started)
        first, second = (receiver.recv() for _, receiver in started)
    finally:
        for process, _ in started:
            process.kill()
            process.join()
    assert first == second
    assert first["gathered"] == [0, 0, 10, 10]
    assert first["int"] == 7 and first["object"] == {"from": 0}
    assert first["result"] == "rank 0" and first["error"] == "broken"
    assert first["norm"] == pytest.approx(NORM, rel=1e-6)
    clipped = torch.cat([torch.tensor(values).flatten() for values in first["clipped"]])
    assert float(clipped.norm()) == pytest.approx(1.0, rel=1e-4)
    alone = validation_loss(RowMeans(), store, ROW_LENGTH, 4, torch.device("cpu"), contextlib.nullcontext())
    assert first["validation"] == {"loss": pytest.approx(alone["loss"], rel=1e-6), "tokens": alone["tokens"]}


class RowMeans(nn.Module):
    """A row loss that is the mean of the row's tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.float().mean(dim=1)


def _fail() -> None:
    raise DamagedFile("broken")


def be_a_rank(rank: int, folder: Path, sender: Connection) -> None:
    """What each of the two processes does; it sends what it saw."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(folder / "rendezvous"), WORLD), rank=rank, world_size=WORLD
    )
    ranks = Ranks(rank, WORLD, rank)
    seen: dict[str, Any] = {
        "gathered": ranks.gather(torch.full((2,), 10 * rank)).tolist(),
        "int": ranks.broadcast_int(7 if rank == 0 else -1),
        "object": ranks.broadcast_object({"from": rank}),
        "result": ranks.on_rank_zero(lambda: f"rank {rank}", DamagedFile),
    }
    try:
        ranks.on_rank_zero(_fail, DamagedFile)
    except DamagedFile as error:
        seen["error"] = str(error)
    parameters = [nn.Parameter(torch.zeros_like(torch.tensor(values))) for values in GRADIENTS]
    for parameter, values in zip(parameters, GRADIENTS, strict=True):
        parameter.grad = torch.tensor(values)
    seen["norm"] = float(clip_grad_norm(parameters, 1.0, ranks))
    seen["clipped"] = [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None]
    store = write_rows(folder / f"rows of {rank}", 7)
    seen["validation"] = validation_loss(
        RowMeans(), store, ROW_LENGTH, 2, torch.device("cpu"), contextlib.nullcontext(), ranks=ranks
    )
    sender.send(seen)
    sender.close()
    dist.destroy_process_group()
