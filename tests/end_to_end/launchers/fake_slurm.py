"""A Slurm of one machine: sbatch runs the script for real, srun its command, sacct and scancel know the processes.

State lies in $FAKE_SLURM. FAKE_SLURM_LIMIT: seconds of training after which the first job gets the signal of its time
limit; where training begins is known from a file called `training`.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(os.environ["FAKE_SLURM"])


def sbatch(file: str) -> None:
    """Start every task of the script's array."""
    script = Path(file).read_text()
    job = str(1000 + len(list(HERE.glob("*.job"))))
    array = re.search(r"#SBATCH --array=0-(\d+)", script)
    for task in range(int(array[1]) + 1) if array else [None]:
        name = job if task is None else f"{job}_{task}"
        environment = {
            **os.environ,
            "SLURM_JOB_ID": job,
            "SLURM_NTASKS": "1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "FAKE_SLURM_NAME": name,
        }
        if task is not None:
            environment |= {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": str(task)}
        process = subprocess.Popen(
            ["bash", file],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (HERE / f"{name}.job").write_text(str(process.pid))
    print(f"Submitted batch job {job}")


def srun(*arguments: str) -> int:
    """Run a step: its output where the script says, its signal when its time is over."""
    given, files = list(arguments), {}
    name = os.environ["FAKE_SLURM_NAME"]
    while given[0].startswith("--"):
        option = given.pop(0)
        if option in ("--output", "--error"):
            job, _, task = name.partition("_")
            path = given.pop(0).replace("%A", job).replace("%a", task).replace("%j", name).replace("%t", "0")
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            files[option] = Path(path).open("ab")  # noqa: SIM115 - the step inherits it
    process = subprocess.Popen(given, stdout=files.get("--output"), stderr=files.get("--error"))
    limit = os.environ.get("FAKE_SLURM_LIMIT")
    if limit and not list(HERE.glob("*.limited")):

        def end() -> None:
            while not (HERE / "training").exists():
                time.sleep(0.1)
            time.sleep(float(limit))
            if process.poll() is None:
                (HERE / f"{name}.limited").touch()
                process.send_signal(signal.SIGUSR2)

        threading.Thread(target=end, daemon=True).start()
    return process.wait()


def sacct(*_: str) -> None:
    """The states of all jobs."""
    print("JobID|State|NodeList")
    for file in HERE.glob("*.job"):
        alive = Path(f"/proc/{file.read_text()}").exists()
        print(f"{file.stem}|{'RUNNING' if alive else 'COMPLETED'}|localhost")


def scancel(*names: str) -> None:
    """End jobs."""
    for file in HERE.glob("*.job"):
        if any(file.stem.startswith(name) for name in names):
            os.killpg(int(file.read_text()), signal.SIGTERM)


def install(folder: Path) -> None:
    """Put the four commands into a folder."""
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {name} "$@"\n')
        command.chmod(0o755)


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "sacct": sacct, "scancel": scancel}[sys.argv[1]](*sys.argv[2:]))
