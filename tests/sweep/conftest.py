"""Studies as the tree sees them, and a stand-in for training that writes what training would."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from replay_sweeps.command import read_command
from replay_sweeps.study import Study, hydra_loader, resolve_study
from replay_sweeps.sweep.claims import Claim
from replay_sweeps.sweep.layout import Layout, lay_out
from replay_sweeps.sweep.ledger import Work
from replay_sweeps.sweep.store import METRICS, Store, Stretch


@pytest.fixture
def study_of(tmp_path: Path) -> Callable[..., Study]:
    """The study of a command; nothing is written."""

    def make(*arguments: str) -> Study:
        with hydra_loader() as loader:
            given = [f"paths.output={tmp_path / 'output'}", *arguments]
            return resolve_study(read_command(given, loader), loader)

    return make


@pytest.fixture
def layout_of(study_of: Callable[..., Study]) -> Callable[..., Layout]:
    """The runs of a tiny grid, laid out with stand-ins for its texts: layout_of("setting=values", ...)."""

    def make(*grid: str) -> Layout:
        return lay_out(study_of("+scale=tiny", "schedule.total_tokens=32768", *grid).runs, None, None)

    return make


class FakeTraining:
    """Writes the states and losses that a work asks for, and remembers what it was asked."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.steps: list[str] = []  # the key after each step that was trained
        self.works: list[Work] = []
        self.fault: Callable[[Work], None] = lambda _: None
        self._lock = threading.Lock()

    def __call__(self, work: Work, _: Claim) -> None:
        assert not work.start or self.store.is_kept(work.state(work.start))
        with self._lock:
            self.works.append(work)
            self.steps += [work.state(step).key for step in range(work.start + 1, work.stop + 1)]
        parent = work.state(work.start) if work.start else None
        for step in range(work.start, work.stop + 1):
            state = work.state(step)
            for store in work.observe_at.get(step, ()):
                self.store.observe(state, store, {"loss": 3.0})
            if step > work.start and step in work.save_at:
                series = {name: [1.0] for name in ("step", *METRICS)}
                stretch = Stretch(parent.step if parent else 0, parent.key if parent else None, series, {}, 1.0)
                self.store.put(state, stretch, lambda folder: _write(folder), work.save_at[step])
                parent = state
                self.fault(replace(work, start=step))


def _write(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def training(tmp_path: Path) -> FakeTraining:
    """A stand-in for training, on a store of its own."""
    return FakeTraining(Store(tmp_path / "store"))
