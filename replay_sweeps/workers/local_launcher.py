"""A Hydra launcher: worker processes on this machine, forked from a process that has imported torch and the rest."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from replay_sweeps.child_process import ask_to_stop, end_with_parent, forking_context

logger = logging.getLogger(__name__)

SAVE_TIMEOUT = 60.0  # seconds in which workers that are asked to stop save their last step, before they are killed


class LocalLauncher(Launcher):
    """Runs each job in a process of its own, pinned to its share of the cores or to `trainer.devices` GPUs."""

    def __init__(self, cores: int | None = None, gpus: Sequence[int] | None = None) -> None:
        self.cores, self.gpus = cores, gpus
        self.config: DictConfig | None = None
        self.loader: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `launch`."""
        self.config, self.loader = config, hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start a worker for each job and wait for all of them. If one fails, the others go on."""
        composed = [self.loader.load_sweep_config(self.config, list(job)) for job in job_overrides]
        context = forking_context()
        receivers, processes = [], []
        try:
            for index, config in enumerate(composed):
                receiver, sender = context.Pipe(duplex=False)
                share = self._share(index, len(composed), config.trainer.devices)
                arguments = (str(config.worker), share, sender)
                process = context.Process(target=_run_worker, args=arguments, name=f"worker {index}")
                process.start()
                sender.close()
                receivers.append(receiver)
                processes.append(process)
            for process in processes:
                process.join()
        except BaseException:
            _stop(processes)
            raise
        return [self._result(*ended) for ended in zip(processes, receivers, composed, strict=True)]

    def _share(self, index: int, workers: int, devices: int) -> dict[str, Any]:
        """The cores, threads and GPUs of one of several workers, each of which trains on `devices` devices."""
        gpus = visible_gpus() if self.gpus is None else [str(gpu) for gpu in self.gpus]
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        size = self.cores or max(1, len(allowed) // workers)
        cores = [allowed[(index * size + i) % len(allowed)] for i in range(size)] if allowed else []
        chosen = [gpus[(index * devices + i) % len(gpus)] for i in range(min(devices, len(gpus)))]
        return {"cores": sorted(set(cores)), "threads": size, "gpus": ",".join(chosen) or None}

    def _result(self, process: BaseProcess, receiver: Any, config: DictConfig) -> JobReturn:
        done = JobReturn(cfg=config, status=JobStatus.COMPLETED)
        try:
            done.return_value = receiver.recv() if receiver.poll() else None
        except EOFError:
            done.return_value = None
        if process.exitcode:
            how = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit code {process.exitcode}"
            logger.warning("%s ended with %s; what it held is taken up again", process.name, how)
        return done


def visible_gpus() -> list[str]:
    """The GPUs that this process sees, as CUDA names them; found without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Ask the workers to save their last step and end; kill those that do not."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(SAVE_TIMEOUT)
        process.kill()


def _run_worker(work_file: str, share: dict[str, Any], sender: Any) -> None:
    """The target of a worker process: pin it to its share, do the work, send what it returns."""
    if share["cores"]:
        os.sched_setaffinity(0, share["cores"])
    if share["gpus"] is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = share["gpus"]
    import torch

    from replay_sweeps.workers.worker_process import work

    torch.set_num_threads(share["threads"])
    end_with_parent(ask_to_stop)
    sender.send(work(Path(work_file)))
    sender.close()
    sys.stdout.flush()
