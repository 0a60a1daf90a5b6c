"""A segment leaves in the store exactly what was asked of it, interrupted or not."""

import math
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from replay_sweeps.errors import DamagedFile
from replay_sweeps.interrupt import Interrupted, StopFlag
from replay_sweeps.store.states import Store
from replay_sweeps.training.engine import Engine
from replay_sweeps.training.lit_module import NonFiniteLoss
from replay_sweeps.training.segment import train_segment
from replay_sweeps.tree.paths import Segment
from tests.fixtures.tiny_training import NUMERICS, STEPS, VOCABULARY, TinyRun, tiny_run

TRAIN_TO_THE_END: Mapping[int, bool] = {STEPS: True}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return tiny_run(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def engine(tiny: TinyRun) -> Engine:
    return Engine(tiny.run.config, VOCABULARY, NUMERICS, peak_flops=1e12)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def train(engine: Engine, tiny: TinyRun, store: Store) -> Callable[..., None]:
    """Trains steps of the tiny run: train(start, stop, save_at, observe_at, stop_after=step)."""

    def train(
        start: int,
        stop: int,
        save_at: Mapping[int, bool],
        observe_at: Mapping[int, frozenset[str]] | None = None,
        stop_after: int | None = None,
        tiny: TinyRun = tiny,
        done: list[int] | None = None,
    ) -> None:
        flag = StopFlag()

        def on_step(step: int) -> None:
            if done is not None:
                done.append(step)
            if step == stop_after:
                flag.signal = signal.SIGTERM

        segment = Segment(tiny.run, start, stop, save_at, observe_at or {})
        train_segment(engine, segment, tiny.token_stores, store, flag, on_step)

    return train


def saved_steps(store: Store) -> list[int]:
    return [state.step for state, _ in store.kept_states()]


def tensors(store: Store, tiny: TinyRun, step: int) -> dict[str, Tensor]:
    """Weights and moments of a state."""
    folder = store.open_state(Segment(tiny.run, 0, STEPS, {}, {}).state(step))
    return {
        f"{file.name}/{name}": value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()
    }


def test_states_are_saved_where_they_are_asked_for_alone(
    train: Callable[..., None], store: Store, tiny: TinyRun
) -> None:
    done: list[int] = []
    train(0, STEPS, {3: True, STEPS: False}, done=done)
    segment = Segment(tiny.run, 0, STEPS, {}, {})
    assert saved_steps(store) == [3, STEPS] and done == list(range(1, STEPS + 1))
    assert store.is_resumable(segment.state(3))
    assert store.has_weights(segment.state(STEPS)) and not store.is_resumable(segment.state(STEPS))


def test_the_record_of_a_state_holds_what_was_logged_since_the_state_before(
    train: Callable[..., None], store: Store, tiny: TinyRun, engine: Engine
) -> None:
    train(0, STEPS, {3: True, STEPS: True})
    segment, behaviour = Segment(tiny.run, 0, STEPS, {}, {}), tiny.run.behaviour
    first, last = (store.segment_record(segment.state(step)) for step in (3, STEPS))
    assert first and last
    assert (first.parent_step, first.parent_key) == (0, None)
    assert (last.parent_step, last.parent_key) == (3, segment.state(3).key)
    starts = {piece.start for piece in behaviour.pieces}
    logged = [step for step in range(STEPS) if step % 2 == 0 or {step, step - 1} & starts]
    assert first.series["step"] == [step for step in logged if step < 3]
    assert last.series["step"] == [step for step in logged if step >= 3]
    for series in (first.series, last.series):
        assert {len(column) for column in series.values()} == {len(series["step"])}
        assert series["learning_rate"] == [behaviour.piece_at(step).rate.at(step) for step in series["step"]]
        rates = zip(series["tokens_per_second"], series["mfu"], strict=True)
        assert all(mfu == pytest.approx(rate * engine.mfu_per_token_rate) and rate > 0 for rate, mfu in rates)
    assert first.series["train_target_loss"] == [None] * len(first.series["step"])  # stage 1 has no target rows
    assert all(math.isfinite(loss) for loss in last.series["train_generic_loss"] if loss is not None)


def test_losses_are_observed_where_they_are_asked_for_and_missing(
    train: Callable[..., None], store: Store, tiny: TinyRun
) -> None:
    target, generic = tiny.validation_set("target_loss"), tiny.validation_set("generic_loss")
    segment = Segment(tiny.run, 0, STEPS, {}, {})
    known = {"loss": 1.25, "tokens": 1.0}
    store.save_observation(segment.state(2), generic, known)
    train(0, 4, {4: True}, {0: frozenset({target}), 2: frozenset({target, generic})})
    observed = {
        (step, name)
        for step in range(5)
        for name in (target, generic)
        if store.observation(segment.state(step), name) is not None
    }
    assert observed == {(0, target), (2, target), (2, generic)}
    assert store.observation(segment.state(2), generic) == known  # not computed again
    initial = store.observation(segment.state(0), target)
    assert initial and initial["loss"] == pytest.approx(math.log(VOCABULARY), abs=0.1)


def test_a_segment_without_steps_observes_its_state_and_saves_nothing(
    train: Callable[..., None], store: Store, tiny: TinyRun
) -> None:
    train(0, 3, {3: True})
    target = tiny.validation_set("target_loss")
    train(3, 3, {}, {3: frozenset({target})})
    assert saved_steps(store) == [3]
    assert store.observation(Segment(tiny.run, 3, 3, {}, {}).state(3), target)


def test_interrupted_and_resumed_it_ends_in_the_same_bits(
    train: Callable[..., None], store: Store, tiny: TinyRun
) -> None:
    train(0, STEPS, TRAIN_TO_THE_END)
    straight = tensors(store, tiny, STEPS)
    store.drop_state(Segment(tiny.run, 0, STEPS, {}, {}).state(STEPS))
    with pytest.raises(Interrupted):
        train(0, STEPS, TRAIN_TO_THE_END, stop_after=5)
    assert saved_steps(store) == [5]  # the last whole step
    train(5, STEPS, TRAIN_TO_THE_END)
    resumed = tensors(store, tiny, STEPS)
    assert straight.keys() == resumed.keys() and len(straight) > 10
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_a_state_that_only_weights_were_asked_of_can_be_resumed_where_training_was_interrupted_there(
    train: Callable[..., None], store: Store, tiny: TinyRun
) -> None:
    with pytest.raises(Interrupted):
        train(0, STEPS, {2: False}, stop_after=2)
    assert store.is_resumable(Segment(tiny.run, 0, STEPS, {}, {}).state(2))


def test_states_are_saved_whenever_the_minutes_have_passed(
    train: Callable[..., None], store: Store, tmp_path: Path
) -> None:
    hurried = tiny_run(tmp_path / "text", save_every_minutes=0.0)
    train(0, 4, {}, tiny=hurried)
    assert saved_steps(store) == [1, 2, 3]  # the last state is saved where it is asked for alone


def test_a_damaged_parent_is_dropped_and_said(train: Callable[..., None], store: Store, tiny: TinyRun) -> None:
    train(0, 2, {2: True})
    state = Segment(tiny.run, 0, 2, {}, {}).state(2)
    weights = store.open_state(state) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedFile):
        train(2, STEPS, TRAIN_TO_THE_END)
    assert not store.has_weights(state)


def test_a_validation_loss_that_is_not_finite_is_not_kept(
    train: Callable[..., None], store: Store, tiny: TinyRun, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tiny.validation_set("target_loss")
    load = engine.load

    def load_and_spoil(*arguments: object) -> None:
        load(*arguments)  # type: ignore[arg-type]
        next(engine.network.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(engine, "load", load_and_spoil)
    with pytest.raises(NonFiniteLoss, match="validation loss is nan after 0 steps"):
        train(0, 0, {}, {0: frozenset({target})})
    assert store.observation(Segment(tiny.run, 0, 0, {}, {}).state(0), target) is None
