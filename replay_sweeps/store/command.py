"""The entry point `replay-store`: what a store holds, dropping what no study refers to, and runs as models."""

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from replay_sweeps.data.pipeline import CLEAN, SAMPLED, TOKENIZERS, TOKENS
from replay_sweeps.data.prepare import only_one
from replay_sweeps.data.study_texts import text_folder
from replay_sweeps.errors import CannotGoOn, UserError, storage_problem
from replay_sweeps.store.export import export_run
from replay_sweeps.store.leases import Claims
from replay_sweeps.store.states import Store
from replay_sweeps.store.study_records import Reference, forget, references

KINDS = ("states", "records", "observations", "failures")


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
            _collect(store, given.dry_run)
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
    kept = {f"{tree}/{step:09d}-{key}": size for tree, step, key, size in store.states()}
    studies = references(store.folder)
    for study in studies:
        mine = [size for name, size in kept.items() if name in study.states]
        status = "complete" if study.complete else "unfinished"
        gone = "" if Path(study.output).is_dir() else ", folder gone"
        yield f"{study.study}: {len(mine)} states, {_megabytes(mine)}, {status}{gone}, in {study.output}"
    referred = frozenset().union(*(study.states for study in studies))
    rest = [size for name, size in kept.items() if name not in referred]
    if rest:
        yield f"no study refers to: {len(rest)} states, {_megabytes(rest)}"
    yield f"all: {len(kept)} states, {_megabytes(list(kept.values()))}, in {store.folder}"


def _megabytes(sizes: Sequence[int]) -> str:
    return f"{sum(sizes) / 1e6:,.1f} MB"


def _collect(store: Store, dry_run: bool) -> None:
    """Drop what no study refers to. Raises CannotGoOn while a study is training or preparing text."""
    if Claims(store.folder, session="").held():
        raise CannotGoOn(f"workers are training in {store.folder}; try again when they are done")
    with nullcontext() if dry_run else only_one(text_folder(store.folder), wait=False):
        _drop(store, dry_run)


def _drop(store: Store, dry_run: bool) -> None:
    studies = references(store.folder)
    gone = [study for study in studies if not Path(study.output).is_dir()]
    live = [study for study in studies if study not in gone]
    dropped = [*unreferred(store, live), *unreferred_texts(store, live)]
    left = [path for kind in KINDS for path in (store.folder / kind).glob("*/.*.tmp")]  # by killed processes
    freed = [_size(path) for path in [*dropped, *left]]
    kinds = Counter(path.relative_to(store.folder).parts[0] for path in dropped)
    if not dry_run:
        for path in [*dropped, *left]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for study in gone:
            forget(store.folder, study)
    would = "would drop" if dry_run else "dropped"
    records = len(dropped) - kinds["states"] - kinds["text"]
    print(f"{would} {kinds['states']} states, {records} records, {kinds['text']} folders of text, {_megabytes(freed)}")
    for study in gone:
        print(f"{'would forget' if dry_run else 'forgot'} {study.study}: its folder {study.output} is gone")


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def unreferred(store: Store, studies: Sequence[Reference]) -> Iterator[Path]:
    """The files and folders of a store that no study needs.

    Needed are the states that a study names and the stretches that led to them; and, while a study is unfinished,
    everything of its trees, since it may go on from a state that was saved on the way.
    """
    needed = set().union(*(study.states for study in studies))
    unfinished = {name.partition("/")[0] for study in studies if not study.complete for name in study.states}
    for name in list(needed):
        needed.update(_chain(store, name, needed))
    observed = {_short(name) for name in needed}
    for kind in KINDS:
        for path in sorted((store.folder / kind).glob("*/[!.]*")):
            name = f"{path.parent.name}/{path.name.removesuffix('.json')}"
            known = _short(name) in observed if kind == "observations" else name in needed
            if not known and path.parent.name not in unfinished:
                yield path


def unreferred_texts(store: Store, studies: Sequence[Reference]) -> Iterator[Path]:
    """The folders of text that no study needs; what is needed again is made again."""
    needed = frozenset().union(*(study.texts for study in studies))
    for kind in (CLEAN, SAMPLED, TOKENIZERS, TOKENS):
        for path in sorted((text_folder(store.folder) / kind).glob("[!.]*")):
            if f"{kind}/{path.name}" not in needed:
                yield path


def _short(name: str) -> str:
    """A state's path as far as the names of its observations repeat it."""
    tree, _, state = name.partition("/")
    step, key = state.split("-")[:2]
    return f"{tree}/{step}-{key[:24]}"


def _chain(store: Store, name: str, needed: set[str]) -> Iterator[str]:
    """The states through which a state was reached, as far as they are not needed already."""
    tree, _, state = name.partition("/")
    while (stretch := store.stretch_named(tree, state)) is not None and stretch.parent_key is not None:
        state = f"{stretch.parent_step:09d}-{stretch.parent_key[:32]}"
        if f"{tree}/{state}" in needed:
            return
        yield f"{tree}/{state}"


if __name__ == "__main__":
    sys.exit(main())
