"""Validation loss: the mean over fixed rows, the same for every state that is observed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from replay_sweeps.data.token_store import TokenStore


def validation_rows(store: TokenStore, row_length: int, batch_rows: int, device: torch.device) -> Iterator[Tensor]:
    """All whole rows of a store in batches of one shape, the last filled up with rows of zeros; [batch_rows, T]."""
    count = store.rows(row_length)
    tokens = np.asarray(store.open()[: count * row_length], dtype=np.int64).reshape(count, row_length)
    for begin in range(0, count, batch_rows):
        batch = np.zeros((batch_rows, row_length), dtype=np.int64)
        batch[: min(batch_rows, count - begin)] = tokens[begin : begin + batch_rows]
        yield torch.from_numpy(batch).to(device)


@torch.no_grad()
def validation_loss(
    row_loss: nn.Module,
    store: TokenStore,
    row_length: int,
    batch_rows: int,
    device: torch.device,
    autocast: AbstractContextManager[None],
) -> dict[str, float]:
    """Mean loss in nats per predicted token over all rows of a validation store, and the tokens it was taken over."""
    rows = store.rows(row_length)
    with autocast:
        losses = [row_loss(batch) for batch in validation_rows(store, row_length, batch_rows, device)]
    loss = torch.cat(losses)[:rows].double().mean()
    return {"loss": float(loss), "tokens": float(rows * (row_length - 1))}
