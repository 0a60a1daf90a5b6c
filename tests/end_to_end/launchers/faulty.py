"""replay-sweep with local workers, one of whose paths goes wrong: FAULT says how, FAULT_AT at which branch."""

import os
import signal
import sys

FAULT, FAULT_AT = os.environ["FAULT"], int(os.environ["FAULT_AT"])


class Unpicklable(Exception):  # noqa: N818 - what it is
    """Holds what no pickle takes."""

    def __init__(self) -> None:
        super().__init__("holds a generator")
        self.generator = (number for number in ())


def break_training() -> None:
    """Let the path that begins at FAULT_AT go wrong."""
    from replay_sweeps.workers import worker_context

    whole = worker_context.train_segment

    def train(engine, work, *rest):  # type: ignore[no-untyped-def]
        if work.start == FAULT_AT:
            if FAULT == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise Unpicklable
        return whole(engine, work, *rest)

    worker_context.train_segment = train  # type: ignore[assignment]


if __name__ == "__main__":
    from replay_sweeps import child_process
    from replay_sweeps.main import main

    child_process.PRELOAD.append("tests.end_to_end.launchers.faulty")
    sys.exit(main())
elif __name__ == "tests.end_to_end.launchers.faulty":
    break_training()
