"""The command `replay-store`: lists what a store holds, drops what no study needs, exports runs as models."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from replay_sweeps.errors import UserError, storage_problem
from replay_sweeps.store.export import export_run
from replay_sweeps.store.gc import collect_garbage, megabytes
from replay_sweeps.store.marker import check_is_store
from replay_sweeps.store.states import Store
from replay_sweeps.store.study_records import StudyRecord, forget_study, study_files

DESCRIPTION = """\
A store keeps the states (weights and optimizer) that sweeps have trained, so that later sweeps go on from them.
Studies keep what they need until they are forgotten (`forget`); `gc` drops the rest. What was dropped stays in the
store's trash for a day, and can be trained again after that."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 when workers or a disk are in the way, 2 when the command was wrong."""
    given = _parser().parse_args(arguments)
    if not given.store.is_dir():
        print(f"replay-store: {given.store} is not a store; give its folder with --store", file=sys.stderr)
        return 2
    store = Store(given.store)
    try:
        if given.command == "list":
            print("\n".join(listing(store)))
        elif given.command == "gc":
            collect_garbage(store, given.dry_run, given.now)
        elif given.command == "forget":
            check_is_store(store.folder)
            print(forget_study(store.folder, given.study))
        else:
            print(export_run(store, given.run_id, given.folder, given.adapter, given.again))
    except OSError as error:
        print(f"replay-store: {storage_problem(error, store.folder, '') or error}", file=sys.stderr)
        return 1
    except UserError as error:
        for problem in error.problems:
            print(f"replay-store: {problem}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="replay-store", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)

    def add_command(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}")
        command.add_argument(
            "--store", type=Path, default=Path("outputs/store"), help="folder of the store, by default %(default)s"
        )
        return command

    add_command("list", "list the studies of a store and what each keeps")
    gc = add_command(
        "gc",
        "drop the states, records and text that no study needs",
        "What is dropped stays in the store's trash for a day, where the disk has room for it; a gc after that removes "
        "it. Nothing is dropped while a study is training. A study is never forgotten by itself, also where its folder "
        "is not there: see forget.",
    )
    gc.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    gc.add_argument("--now", action="store_true", help="remove at once what is dropped, and empty the trash")
    forget = add_command(
        "forget",
        "forget a study, so that gc drops what only that study needs",
        "Its results stay where they are. Its command, started again, finds in the store what was not dropped yet.",
    )
    forget.add_argument("study", help="the study's name, its folder, or the name of a file in the store's studies/")
    export = add_command(
        "export",
        "write a finished run as a Hugging Face folder",
        "The folder holds weights, configuration and tokenizer; LoRA adapters are merged into the weights.",
    )
    export.add_argument("run_id", help="the run, as named in the column run_id of the study's runs.csv")
    export.add_argument("folder", type=Path, help="the folder to write; it must not exist, or be empty")
    export.add_argument("--adapter", action="store_true", help="of a LoRA run, write the adapters alone")
    export.add_argument(
        "--again",
        action="store_true",
        help="if the weights were dropped, forget the run's losses too, so that the printed command trains it again",
    )
    return parser


def listing(store: Store) -> Iterator[str]:
    """One line for each study, one for the states that no study needs, and one for the sum."""
    kept = {state.path: size for state, size in store.kept_states()}
    files = study_files(store.folder)
    studies = [record for record in files.values() if isinstance(record, StudyRecord)]
    yield from (f"cannot be read: {why}" for why in files.values() if isinstance(why, str))
    for study in studies:
        sizes = [size for path, size in kept.items() if path in study.states]
        status = "complete" if study.complete else "unfinished"
        gone = "" if Path(study.output).is_dir() else ", folder gone"
        yield f"{study.study}: {len(sizes)} states, {megabytes(sizes)}, {status}{gone}, in {study.output}"
    needed = frozenset().union(*(study.states for study in studies))
    rest = [size for path, size in kept.items() if path not in needed]
    if rest:
        yield f"no study refers to: {len(rest)} states, {megabytes(rest)}"
    yield f"all: {len(kept)} states, {megabytes(list(kept.values()))}, in {store.folder}"


if __name__ == "__main__":
    sys.exit(main())
