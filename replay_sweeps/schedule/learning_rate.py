"""Learning-rate laws as absolute pieces: what the rate is at a step never depends on where a run was cut."""

import math
from dataclasses import dataclass
from typing import Literal

Law = Literal["wsd", "cosine", "linear", "constant"]
Shape = Literal["constant", "warmup", "linear", "cosine", "1-sqrt"]


@dataclass(frozen=True)
class Rate:
    """The learning rate over the steps [begin, end): from `first` to `last` along `shape`.

    A constant rate has begin = end = 0, so that two constants of one value are equal wherever they start.
    """

    shape: Shape
    begin: int
    end: int
    first: float
    last: float

    def at(self, step: int) -> float:
        """The learning rate of an optimizer step (0-based, absolute)."""
        if self.shape == "constant":
            return self.last
        steps = self.end - self.begin
        if self.shape == "warmup":  # reaches the peak at its last step; no step has rate 0
            return self.first + (self.last - self.first) * (step + 1 - self.begin) / steps
        progress = (step + 1 - self.begin) / (steps + 1)
        left = {
            "linear": 1 - progress,
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
            "1-sqrt": 1 - math.sqrt(progress),
        }[self.shape]
        return self.last + (self.first - self.last) * left


@dataclass(frozen=True)
class LRSchedule:
    """A schedule with a peak: warm-up, then the law. Steps are optimizer steps.

    `cooldown_steps` and `cooldown_shape` are WSD's (warm-up, stable, decay; MiniCPM, arXiv 2404.06395).
    """

    law: Law
    peak: float
    final: float
    warmup_steps: int
    cooldown_steps: int = 0
    cooldown_shape: Literal["linear", "1-sqrt"] = "linear"

    def pieces(self, start: int, stop: int) -> list[tuple[int, Rate]]:
        """The rate over the absolute steps [start, stop) as (first step, rate) pieces without gaps.

        A warm-up longer than the stretch is cut off with it.
        """
        warm = min(start + self.warmup_steps, stop)
        cool = {"wsd": max(warm, stop - self.cooldown_steps), "constant": stop}.get(self.law, warm)
        shape: Shape = self.cooldown_shape if self.law == "wsd" else self.law  # type: ignore[assignment]
        found: list[tuple[int, Rate]] = []
        if warm > start:
            found.append((start, Rate("warmup", start, start + self.warmup_steps, 0.0, self.peak)))
        if cool > warm:
            found.append((warm, Rate("constant", 0, 0, self.peak, self.peak)))
        if stop > cool:
            found.append((cool, Rate(shape, cool, stop, self.peak, self.final)))
        return found
