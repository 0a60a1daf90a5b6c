"""What happens around the steps of a stretch: logging, validation, saving."""

import time
from collections.abc import Callable
from typing import Any

import lightning

from replay_sweeps.store.states import METRICS
from replay_sweeps.training.lit_module import ReplayModule


class SegmentCallback(lightning.Callback):
    """Counts steps by the batches' own numbers, gathers the training series, and calls back at chosen steps.

    `at_state(step)` is called for the state before the first step and after each step; `flush` there empties `series`.
    """

    def __init__(
        self,
        start: int,
        micro_batches: int,
        tokens_per_step: int,
        utilisation: float,
        at_state: Callable[[int], None],
        on_step: Callable[[int], None],
    ) -> None:
        self.start, self.micro_batches, self.tokens_per_step = start, micro_batches, tokens_per_step
        self.utilisation = utilisation  # MFU per token/s
        self.at_state, self.on_step = at_state, on_step
        self.series: dict[str, list[Any]] = {}
        self._began = 0.0
        self._paused = 0.0
        self._timed_step = start
        self.flush()

    def flush(self) -> dict[str, list[Any]]:
        """The series since the last flush."""
        series, self.series = self.series, {name: [] for name in ("step", *METRICS)}
        return series

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.at_state(self.start)
        self._began = time.perf_counter()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, ReplayModule)
        if batch_idx % self.micro_batches == 0:
            module.begin_step(batch["step"])
        module.sync_gradients((batch_idx + 1) % self.micro_batches == 0)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert isinstance(module, ReplayModule)
        if (batch_idx + 1) % self.micro_batches:
            return
        step = batch["step"]
        module.end_step(step)
        if module.logged is not None:
            elapsed = time.perf_counter() - self._began - self._paused
            rate = (step + 1 - self._timed_step) * self.tokens_per_step / max(elapsed, 1e-9)
            self._timed_step, self._began, self._paused = step + 1, time.perf_counter(), 0.0
            values = {**module.logged, "tokens_per_second": rate, "mfu": rate * self.utilisation}
            self.series["step"].append(step)
            for name in METRICS:
                self.series[name].append(values[name])
        self.on_step(step + 1)
        paused = time.perf_counter()
        self.at_state(step + 1)
        self._paused += time.perf_counter() - paused
