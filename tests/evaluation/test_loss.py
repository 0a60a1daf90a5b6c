"""The validation loss is the plain mean over the tokens of all rows, however they are batched."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from replay_sweeps.data.token_rows import TokenRows
from replay_sweeps.data.token_store import TokenStore
from replay_sweeps.evaluation.loss import validation_loss, validation_rows
from tests.fixtures.tiny_training import ROW_LENGTH, write_rows

ROWS = 7
CPU = torch.device("cpu")


class MadeUpLoss(nn.Module):
    """A loss for each token, made up from the token alone; the padding, token 0, has a huge one."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def forward(self, tokens: Tensor, loss_mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        self.shapes.add(tuple(tokens.shape))
        losses = token_losses(tokens)
        if loss_mask is None:
            return losses.mean(dim=1)
        learned = loss_mask[:, 1:]
        return (losses * learned).sum(dim=1) / learned.sum(dim=1).clamp(min=1)


def token_losses(tokens: Tensor) -> Tensor:
    losses = (tokens[:, 1:].float() * 0.7).sin() + 2
    return torch.where(tokens[:, 1:] == 0, 1e6, losses)


def loss_of(store: TokenStore, batch_rows: int, packed: bool, row_loss: MadeUpLoss | None = None) -> dict[str, float]:
    return validation_loss(
        row_loss or MadeUpLoss(), store, ROW_LENGTH, batch_rows, CPU, contextlib.nullcontext(), packed
    )


@pytest.mark.parametrize("batch_rows", [1, 2, 3, ROWS, 10])
def test_plain_rows_are_averaged_whatever_the_batch_and_padding_does_not_count(batch_rows: int, tmp_path: Path) -> None:
    store, row_loss = write_rows(tmp_path, ROWS), MadeUpLoss()
    loss = loss_of(store, batch_rows, False, row_loss)
    expected = token_losses(torch.from_numpy(TokenRows.open(store, ROW_LENGTH).read(slice(None)))).mean()
    assert loss["loss"] == pytest.approx(float(expected), rel=1e-6)
    assert loss["tokens"] == ROWS * (ROW_LENGTH - 1)
    assert row_loss.shapes == {(batch_rows, ROW_LENGTH)}  # one shape: a compiled model is compiled once


@pytest.mark.parametrize("batch_rows", [1, 2, 3, ROWS, 10])
def test_packed_rows_count_by_their_learned_tokens(batch_rows: int, tmp_path: Path) -> None:
    store = write_rows(tmp_path, ROWS, packed=True)
    rows = TokenRows.open(store, ROW_LENGTH)
    learned = torch.from_numpy(rows.parts(slice(None))[0][:, 1:])
    losses = token_losses(torch.from_numpy(rows.read(slice(None))))[learned]
    assert len(set(learned.sum(dim=1).tolist())) > 1  # the mean over rows would be another number
    assert loss_of(store, batch_rows, True) == {
        "loss": pytest.approx(float(losses.mean()), rel=1e-6),
        "tokens": float(learned.sum()),
    }


def test_plain_rows_of_a_packed_run_have_the_loss_of_plain_rows(tmp_path: Path) -> None:
    store = write_rows(tmp_path, ROWS)
    plain, packed = loss_of(store, 3, False), loss_of(store, 3, True)
    assert packed["tokens"] == plain["tokens"]
    assert packed["loss"] == pytest.approx(plain["loss"], rel=1e-6)


def test_batches_hold_all_rows_in_order_and_then_zeros(tmp_path: Path) -> None:
    store = write_rows(tmp_path, ROWS, packed=True)
    rows = TokenRows.open(store, ROW_LENGTH)
    inputs = [torch.cat(parts) for parts in zip(*validation_rows(rows, 4, CPU, True), strict=True)]
    for values, expected in zip(inputs, (rows.read(slice(None)), *rows.parts(slice(None))), strict=True):
        np.testing.assert_array_equal(values[:ROWS], expected)
        assert not values[ROWS:].any() and len(values) == 8
