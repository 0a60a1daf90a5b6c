"""One calm line of progress on stderr: runs done, steps done, tokens a second, time left."""

import sys
import time
from typing import TextIO


class Progress:
    """Rewrites one line on a terminal twice a second; elsewhere prints a line every half minute."""

    def __init__(self, runs: int, stream: TextIO | None = None) -> None:
        self.runs, self.runs_done = runs, 0
        self.steps_left = self.steps_done = 0
        self.tokens = 0
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self._began = time.monotonic()
        self._next = 0.0

    def scanned(self, runs_done: int, steps_left: int) -> None:
        """The store was looked at anew: so many runs are done, so many steps are left."""
        self.runs_done, self.steps_left = runs_done, steps_left
        self._show(force=self.on_terminal)

    def stepped(self, tokens: int) -> None:
        """One more optimizer step of so many tokens. The clock starts after the first, which waits for a compiler."""
        if self.steps_done == 0:
            self._began = time.monotonic()
        self.steps_done, self.steps_left, self.tokens = self.steps_done + 1, self.steps_left - 1, self.tokens + tokens
        self._show()

    def seen(self, runs_done: int, steps_left: int, tokens_per_step: int) -> None:
        """Other processes do the work: so many runs are done, so many steps are left by now."""
        steps = max(0, self.steps_left - steps_left)  # more may be left than before: what one step showed to be missing
        self.runs_done, self.steps_left = runs_done, steps_left
        self.steps_done, self.tokens = self.steps_done + steps, self.tokens + steps * tokens_per_step
        self._show()

    def line(self, now: float) -> str:
        """What is shown `now` (seconds, monotonic)."""
        elapsed = max(now - self._began, 1e-9)
        parts = [
            f"runs {self.runs_done}/{self.runs}",
            f"steps {self.steps_done:,}/{self.steps_done + self.steps_left:,}",
        ]
        if self.steps_done > 1:
            left = int(self.steps_left * elapsed / self.steps_done)
            clock = (
                f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
                if left >= 3600
                else f"{left // 60}:{left % 60:02}"
            )
            parts += [f"{self.tokens / elapsed:,.0f} tokens/s", f"{clock} left"]
        return " · ".join(parts)

    def close(self) -> None:
        """Show the last line and end it."""
        self._show(force=True)
        if self.on_terminal:
            print(file=self.stream, flush=True)

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now < self._next:
            return
        self._next = now + (0.5 if self.on_terminal else 30.0)
        text = self.line(now)
        print(
            f"\r{text:<78}" if self.on_terminal else text,
            end="" if self.on_terminal else "\n",
            file=self.stream,
            flush=True,
        )
