"""The entry point `replay-store`: what a store holds, dropping what no study refers to, and runs as models."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from replay_sweeps.errors import UserError, storage_problem
from replay_sweeps.store.export import export_run
from replay_sweeps.store.gc import collect_garbage, megabytes
from replay_sweeps.store.states import Store
from replay_sweeps.store.study_records import study_records


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 when workers or a disk are in the way, 2 when the command was wrong."""
    parser = argparse.ArgumentParser(prog="replay-store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("list", help="the studies of a store and what they keep")
    collect = commands.add_parser("gc", help="drop what no study refers to (a study is gone when its folder is)")
    collect.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    exported = commands.add_parser("export", help="a finished run as a Hugging Face folder, adapters merged")
    exported.add_argument("run_id", help="of the study's runs.csv")
    exported.add_argument("folder", type=Path, help="a new folder")
    exported.add_argument("--adapter", action="store_true", help="of a LoRA run the adapters alone")
    exported.add_argument("--again", action="store_true", help="have weights that were dropped made again")
    for command in (shown, collect, exported):
        command.add_argument("--store", type=Path, default=Path("outputs/store"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    if not given.store.is_dir():
        print(f"replay-store: {given.store} is not a store; give its folder with --store", file=sys.stderr)
        return 2
    store = Store(given.store)
    if given.command == "list":
        print("\n".join(listing(store)))
        return 0
    try:
        if given.command == "gc":
            collect_garbage(store, given.dry_run)
        else:
            print(export_run(store, given.run_id, given.folder, given.adapter, given.again))
    except OSError as error:
        problem = storage_problem(error, store.folder, "")
        if problem is None:
            raise
        print(f"replay-store: {problem}", file=sys.stderr)
        return 1
    except UserError as error:
        for problem in error.problems:
            print(f"replay-store: {problem}", file=sys.stderr)
        return error.exit_code
    return 0


def listing(store: Store) -> Iterator[str]:
    """One line for each study, one for what none refers to, and the sum."""
    kept = {state.path: size for state, size in store.kept_states()}
    studies = study_records(store.folder)
    for study in studies:
        mine = [size for name, size in kept.items() if name in study.states]
        status = "complete" if study.complete else "unfinished"
        gone = "" if Path(study.output).is_dir() else ", folder gone"
        yield f"{study.study}: {len(mine)} states, {megabytes(mine)}, {status}{gone}, in {study.output}"
    referred = frozenset().union(*(study.states for study in studies))
    rest = [size for name, size in kept.items() if name not in referred]
    if rest:
        yield f"no study refers to: {len(rest)} states, {megabytes(rest)}"
    yield f"all: {len(kept)} states, {megabytes(list(kept.values()))}, in {store.folder}"


if __name__ == "__main__":
    sys.exit(main())
