"""A rank that follows: it trains each stretch that rank 0 tells it of, until it is let go or rank 0 is gone."""

import logging
import os
import platform
import re
import signal
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
from replay_sweeps.workers.work_order import WorkOrder
from replay_sweeps.workers.worker_context import WorkerContext
from replay_sweeps.workers.worker_log import logging_to

logger = logging.getLogger(__name__)

IN_STEP = (NonFiniteLoss, DamagedFile)  # raised by all ranks at the same point: they go on together
SILENCE = timedelta(minutes=30)  # after which a rank that says nothing counts as gone, saving a large state included


class _Deaf(StopFlag):
    """Rank 0 is asked to stop, and asks the others."""

    def take_signals(self) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


def uses_cuda(trainer: TrainerConfig) -> bool:
    """Whether these settings train on GPUs here."""
    return torch.cuda.is_available() and trainer.accelerator != "cpu"


def join(ranks: Ranks, store: dist.Store, trainer: TrainerConfig, threads: int) -> None:
    """Make the process group of the ranks; all of them call this at once."""
    torch.set_num_threads(trainer.threads or threads)
    cuda = uses_cuda(trainer)
    if cuda:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=dist.PrefixStore("ranks", store),
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=SILENCE,
    )


def follow(file: str, ranks: Ranks, address: tuple[str, int], threads: int) -> None:
    """Train what rank 0 tells of the study of a work file."""
    deaf = _Deaf()
    deaf.take_signals()
    store = dist.TCPStore(*address, is_master=False, wait_for_workers=False)
    order = WorkOrder.read(Path(file))
    with logging_to(order.output / "logs" / f"{platform.node()}-{os.getpid()}.log"):
        try:
            _follow(order, ranks, store, threads, deaf)
        except BaseException as error:
            logger.debug("where rank %d failed", ranks.rank, exc_info=True)
            if not is_lost_touch(error):
                with suppress(RuntimeError):
                    store.set(f"failed/{ranks.rank}", f"{type(error).__name__}: {error}".splitlines()[0])
                    store.wait([f"read/{ranks.rank}"], timedelta(seconds=5))
            os._exit(1)  # whatever threads still wait for the others
    with suppress(RuntimeError):
        dist.destroy_process_group()


def _follow(order: WorkOrder, ranks: Ranks, store: dist.TCPStore, threads: int, deaf: StopFlag) -> None:
    context = WorkerContext(order)
    store.set(f"here/{ranks.rank}", "")
    join(ranks, store, order.runs[0].trainer, threads)
    while (told := ranks.broadcast_object()) is not None:
        work = Segment(
            context.tree.runs[told["run"]],
            told["start"],
            told["stop"],
            dict(told["save_at"]),
            {step: frozenset(stores) for step, stores in told["observe_at"]},
        )
        with suppress(*IN_STEP):
            context.train(work, ranks, deaf)


def is_lost_touch(error: BaseException) -> bool:
    """Whether an error says that another rank is gone."""
    return isinstance(error, dist.DistError) or bool(re.search(r"gloo|nccl|connection|timed out", str(error), re.I))


def follow_parent(
    file: str, ranks: Ranks, address: tuple[str, int], threads: int, surroundings: dict[str, Any]
) -> None:
    """What a rank does that rank 0 started on its machine; it ends when rank 0 does."""
    end_with_parent(exit_at_once)
    if surroundings["cores"]:
        os.sched_setaffinity(0, surroundings["cores"])
    if surroundings["gpus"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = surroundings["gpus"]
    follow(file, ranks, address, threads)
