"""The log of a worker process: a file in the study's folder, in all detail."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def logging_to(log: Path) -> Iterator[None]:
    """Also log, in all detail, to a file: its last lines are kept with a failure, even of a process that is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = logging.getLogger("replay_sweeps")
    level, others = ours.level, [handler for handler in ours.handlers if handler.level == logging.NOTSET]
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for other in others:
        other.setLevel(level)
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        for other in others:
            other.setLevel(logging.NOTSET)
        handler.close()
