"""What happens around the steps of a segment: each step's settings, the training series, the hook after each state."""

import time
from collections.abc import Callable
from typing import Any

import lightning

from replay_sweeps.store.states import METRICS, Series
from replay_sweeps.training.lit_module import ReplayModule


class SegmentCallback(lightning.Callback):
    """Counts steps by the numbers that the batches carry, and gathers the training series.

    `at_state(step)` is called before the first step and after each step; the time that it takes does not count towards
    tokens per second. `on_step(step)` is called after each step, before `at_state`.
    """

    def __init__(
        self,
        start: int,
        micro_batches: int,
        tokens_per_step: int,
        mfu_per_token_rate: float,
        at_state: Callable[[int], None],
        on_step: Callable[[int], None],
    ) -> None:
        self.start, self.micro_batches, self.tokens_per_step = start, micro_batches, tokens_per_step
        self.mfu_per_token_rate = mfu_per_token_rate
        self.at_state, self.on_step = at_state, on_step
        self._series = _empty_series()
        self._timed_step = start  # tokens per second are those since this step
        self._timed_since = 0.0
        self._seconds_at_states = 0.0  # since then

    def take_series(self) -> Series:
        """The series since this was last called."""
        series, self._series = self._series, _empty_series()
        return series

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.at_state(self.start)
        self._timed_since = time.perf_counter()

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
            self._log(step, module.logged)
        self.on_step(step + 1)
        began = time.perf_counter()
        self.at_state(step + 1)
        self._seconds_at_states += time.perf_counter() - began

    def _log(self, step: int, metrics: dict[str, float | None]) -> None:
        now = time.perf_counter()
        seconds = now - self._timed_since - self._seconds_at_states
        token_rate = (step + 1 - self._timed_step) * self.tokens_per_step / max(seconds, 1e-9)
        self._timed_step, self._timed_since, self._seconds_at_states = step + 1, now, 0.0
        values = {**metrics, "tokens_per_second": token_rate, "mfu": token_rate * self.mfu_per_token_rate}
        self._series["step"].append(step)
        for name in METRICS:
            self._series[name].append(values[name])


def _empty_series() -> Series:
    return {name: [] for name in ("step", *METRICS)}
