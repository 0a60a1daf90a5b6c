"""Being asked to stop: signals end training after the step in hand, with its state saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TIME_LIMIT = signal.SIGUSR2  # what a cluster sends a worker shortly before its time is over
STOPPING = (signal.SIGINT, signal.SIGTERM, TIME_LIMIT)


class Interrupted(BaseException):
    """The process was asked to stop; the state of the last whole step has been saved."""


class StopFlag:
    """Set by SIGINT, SIGTERM and the time limit; training ends after the step in hand. A second signal ends it at once.

    A second notice of the time limit changes nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._listens = False

    def _receive(self, number: int, _frame: Any) -> None:
        if self.signal is not None and number != TIME_LIMIT:
            raise Interrupted(number)
        self.signal = self.signal or number

    @contextmanager
    def listening(self) -> Iterator["StopFlag"]:
        """Handle the signals inside this block (of the main thread; elsewhere they are left as they are)."""
        self._listens = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in STOPPING}
        self.take_signals()
        try:
            yield self
        finally:
            if self._listens:
                for number, handler in before.items():
                    signal.signal(number, handler)
            self._listens = False

    def take_signals(self) -> None:
        """Handle the signals again, where another library put itself before us."""
        if self._listens:
            for number in STOPPING:
                signal.signal(number, self._receive)


@contextmanager
def raised_on_terminate() -> Iterator[None]:
    """Turn SIGTERM into Interrupted inside this block, so that what was begun is put in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, _frame: Any) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
