"""replay-sweep whose steps take SLOW_STEPS seconds longer, in whatever process a launcher runs them."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import replay_sweeps.main as command


def task(config: DictConfig) -> dict[str, Any] | None:
    """One worker with slow steps."""
    from replay_sweeps.training.lit_module import ReplayModule

    begin = ReplayModule.begin_step

    def slow(self: ReplayModule, step: int) -> None:
        if "FAKE_SLURM" in os.environ:
            (Path(os.environ["FAKE_SLURM"]) / "training").touch()
        time.sleep(float(os.environ.get("SLOW_STEPS", 0)))
        begin(self, step)

    ReplayModule.begin_step = slow  # type: ignore[method-assign]
    return whole(config)


whole = command._task
command._task = task
if __name__ == "__main__":
    sys.exit(command.main())
