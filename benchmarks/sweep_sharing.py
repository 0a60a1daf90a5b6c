"""What sharing saves on the clock: a scaled-down copy of the paper's mid-training grid, as a tree and run by run.

Both sides run in this process, one after the other, on the same prepared text, with the same engine (built and warm):
the naive side is the same grid with a store of its own for each run.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sweep_record import write

from replay_sweeps.models.numerics import measured_rates
from replay_sweeps.plan.report import plan_report
from replay_sweeps.study.command import read_command
from replay_sweeps.study.study import Study, hydra_loader, resolve_study
from replay_sweeps.tree.enough_text import prepare_texts
from replay_sweeps.tree.study_plan import plan_study
from replay_sweeps.workers.work_order import WorkOrder
from replay_sweeps.workers.worker_process import WorkerProcess


def study_of(folder: Path, more: list[str]) -> Study:
    """The scaled-down grid: the tiny scale with a model large enough for a step to weigh something."""
    given = ["study=paper_mid_training", "+scale=tiny", f"paths.output={folder}", "trainer.threads=1", "logger=csv"]
    shape = ["model.hidden_size=96", "model.mlp_size=256", "model.layers=4", "evaluation.tokens=512", *more]
    with hydra_loader() as loader:
        return resolve_study(read_command([*given, *shape], loader), loader)


def timed(study: Study, runs: list[int], source: Path, rates: dict) -> float:
    """Seconds that a worker takes to train some runs on an empty store with prepared text."""
    with TemporaryDirectory(dir=source.parent) as folder:
        store = Path(folder) / "store"
        store.mkdir()
        (store / "text").symlink_to(source / "text")
        some = replace(study, runs=tuple(study.runs[run] for run in runs), store=store, in_process=False)
        order = WorkOrder.of(plan_study(some, prepare_texts(some.runs, store), rates))
        worker = WorkerProcess(Path(folder) / "work.json", order, Path(folder) / "log")
        began = time.perf_counter()
        worker.work()
        return time.perf_counter() - began


def main(more: list[str]) -> None:
    with TemporaryDirectory() as folder:
        study = study_of(Path(folder) / "study", more)
        prepare_texts(study.runs, study.store)
        rates = measured_rates(study.store)
        timed(study, [0], study.store, rates)  # builds the engine and warms the caches
        everything = list(range(len(study.runs)))
        report = plan_report(plan_study(study, None, None))
        trees, naives = [], []
        for part in range(3):  # naive runs between tree runs, so that another load on the machine meets both
            trees.append(timed(study, everything, study.store, rates))
            naives += [timed(study, [run], study.store, rates) for run in everything[part::3]]
        tree, naive = sorted(trees)[1], sum(naives)
    rows = [
        {"": "steps", "run by run": report["steps_alone"], "as a tree": report["steps_shared"]},
        {"": "seconds", "run by run": round(naive, 1), "as a tree": round(tree, 1)},
    ]
    rows[0]["ratio"], rows[1]["ratio"] = round(report["ratio"], 2), round(naive / tree, 2)
    spread = f"Tree: median of {', '.join(f'{seconds:.1f}' for seconds in trees)} s."
    apart = f"Measured over planned: {naive / tree / report['ratio']:.3f}."
    write(
        "sweep_sharing",
        "Sharing, planned and measured",
        ["", "run by run", "as a tree", "ratio"],
        rows,
        [spread, apart],
    )
    print(rows, spread, apart)


if __name__ == "__main__":
    main(sys.argv[1:])
