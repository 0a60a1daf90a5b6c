"""Validation loss: the mean over fixed rows, which are the same for every state."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from replay_sweeps.data.token_rows import TokenRows
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.distributed.ranks import ALONE, Ranks


def validation_rows(rows: TokenRows, batch_rows: int, device: torch.device, packed: bool) -> Iterator[list[Tensor]]:
    """All rows in batches of one shape, the last padded with rows of zeros; [batch_rows, T] each.

    A batch holds the inputs of the row loss: tokens, and if `packed` the loss mask and the segments.
    """
    for begin in range(0, len(rows), batch_rows):
        part = slice(begin, begin + batch_rows)
        inputs = [rows.read(part), *(rows.parts(part) if packed else ())]
        padding = ((0, batch_rows - len(inputs[0])), (0, 0))
        yield [torch.from_numpy(np.pad(values, padding)).to(device) for values in inputs]


@torch.no_grad()
def validation_loss(
    row_loss: nn.Module,
    validation_set: TokenStore,
    row_length: int,
    batch_rows: int,
    device: torch.device,
    autocast: AbstractContextManager[None],
    packed: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Mean loss in nats per learned token over all rows of a validation set, and the number of these tokens.

    All tokens of a plain row are learned but the first. `packed`: rows hold examples that do not see each other, and a
    loss mask says which tokens are learned; plain rows of such a run are computed in the same way. Each rank computes
    `batch_rows` rows at a time; all ranks return the mean over all rows.
    """
    rows, rows_together = TokenRows.open(validation_set, row_length), batch_rows * ranks.world
    with autocast:
        losses = [
            ranks.gather(row_loss(*(values[ranks.share(rows_together)] for values in batch)))
            for batch in validation_rows(rows, rows_together, device, packed)
        ]
    loss = torch.cat(losses)[: len(rows)].double()
    if not packed:
        return {"loss": float(loss.mean()), "tokens": float(len(rows) * (row_length - 1))}
    learned = torch.from_numpy(rows.parts(slice(None))[0][:, 1:].sum(axis=1)).to(device)
    return {"loss": float((loss * learned).sum() / learned.sum()), "tokens": float(learned.sum())}
