"""The log of a worker process: a file in the study's folder, with all details."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def logging_to(log: Path) -> Iterator[None]:
    """Also log to a file inside this block, with all details.

    When a path fails, the last lines of the file are kept as its reason, even if the worker was killed. Other handlers
    keep showing what they showed before.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    package_logger = logging.getLogger("replay_sweeps")
    level = package_logger.level
    others = [handler for handler in package_logger.handlers if handler.level == logging.NOTSET]
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for other in others:
        other.setLevel(level)
    package_logger.addHandler(handler)
    package_logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        package_logger.removeHandler(handler)
        package_logger.setLevel(level)
        for other in others:
            other.setLevel(logging.NOTSET)
        handler.close()
