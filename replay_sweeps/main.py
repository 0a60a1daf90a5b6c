"""The entry point `replay-sweep`: checks a command whole, then plans it or hands it to Hydra."""

import json
import logging
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from replay_sweeps import __version__
from replay_sweeps.errors import UserError
from replay_sweeps.files import write_atomically
from replay_sweeps.interrupt import Interrupted
from replay_sweeps.study.command import GROUPS, Command, choices, config_folder, read_command, settings_with_symbol
from replay_sweeps.study.study import Study, hydra_loader, resolve_study
from replay_sweeps.workers.sweeper import study_handed_over

logger = logging.getLogger("replay_sweeps")

HELP = """replay-sweep: how much target data is replaying generic data worth?

usage: replay-sweep [study=NAME] [group=CHOICE ...] [setting=VALUE[,VALUE...] ...]

Runs a grid, trains each distinct piece of it once, writes a run table, and ends with replay-analyze.
The same command goes on where it was stopped; when all is done it trains nothing. A comma-separated
value is swept over, with or without -m.

  replay-sweep study=quickstart                        a small study on text that every machine has
  replay-sweep study=quickstart plan=true              what would be done, and what sharing saves; plan=json too
  replay-sweep study=quickstart +scale=tiny            the same shape of grid in about a minute
  replay-sweep schedule.replay_fraction=0,0.5,0.875    a grid of your own
  replay-sweep study=quickstart study.name=mine target=local target.path=DIR
                                                       your own text as the target
  replay-sweep study=finetune_pretrained model.path=DIR target.path=DIR generic.path=DIR budget=2h
                                                       your own model and text: how much to replay, within two hours

groups and their choices:
{groups}

settings that studies sweep most:
{settings}

other settings: see the files of conf/, one folder a group. paths.output=DIR and paths.store=DIR say where a study
writes and where trained states live. replay-analyze RUNS analyses any run table; replay-store list shows the store,
replay-store export RUN_ID DIR writes a run as a model that transformers loads.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 when runs failed, 2 when the command was wrong."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _log_to_stderr()
    warnings.filterwarnings("ignore", "(?s).*validated against ConfigStore schema")  # launchers' own: meant so
    if {"--help", "-h"} & set(given):
        groups = "\n".join(f"  {group:11} {', '.join(choices(group))}" for group in GROUPS)
        print(HELP.format(groups=groups, settings="\n".join(f"  {line}" for line in settings_with_symbol())))
        return 0
    if "--version" in given:
        print(__version__)
        return 0
    try:
        with hydra_loader() as loader:
            command = read_command(given, loader)
            study = resolve_study(command, loader)
        wanted = study.runs[0].plan
        if wanted != "false":
            return _plan(study, wanted)
        _run(command, study)
    except UserError as error:
        for problem in error.problems:
            print(f"replay-sweep: {problem}", file=sys.stderr)
        return error.exit_code
    return _finish(study)


def _plan(study: Study, wanted: str) -> int:
    from replay_sweeps.data.study_texts import find_texts
    from replay_sweeps.models.numerics import known_rates
    from replay_sweeps.plan.decision import within_budget
    from replay_sweeps.plan.drawing import tree_svg
    from replay_sweeps.plan.report import plan_report, plan_text, small_tree_lines
    from replay_sweeps.tree.study_plan import plan_study

    texts = find_texts(study.runs, study.store)
    plan = within_budget(plan_study(study, texts, known_rates(study.store)), measure=None)
    report = plan_report(plan)
    if wanted.endswith(".svg"):
        write_atomically(Path(wanted).absolute(), tree_svg(plan.tree, study.axes).encode())
    print(json.dumps(report) if wanted == "json" else plan_text(report, small_tree_lines(plan.tree, study.axes)))
    return 0


def _run(command: Command, study: Study) -> None:
    """Hand the study to Hydra, whose sweeper starts the workers."""
    before = sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that our errors arrive here as they are
    sys.argv = ["replay-sweep", "--multirun", *command.arguments]
    try:
        with study_handed_over(command, study):
            hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(_task)()
    except (Interrupted, KeyboardInterrupt):
        print("replay-sweep: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()


def _task(config: DictConfig) -> dict[str, Any] | None:
    """What the launcher runs: one worker."""
    from replay_sweeps.workers.worker_process import work

    return work(Path(config.worker))


def _finish(study: Study) -> int:
    """Say what failed, and end with the answer."""
    import pandas as pd

    runs = pd.read_parquet(study.output / "runs.parquet")
    failed, pending = (runs[runs.status == status] for status in ("failed", "pending"))
    answered = not (study.analyze and (runs.status == "done").any()) or _analyze(study)
    for run in failed.itertuples():
        print(f"replay-sweep: run {run.run_id} failed: {run.reason}", file=sys.stderr)
    if len(failed) or len(pending):
        print(
            f"replay-sweep: {len(failed)} runs failed, {len(pending)} were not finished; the same command tries just "
            f"those again: {study.command}",
            file=sys.stderr,
        )
        return 1
    return 0 if answered else 1


def _analyze(study: Study) -> bool:
    """End with the answer; whether there is one. Where not, the analysis said why, and this says what to do."""
    sys.stdout.flush()
    # -P: a folder named `analysis` where the command was typed is not ours.
    ended = subprocess.run([sys.executable, "-P", "-m", "analysis.main", str(study.output)], check=False).returncode
    if ended:
        again = shlex.join(["replay-analyze", str(study.output)])
        print(
            f"replay-sweep: the runs are in {study.output / 'runs.parquet'}, but the analysis ended without an answer "
            f"(exit code {ended}); mend what it says, then: {again}",
            file=sys.stderr,
        )
    return not ended


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("replay_sweeps")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(os.environ.get("REPLAY_SWEEPS_LOG", "INFO").upper())


if __name__ == "__main__":
    sys.exit(main())
