"""Child processes: forked from one that has imported what all of them need, and gone when their parent is."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext

PRELOAD = ["replay_sweeps.main", "replay_sweeps.workers.worker_process"]  # torch, lightning and transformers, once


def forking_context() -> ForkServerContext:
    """Where processes are forked from one that has imported `PRELOAD`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def exit_at_once() -> None:
    """End this process, whatever its threads wait for."""
    os._exit(1)


def ask_to_stop() -> None:
    """Have this process save its last step and end, as SIGTERM does."""
    os.kill(os.getpid(), signal.SIGTERM)


def end_with_parent(end: Callable[[], None]) -> None:
    """In a child: call `end` when the process that started this one is gone, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        end()

    threading.Thread(target=watch, daemon=True, name="parent").start()
