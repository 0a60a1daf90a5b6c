"""A worker as a group of ranks: rank 0 is the worker itself, the other ranks train the segments that it sends them.

The other ranks are processes that the worker starts on this machine, or tasks that a launcher started together with it.
When one of them is lost, the group ends. A worker that started its ranks starts new ones; a launcher's tasks are not
started again, so the worker ends and the next round goes on.
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
from replay_sweeps.tree.paths import Segment, StudyTree
from replay_sweeps.workers.rank_process import (
    RAISED_BY_ALL_RANKS,
    is_connection_lost,
    join_process_group,
    run_started_rank,
    segment_message,
    uses_cuda,
)
from replay_sweeps.workers.submitit_tasks import START_TIMEOUT, current_task
from replay_sweeps.workers.worker_context import forget_engines

logger = logging.getLogger(__name__)

REPORT_TIMEOUT = 10.0  # seconds in which a failed rank says why, or the system says that its process is gone
EXIT_TIMEOUT = 30.0  # seconds in which a rank ends by itself, before it is killed


class RankFailed(Exception):  # noqa: N818 - it reports what became of another process
    """Another rank ended with an exception."""


class TasksLost(BaseException):
    """Launcher tasks that failed cannot be joined again in this job: the worker ends, the next round starts new tasks.

    No Exception, since it says nothing of the path that was to be trained: that path has not failed.
    """


class RankGroup:
    """Rank 0's side of the ranks that train together; a worker has one group at a time."""

    def __init__(self, work_file: Path, rendezvous: Path) -> None:
        self.work_file = work_file
        self.rendezvous = rendezvous  # the folder in which a launcher's tasks find the address of rank 0
        self.ranks = ALONE
        self._store: dist.TCPStore | None = None
        self._processes: list[BaseProcess] = []  # the ranks that this worker started, from rank 1 on
        self._task = current_task()
        self._threads = torch.get_num_threads()  # of this process before it joined a group
        self._lost = False

    def start_or_reuse(self, trainer: TrainerConfig) -> Ranks:
        """The ranks that train with these settings; they are started unless they are there already.

        Raises CannotGoOn where there cannot be so many ranks, LostRank or RankFailed where one of them does not start,
        TasksLost where the tasks of the launcher failed before.
        """
        world = trainer.world_size
        if self.ranks.world == world:
            return self.ranks
        if self._lost and self._task:
            raise TasksLost("launcher tasks that failed cannot be joined again in this job")
        self.close()
        try:
            self._start(trainer, world)
        except BaseException:
            self.end()
            self._lost = True
            raise
        return self.ranks

    def _start(self, trainer: TrainerConfig, world: int) -> None:
        if self._task:
            self._store = self._task.start_store(self.rendezvous)
        elif world > 1:
            self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._check_number(trainer, world)
        if self._store is None:
            return
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        threads = len(cores) or os.cpu_count() or 1
        if self._task is None:
            threads = max(1, threads // trainer.devices)
            self._start_processes(world, threads, cores)
        self._wait_for_ranks(world)
        ranks = self._task.ranks if self._task else Ranks(0, world)
        join_process_group(ranks, self._store, trainer, threads)
        self.ranks = ranks
        logger.debug("%d ranks train together", world)

    def _check_number(self, trainer: TrainerConfig, world: int) -> None:
        """Raise CannotGoOn where the launcher's tasks or the GPUs of this machine are not as many as asked for."""
        given = f"trainer.devices={trainer.devices} trainer.nodes={trainer.nodes}"
        tasks = self._task.ranks.world if self._task else 1
        if tasks != world and (tasks > 1 or trainer.nodes > 1):
            raise CannotGoOn(f"{given}: these are {world} processes, but the launcher started {tasks}")
        if uses_cuda(trainer) and torch.cuda.device_count() < trainer.devices:
            raise CannotGoOn(f"{given}: this process sees {torch.cuda.device_count()} GPUs on {os.uname().nodename}")

    def _start_processes(self, world: int, threads: int, cores: list[int]) -> None:
        """Start the other ranks on this machine; they end with this process."""
        assert self._store
        context = forking_context()
        environment = {"cores": cores, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}
        address = ("127.0.0.1", self._store.port)
        for rank in range(1, world):
            arguments = (str(self.work_file), Ranks(rank, world, rank), address, threads, environment)
            process = context.Process(target=run_started_rank, args=arguments, name=f"rank {rank}")
            process.start()
            self._processes.append(process)

    def _wait_for_ranks(self, world: int) -> None:
        """Wait until all other ranks have started."""
        assert self._store
        began = time.monotonic()
        while not self._store.check([f"here/{rank}" for rank in range(1, world)]):
            self._raise_if_lost(world)
            if time.monotonic() - began > START_TIMEOUT:
                raise LostRank(f"not all of {world} ranks came up within {START_TIMEOUT:.0f} seconds")
            time.sleep(0.02)

    @contextmanager
    def train(self, segment: Segment, tree: StudyTree) -> Iterator[None]:
        """Send a segment to the other ranks; rank 0 trains it inside this block.

        The group ends where an error leaves the ranks at different points. An error that another rank caused is
        replaced by LostRank or RankFailed.
        """
        if self.ranks.world == 1:
            yield
            return
        try:
            self.ranks.broadcast_object(segment_message(segment, tree.runs))
            yield
        except RAISED_BY_ALL_RANKS:
            raise
        except RuntimeError as error:
            try:
                if is_connection_lost(error):
                    self._raise_if_lost(self.ranks.world, REPORT_TIMEOUT)
                    raise LostRank(f"the ranks lost touch with each other ({error})".splitlines()[0]) from error
                raise
            finally:
                self.end()
        except BaseException:
            self.end()
            raise

    def _raise_if_lost(self, world: int, timeout: float = 0.0) -> None:
        """Raise RankFailed where a rank says why it ended, LostRank where its process is gone; wait `timeout` seconds
        for either."""
        assert self._store
        began = time.monotonic()
        while True:
            for rank in range(1, world):
                if self._store.check([f"failed/{rank}"]):
                    reason = self._store.get(f"failed/{rank}").decode()
                    self._store.set(f"read/{rank}", "")
                    raise RankFailed(f"rank {rank}: {reason}")
            for rank, process in enumerate(self._processes, start=1):
                if process.exitcode and process.exitcode < 0:
                    how = signal.Signals(-process.exitcode).name
                    raise LostRank(f"rank {rank} was ended by {how} (from outside, or by the system for its memory)")
                if process.exitcode is not None:
                    raise RankFailed(f"rank {rank} ended with exit code {process.exitcode}: see the study's logs/")
            if time.monotonic() - began >= timeout:
                return
            time.sleep(0.05)

    def close(self) -> None:
        """Tell the other ranks, which wait for a segment, that there are no more, and end the group."""
        if self.ranks.world > 1:
            with suppress(RuntimeError):
                self.ranks.broadcast_object(None)
            for process in self._processes:
                process.join(EXIT_TIMEOUT)
        self.end()
        self._lost = False

    def end(self) -> None:
        """End the group at once, whatever the ranks are doing."""
        for process in self._processes:
            process.kill()
            process.join()
        self._processes.clear()
        if self.ranks.world > 1:
            self._lost = True
            forget_engines()
            with suppress(RuntimeError):
                dist.destroy_process_group()
            torch.set_num_threads(self._threads)
        if self._task and self._store:
            self._task.remove_address(self.rendezvous)
        self.ranks, self._store = ALONE, None
