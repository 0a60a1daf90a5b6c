"""A worker as a group of ranks: rank 0 is the worker, the others train the stretches that it tells them of.

The others are started on this machine, or they are tasks that a launcher started together with the worker. When one of
them is gone the group ends: a worker that started it begins another, else the worker ends and the next round goes on.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist

from replay_sweeps.child_process import forking_context
from replay_sweeps.config import TrainerConfig
from replay_sweeps.distributed.ranks import ALONE, Ranks
from replay_sweeps.errors import CannotGoOn, LostRank
from replay_sweeps.interrupt import Interrupted
from replay_sweeps.tree.paths import Segment, StudyTree
from replay_sweeps.workers.rank_process import IN_STEP, follow_parent, is_lost_touch, join, uses_cuda
from replay_sweeps.workers.submitit_tasks import STARTING, task
from replay_sweeps.workers.worker_context import forget_engines

logger = logging.getLogger(__name__)

REPORT = 10.0  # seconds that a rank gets to say why it ended, or the system to say that it is gone
PATIENCE = 30.0  # seconds that a rank gets to end by itself


class RankFailed(Exception):  # noqa: N818 - it reports what became of another process
    """Another rank ended with an exception."""


class Group:
    """The leader's side: at most one group at a time."""

    def __init__(self, file: Path, meeting: Path) -> None:
        self.file, self.meeting = file, meeting  # the study's work file; where the tasks of a launcher find rank 0
        self.ranks = ALONE
        self._store: dist.TCPStore | None = None
        self._started: list[BaseProcess] = []
        self._task = task()
        self._threads = torch.get_num_threads()
        self._lost = False

    def ready(self, trainer: TrainerConfig) -> Ranks:
        """The ranks that train with these settings; they are started where they are not there yet.

        Raises CannotGoOn where there cannot be so many, LostRank or RankFailed where one does not come up, Interrupted
        where the tasks of a launcher were lost before: the next round brings new ones.
        """
        world = trainer.world_size
        if self.ranks.world == world:
            return self.ranks
        if self._lost and self._task:
            raise Interrupted(signal.SIGTERM)
        self.close()
        try:
            self._begin(trainer, world)
        except BaseException:
            self.end()
            self._lost = True  # the tasks of a launcher, wherever they were: they are not found a second time
            raise
        return self.ranks

    def _begin(self, trainer: TrainerConfig, world: int) -> None:
        if self._task:
            self._store = self._task.host(self.meeting)
        elif world > 1:
            self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._check(trainer, world)
        if self._store is None:
            return
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        threads = len(cores) or os.cpu_count() or 1
        if self._task is None:
            threads = max(1, threads // trainer.devices)
            self._start(world, threads, cores)
        self._wait_for(world)
        ranks = self._task.ranks if self._task else Ranks(0, world)
        join(ranks, self._store, trainer, threads)
        self.ranks = ranks
        logger.debug("%d ranks train together", world)

    def _check(self, trainer: TrainerConfig, world: int) -> None:
        given = f"trainer.devices={trainer.devices} trainer.nodes={trainer.nodes}"
        tasks = self._task.ranks.world if self._task else 1
        if tasks != world and (tasks > 1 or trainer.nodes > 1):
            raise CannotGoOn(f"{given}: these are {world} processes, but the launcher started {tasks}")
        if uses_cuda(trainer) and torch.cuda.device_count() < trainer.devices:
            raise CannotGoOn(f"{given}: this process sees {torch.cuda.device_count()} GPUs on {os.uname().nodename}")

    def _start(self, world: int, threads: int, cores: list[int]) -> None:
        """Start the other ranks on this machine; they end with this process."""
        assert self._store
        context = forking_context()
        surroundings = {"cores": cores, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        address = ("127.0.0.1", self._store.port)
        for rank in range(1, world):
            told = (str(self.file), Ranks(rank, world, rank), address, threads, surroundings)
            process = context.Process(target=follow_parent, args=told, name=f"rank {rank}")
            process.start()
            self._started.append(process)

    def _wait_for(self, world: int) -> None:
        """Until all other ranks are there."""
        assert self._store
        began = time.monotonic()
        while not self._store.check([f"here/{rank}" for rank in range(1, world)]):
            self._find_lost(world)
            if time.monotonic() - began > STARTING:
                raise LostRank(f"not all of {world} ranks came up within {STARTING:.0f} seconds")
            time.sleep(0.02)

    @contextmanager
    def train(self, work: Segment, tree: StudyTree) -> Iterator[None]:
        """Tell the other ranks of a stretch; it is to be trained inside this block.

        When the ranks are out of step afterwards the group has ended. Raises LostRank or RankFailed instead of an
        error that came of what became of another rank.
        """
        if self.ranks.world == 1:
            yield
            return
        try:
            self.ranks.broadcast_object(
                {
                    "run": next(index for index, run in enumerate(tree.runs) if run is work.run),
                    "start": work.start,
                    "stop": work.stop,
                    "save_at": list(work.save_at.items()),
                    "observe_at": [[step, sorted(stores)] for step, stores in work.observe_at.items()],
                }
            )
            yield
        except IN_STEP:
            raise
        except RuntimeError as error:
            try:
                if is_lost_touch(error):
                    self._find_lost(self.ranks.world, REPORT)
                    raise LostRank(f"the ranks lost touch with each other ({error})".splitlines()[0]) from error
                raise
            finally:
                self.end()
        except BaseException:
            self.end()
            raise

    def _find_lost(self, world: int, patience: float = 0.0) -> None:
        """Raise RankFailed where a rank said why it ended, LostRank where one is gone; wait so long for either."""
        assert self._store
        began = time.monotonic()
        while True:
            for rank in range(1, world):
                if self._store.check([f"failed/{rank}"]):
                    reason = self._store.get(f"failed/{rank}").decode()
                    self._store.set(f"read/{rank}", "")
                    raise RankFailed(f"rank {rank}: {reason}")
            for rank, process in enumerate(self._started, start=1):
                if process.exitcode and process.exitcode < 0:
                    how = signal.Signals(-process.exitcode).name
                    raise LostRank(f"rank {rank} was ended by {how} (from outside, or by the system for its memory)")
                if process.exitcode is not None:
                    raise RankFailed(f"rank {rank} ended with exit code {process.exitcode}: see the study's logs/")
            if time.monotonic() - began >= patience:
                return
            time.sleep(0.05)

    def close(self) -> None:
        """Let the other ranks go, which wait for a stretch."""
        if self.ranks.world > 1:
            with suppress(RuntimeError):
                self.ranks.broadcast_object(None)
            for process in self._started:
                process.join(PATIENCE)
        self.end()
        self._lost = False

    def end(self) -> None:
        """End the group as it is."""
        for process in self._started:
            process.kill()
            process.join()
        self._started.clear()
        if self.ranks.world > 1:
            self._lost = True
            forget_engines()
            with suppress(RuntimeError):
                dist.destroy_process_group()
            torch.set_num_threads(self._threads)
        if self._task and self._store:
            self._task.gone(self.meeting)
        self.ranks, self._store = ALONE, None
