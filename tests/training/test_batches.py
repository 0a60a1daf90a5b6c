"""Micro-batches: however a step is cut, its loss is the mean over its learned tokens, and each row comes once."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.training.batches import ROW_INPUTS, Batch, Batches
from replay_sweeps.tree.paths import Segment
from tests.fixtures.tiny_training import BATCH_ROWS, STAGE2, STEPS, TinyRun, tiny_run

CUTS = [(8, 1), (4, 1), (2, 1), (1, 1), (4, 2), (2, 2), (1, 2), (2, 4), (1, 8)]  # rows of a micro-batch, ranks


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "packed"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return tiny_run(tmp_path_factory.mktemp("batches"), packed=request.param)


def batches_of(tiny: TinyRun, micro_rows: int, world: int, start: int = 0, stop: int = STEPS) -> list[Batches]:
    """The batches of each rank."""
    segment = Segment(tiny.run, start, stop, {}, {})
    return [Batches(segment, tiny.token_stores, micro_rows, Ranks(rank, world)) for rank in range(world)]


def by_step(batches: list[Batches]) -> Iterator[list[Batch]]:
    """The micro-batches of all ranks, step by step."""
    together = [batch for one in batches for batch in one]
    for step in sorted({batch["step"] for batch in together}):
        yield [batch for batch in together if batch["step"] == step]


def made_up_losses(batch: Batch) -> torch.Tensor:
    """A loss for each token of a row but the first, made up from the token alone; [rows, T-1]."""
    return (batch["tokens"][:, 1:].double() * 0.7).sin() + 2


def row_losses(batch: Batch) -> torch.Tensor:
    """The mean of a row's learned tokens, as the row loss gives it."""
    losses = made_up_losses(batch)
    learned = batch["loss_mask"][:, 1:] if "loss_mask" in batch else torch.ones_like(losses)
    return (losses * learned).sum(dim=1) / learned.sum(dim=1).clamp(min=1)


def mean_over_tokens(micro_batches: list[Batch]) -> float:
    """The mean loss of the learned tokens of a step, computed without weights."""
    losses = torch.cat([made_up_losses(batch).flatten() for batch in micro_batches])
    if "loss_mask" in micro_batches[0]:
        losses = losses[torch.cat([batch["loss_mask"][:, 1:].flatten() for batch in micro_batches])]
    return float(losses.mean())


@pytest.mark.parametrize(("micro_rows", "world"), CUTS)
def test_the_mean_over_micro_batches_is_the_mean_over_learned_tokens(
    tiny: TinyRun, micro_rows: int, world: int
) -> None:
    steps = list(by_step(batches_of(tiny, micro_rows, world)))
    assert len(steps) == STEPS
    for micro_batches in steps:
        assert len(micro_batches) == BATCH_ROWS // micro_rows
        parts = [float((row_losses(batch) * batch["weight"]).sum()) for batch in micro_batches]
        assert np.mean(parts) == pytest.approx(mean_over_tokens(micro_batches), rel=1e-6)


@pytest.mark.parametrize(("micro_rows", "world"), CUTS)
def test_the_rows_of_all_ranks_are_those_of_one_process(tiny: TinyRun, micro_rows: int, world: int) -> None:
    def rows(batches: list[Batches]) -> list[Counter[tuple[bytes, ...]]]:
        return [
            Counter(
                tuple(batch[name][row].numpy().tobytes() for name in (*ROW_INPUTS, "is_target") if name in batch)
                for batch in micro_batches
                for row in range(len(batch["tokens"]))
            )
            for micro_batches in by_step(batches)
        ]

    assert rows(batches_of(tiny, micro_rows, world)) == rows(batches_of(tiny, BATCH_ROWS, 1))


def test_a_segment_yields_its_own_steps_in_order_and_again_from_the_start(tiny: TinyRun) -> None:
    [batches] = batches_of(tiny, 4, 1, start=2, stop=5)
    expected = [2, 2, 3, 3, 4, 4]
    assert [batch["step"] for batch in batches] == expected == [batch["step"] for batch in batches]
    assert len(batches) == len(expected) and batches.micro_batches == 2


def test_target_rows_come_in_stage_2_alone(tiny: TinyRun) -> None:
    [batches] = batches_of(tiny, BATCH_ROWS, 1)
    counts = [int(batch["is_target"].sum()) for batch in batches]
    assert counts == [0] * STAGE2 + [BATCH_ROWS // 2] * (STEPS - STAGE2)


def test_a_batch_has_the_inputs_of_the_row_loss_alone(tiny: TinyRun) -> None:
    packed = tiny.run.config.target.format == "chat"
    [batches] = batches_of(tiny, 4, 1)
    batch = next(iter(batches))
    assert {name for name in ROW_INPUTS if name in batch} == (set(ROW_INPUTS) if packed else {"tokens"})
