"""Garbage collection: drop what no study refers to."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from replay_sweeps.data.pipeline import CLEAN, SAMPLED, TOKENIZERS, TOKENS
from replay_sweeps.data.prepare import only_one
from replay_sweeps.data.study_texts import text_folder
from replay_sweeps.errors import CannotGoOn
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.states import Store
from replay_sweeps.store.study_records import StudyRecord, remove_study_record, study_records

KINDS = ("states", "records", "observations", "failures")


def megabytes(sizes: Sequence[int]) -> str:
    return f"{sum(sizes) / 1e6:,.1f} MB"


def collect_garbage(store: Store, dry_run: bool) -> None:
    """Drop what no study refers to. Raises CannotGoOn while a study is training or preparing text."""
    if Leases(store.folder, session="").held():
        raise CannotGoOn(f"workers are training in {store.folder}; try again when they are done")
    with nullcontext() if dry_run else only_one(text_folder(store.folder), wait=False):
        _drop(store, dry_run)


def _drop(store: Store, dry_run: bool) -> None:
    studies = study_records(store.folder)
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
            remove_study_record(store.folder, study)
    would = "would drop" if dry_run else "dropped"
    records = len(dropped) - kinds["states"] - kinds["text"]
    print(f"{would} {kinds['states']} states, {records} records, {kinds['text']} folders of text, {megabytes(freed)}")
    for study in gone:
        print(f"{'would forget' if dry_run else 'forgot'} {study.study}: its folder {study.output} is gone")


def _size(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def unreferred(store: Store, studies: Sequence[StudyRecord]) -> Iterator[Path]:
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


def unreferred_texts(store: Store, studies: Sequence[StudyRecord]) -> Iterator[Path]:
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
    while (
        segment_record := store.segment_record_named(tree, state)
    ) is not None and segment_record.parent_key is not None:
        state = f"{segment_record.parent_step:09d}-{segment_record.parent_key[:32]}"
        if f"{tree}/{state}" in needed:
            return
        yield f"{tree}/{state}"
