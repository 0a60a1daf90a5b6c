"""What a run costs beyond its training steps and validation, in process and with local workers, and where it goes.

The paper's mid-training grid at the tiny scale (33 runs). Every worker adds up what its parts take; what is paid is the
time from a launch to its end, times the workers of that launch. Imports of the command itself are not counted; starting
the process that local workers are forked from is.
"""

import functools
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RUNS = 33
GRID = ["study=paper_mid_training", "+scale=tiny", "logger=csv", "study.analyze=false", "trainer.threads=1"]
_spent: Counter[str] = Counter()


def _timed(owner: Any, name: str, part: str) -> None:
    whole = getattr(owner, name)

    @functools.wraps(whole)
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return whole(*arguments, **options)
        finally:
            _spent[part] += time.perf_counter() - began  # type: ignore[assignment]

    setattr(owner, name, timed)


def measure() -> None:
    """Let the parts of a worker be timed, and each worker leave its account in a folder."""
    from replay_sweeps.store.states import Store
    from replay_sweeps.training import callbacks, engine, segment
    from replay_sweeps.workers import worker, worker_context, worker_process

    for owner, name, part in (
        (segment, "validation_loss", "validation"),
        (Store, "put", "saving states"),
        (Store, "observe", "writing losses"),
        (worker_context, "train_segment", "train"),
        (engine.Engine, "__init__", "building the engine"),
        (worker.PathWorker, "scan", "looking at the store"),
        (worker_process.WorkerProcess, "__init__", "reading the study"),
    ):
        _timed(owner, name, part)
    start, end = callbacks.SegmentCallback.on_train_start, callbacks.SegmentCallback.on_train_batch_end
    whole = worker_process.work
    began = [0.0]

    def begin(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        began[0] = time.perf_counter()

    def finish(self: Any, *arguments: Any) -> None:
        _spent["steps"] += time.perf_counter() - began[0]  # type: ignore[assignment]
        end(self, *arguments)
        began[0] = time.perf_counter()

    def work(file: Path) -> Any:
        answer = whole(file)
        (Path(os.environ["OVERHEAD"]) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(_spent))
        _spent.clear()
        return answer

    callbacks.SegmentCallback.on_train_start = begin  # type: ignore[method-assign]
    callbacks.SegmentCallback.on_train_batch_end = finish  # type: ignore[method-assign]
    worker_process.work = work


def command() -> int:
    """The command, measured."""
    from replay_sweeps import child_process
    from replay_sweeps.main import main
    from replay_sweeps.workers.pool import WorkerPool

    whole = WorkerPool.run_round

    def paid(self: Any, workers: int, progress: Any) -> Any:
        began = time.perf_counter()
        said = whole(self, workers, progress)
        seconds = {"paid": workers * (time.perf_counter() - began)}
        (Path(os.environ["OVERHEAD"]) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(seconds))
        return said

    WorkerPool.run_round = paid  # type: ignore[method-assign]
    if "hydra/launcher=local" not in sys.argv:
        measure()
    child_process.PRELOAD.append("sweep_overhead")
    return main()


def account(arguments: list[str], folder: Path) -> dict[str, float]:
    """Seconds a run of each part."""
    accounts = folder / uuid.uuid4().hex
    accounts.mkdir()
    environment = {**os.environ, "OVERHEAD": str(accounts), "PYTHONPATH": str(Path(__file__).parent)}
    program = [sys.executable, __file__, "--measured", *GRID, *arguments]
    subprocess.run(program, check=True, env=environment, stderr=subprocess.DEVNULL)
    total: Counter[str] = Counter()
    for file in accounts.glob("*.json"):
        total.update(json.loads(file.read_text()))
    inside = sum(total[part] for part in ("steps", "validation", "saving states", "writing losses"))
    parts = {name: seconds for name, seconds in total.items() if name not in ("paid", "train")}
    parts["Lightning and reading states"] = total["train"] - inside
    parts["overhead"] = total["paid"] - total["steps"] - total["validation"]
    known = sum(seconds for name, seconds in parts.items() if name != "overhead")
    parts["starting and waiting"] = total["paid"] - known
    return {name: seconds / RUNS for name, seconds in parts.items()}


def main(tries_each: int = 3) -> None:
    from sweep_record import write

    rows = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare = [sys.executable, "-m", "replay_sweeps.main", *GRID, f"paths.output={folder / 'first'}"]
        subprocess.run(prepare, check=True, stderr=subprocess.DEVNULL)
        for name, launcher in (("in process", []), ("local, 2 workers", ["hydra/launcher=local", "workers=2"])):
            tries = []
            for number in range(tries_each):
                output = folder / f"{name} {number}"
                (output / "store").mkdir(parents=True)
                for kind in ("text", "numerics"):
                    (output / "store" / kind).symlink_to(folder / "first" / "store" / kind)
                tries.append(account([*launcher, f"paths.output='{output}'"], folder))
            tries.sort(key=lambda parts: parts["overhead"])
            row = {"launcher": name, **{part: f"{seconds:.3f}" for part, seconds in tries[len(tries) // 2].items()}}
            row["overhead"] += f" ({tries[0]['overhead']:.3f} to {tries[-1]['overhead']:.3f})"
            rows.append(row)
            print(row, flush=True)
    parts = [part for part in rows[0] if part not in ("launcher", "overhead")]
    notes = ["Seconds a run, median (range) of the tries. Overhead: all but steps and validation."]
    write("sweep_overhead", "Overhead of a run", ["launcher", "overhead", *parts], rows, notes)


if __name__ == "__main__":
    if "--measured" in sys.argv:
        sys.argv.remove("--measured")
        sys.exit(command())
    main(*map(int, sys.argv[1:]))
elif __name__ == "sweep_overhead" and "OVERHEAD" in os.environ:  # in what local workers are forked from
    measure()
