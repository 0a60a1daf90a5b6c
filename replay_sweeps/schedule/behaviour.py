"""A run's behaviour: what it does at every step, as run-length pieces. The only thing that keys are made of."""

import functools
import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from replay_sweeps.files import canonical_json
from replay_sweeps.schedule.data_schedule import DataSchedule
from replay_sweeps.schedule.learning_rate import Rate


@dataclass(frozen=True)
class TargetOrder:
    """Which target rows come, and in which order: they enter a key with the first step that uses target rows."""

    store: str  # fingerprint of the target's token store
    subset_seed: int
    order_seed: int
    rows: int  # N in rows: each epoch is a permutation of these


@dataclass(frozen=True)
class Mix:
    """From the row `start_row` on, the share numerator/denominator of the rows is target rows."""

    start_row: int
    numerator: int
    denominator: int
    target: TargetOrder | None  # None when there is no target row


class Piece(NamedTuple):
    """What is done at the steps [start, stop).

    Each mix holds from its `start_row` on. In the first step, the rows before the first mix belong to the piece before.
    `reset` starts the optimizer afresh at `start`.
    """

    start: int
    stop: int
    mixes: tuple[Mix, ...]
    rate: Rate
    weight_decay: float
    reset: bool

    def same_action(self, other: "Piece") -> bool:
        """Whether both do the same at every step that both cover."""
        return self[2:] == other[2:]


@dataclass(frozen=True)
class Behaviour:
    """The pieces of one run, without gaps from step 0 on, equal neighbours merged."""

    pieces: tuple[Piece, ...]

    @property
    def steps(self) -> int:
        return self.pieces[-1].stop

    @functools.cached_property
    def piece_texts(self) -> tuple[str, ...]:
        """The whole pieces as they enter keys: cached, since a grid of 10,000 runs computes many keys."""
        return tuple(map(_piece_text, self.pieces))

    def piece_at(self, step: int) -> Piece:
        """The piece that covers an optimizer step."""
        return self.pieces[bisect_right(self.pieces, step, key=lambda piece: piece.start) - 1]


def behaviour(
    schedule: DataSchedule,
    rates: Sequence[tuple[int, Rate]],
    weight_decay: float,
    target: TargetOrder,
    reset: int | None,
) -> Behaviour:
    """Join the data schedule, the learning rates and the optimizer reset of one run.

    `rates` are (first step, rate) pieces from step 0; `reset` is the step at which the optimizer starts afresh.
    """
    begins: dict[int, tuple[Mix, ...]] = {}
    for stage in schedule.stages:
        step = stage.start_row // schedule.batch_rows
        mix = Mix(stage.start_row, *stage.density.as_integer_ratio(), target if stage.density else None)
        begins[step] = (*begins.get(step, ()), mix)
    starts = sorted({*begins, *(step for step, _ in rates), *({reset} if reset else set())})
    starts = [step for step in starts if step < schedule.steps]
    pieces: list[Piece] = []
    for start, stop in zip(starts, [*starts[1:], schedule.steps], strict=True):
        mixes = begins[max(step for step in begins if step <= start)]
        rate = next(rate for step, rate in reversed(rates) if step <= start)
        piece = Piece(start, stop, mixes, rate, weight_decay, start == reset)
        if pieces and not piece.reset and pieces[-1]._replace(start=start, stop=stop, reset=False) == piece:
            pieces[-1] = pieces[-1]._replace(stop=stop)
        else:
            pieces.append(piece)
    return Behaviour(tuple(pieces))


def first_difference(one: Behaviour, other: Behaviour) -> int:
    """The first step at which the two do something different (or one has ended): they share all steps before."""
    for a, b in zip(one.pieces, other.pieces, strict=False):
        if not a.same_action(b):
            return a.start
        if a.stop != b.stop:
            return min(a.stop, b.stop)
    return min(one.steps, other.steps)


def key(root: str, run: Behaviour, step: int) -> str:
    """The name of the state after `step` optimizer steps: SHA-256 over the root and the behaviour until then."""
    whole = bisect_right(run.pieces, step, key=lambda piece: piece.stop)
    texts = list(run.piece_texts[:whole])
    if whole < len(run.pieces) and run.pieces[whole].start < step:
        texts.append(_piece_text(run.pieces[whole]._replace(stop=step)))
    return hashlib.sha256(f"[{canonical_json(root)},[{','.join(texts)}]]".encode()).hexdigest()


def _piece_text(piece: Piece) -> str:
    """A piece as it enters keys. Every value is written by name, so that a dataclass may grow a field."""
    rate = piece.rate
    return canonical_json(
        [
            piece.start,
            piece.stop,
            [_named_mix(mix) for mix in piece.mixes],
            {"shape": rate.shape, "begin": rate.begin, "end": rate.end, "first": rate.first, "last": rate.last},
            piece.weight_decay,
            piece.reset,
        ]
    )


def _named_mix(mix: Mix) -> dict[str, Any]:
    target = mix.target and {
        "store": mix.target.store,
        "subset_seed": mix.target.subset_seed,
        "order_seed": mix.target.order_seed,
        "rows": mix.target.rows,
    }
    return {
        "start_row": mix.start_row,
        "numerator": mix.numerator,
        "denominator": mix.denominator,
        "target": target,
    }
