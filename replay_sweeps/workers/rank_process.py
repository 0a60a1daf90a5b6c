"""A rank other than 0: it trains each segment that rank 0 sends, until rank 0 sends no more or is gone."""

import logging
import os
import platform
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from replay_sweeps.child_process import end_with_parent, exit_at_once
from replay_sweeps.config import TrainerConfig
from replay_sweeps.distributed.ranks import Ranks
from replay_sweeps.errors import DamagedFile
from replay_sweeps.interrupt import STOPPING, StopFlag
from replay_sweeps.training.lit_module import NonFiniteLoss
from replay_sweeps.tree.paths import Segment
from replay_sweeps.tree.planned_run import PlannedRun
from replay_sweeps.workers.work_order import WorkOrder
from replay_sweeps.workers.worker_context import WorkerContext
from replay_sweeps.workers.worker_log import logging_to

logger = logging.getLogger(__name__)

RAISED_BY_ALL_RANKS = (NonFiniteLoss, DamagedFile)  # at the same point of training: the ranks can go on together
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # after so long a silent rank counts as gone; long enough to save a state


class _IgnoredSignals(StopFlag):
    """Ignores the signals to stop: rank 0 receives them, and tells the other ranks at the end of a step."""

    def take_signals(self) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


def uses_cuda(trainer: TrainerConfig) -> bool:
    """Whether these settings train on GPUs here."""
    return torch.cuda.is_available() and trainer.accelerator != "cpu"


def join_process_group(ranks: Ranks, store: dist.Store, trainer: TrainerConfig, threads: int) -> None:
    """Join the process group of torch.distributed; returns when all ranks have called this."""
    torch.set_num_threads(trainer.threads or threads)
    cuda = uses_cuda(trainer)
    if cuda:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=dist.PrefixStore("ranks", store),
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=COLLECTIVE_TIMEOUT,
    )


def segment_message(segment: Segment, runs: Sequence[PlannedRun]) -> dict[str, Any]:
    """A segment as rank 0 sends it to the other ranks: JSON, with its run's index among the runs of the study."""
    return {
        "run": next(index for index, run in enumerate(runs) if run is segment.run),
        "start": segment.start,
        "stop": segment.stop,
        "save_at": list(segment.save_at.items()),
        "observe_at": [[step, sorted(sets)] for step, sets in segment.observe_at.items()],
    }


def _received_segment(message: Mapping[str, Any], runs: Sequence[PlannedRun]) -> Segment:
    """The segment of a message that `segment_message` made."""
    return Segment(
        runs[message["run"]],
        message["start"],
        message["stop"],
        dict(message["save_at"]),
        {step: frozenset(sets) for step, sets in message["observe_at"]},
    )


def run_rank(work_file: str, ranks: Ranks, address: tuple[str, int], threads: int) -> None:
    """Be one of the ranks, for the study of a work file, until rank 0 sends no more segments."""
    signals = _IgnoredSignals()
    signals.take_signals()
    store = dist.TCPStore(*address, is_master=False, wait_for_workers=False)
    order = WorkOrder.read(Path(work_file))
    with logging_to(order.output / "logs" / f"{platform.node()}-{os.getpid()}.log"):
        try:
            _train_segments(order, ranks, store, threads, signals)
        except BaseException as error:
            logger.debug("where rank %d failed", ranks.rank, exc_info=True)
            if not is_connection_lost(error):
                with suppress(RuntimeError):
                    store.set(f"failed/{ranks.rank}", f"{type(error).__name__}: {error}".splitlines()[0])
                    store.wait([f"read/{ranks.rank}"], timedelta(seconds=5))
            os._exit(1)  # threads may still wait for the other ranks
    with suppress(RuntimeError):
        dist.destroy_process_group()


def _train_segments(order: WorkOrder, ranks: Ranks, store: dist.TCPStore, threads: int, stop: StopFlag) -> None:
    context = WorkerContext(order)
    store.set(f"here/{ranks.rank}", "")
    join_process_group(ranks, store, order.runs[0].trainer, threads)
    while (message := ranks.broadcast_object()) is not None:
        with suppress(*RAISED_BY_ALL_RANKS):
            context.train(_received_segment(message, context.tree.runs), ranks, stop)


def is_connection_lost(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    return isinstance(error, dist.DistError) or bool(re.search(r"gloo|nccl|connection|timed out", str(error), re.I))


def run_started_rank(
    work_file: str, ranks: Ranks, address: tuple[str, int], threads: int, environment: dict[str, Any]
) -> None:
    """`run_rank` in a process that rank 0 started on its machine; the process ends when rank 0 does."""
    end_with_parent(exit_at_once)
    if environment["cores"]:
        os.sched_setaffinity(0, environment["cores"])
    if environment["gpus"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = environment["gpus"]
    run_rank(work_file, ranks, address, threads)
