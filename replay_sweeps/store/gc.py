"""Garbage collection: drop the states and the text that no study needs."""

import shutil
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from replay_sweeps.data.pipeline import CLEAN, SAMPLED, TOKENIZERS, TOKENS
from replay_sweeps.data.prepare import only_one
from replay_sweeps.data.study_texts import text_folder
from replay_sweeps.errors import CannotGoOn
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.states import KINDS, Store
from replay_sweeps.store.study_records import StudyRecord, remove_study_record, study_records
from replay_sweeps.tree.state_name import ShortStateName, observation_prefix, prefix_of_observation


def megabytes(sizes: Sequence[int]) -> str:
    """The sum of sizes in bytes, in words."""
    return f"{sum(sizes) / 1e6:,.1f} MB"


def collect_garbage(store: Store, dry_run: bool) -> None:
    """Drop what no study needs and print what was dropped. A study whose folder is gone needs nothing.

    Raises CannotGoOn while a study is training or preparing text.
    """
    if Leases(store.folder, session="").held():
        raise CannotGoOn(f"workers are training in {store.folder}; try again when they are done")
    with nullcontext() if dry_run else only_one(text_folder(store.folder), wait=False):
        _collect(store, dry_run)


def _collect(store: Store, dry_run: bool) -> None:
    studies = study_records(store.folder)
    gone = [study for study in studies if not Path(study.output).is_dir()]
    live = [study for study in studies if study not in gone]
    unneeded = [*unneeded_files(store, live), *unneeded_texts(store, live)]
    half_written = [path for kind in KINDS for path in (store.folder / kind).glob("*/.*.tmp")]  # by killed processes
    sizes = [_size(path) for path in [*unneeded, *half_written]]
    if not dry_run:
        for path in [*unneeded, *half_written]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for study in gone:
            remove_study_record(store.folder, study)
    counts = Counter(path.relative_to(store.folder).parts[0] for path in unneeded)
    states, texts = counts["states"], counts["text"]
    records = len(unneeded) - states - texts
    dropped = "would drop" if dry_run else "dropped"
    print(f"{dropped} {states} states, {records} records, {texts} folders of text, {megabytes(sizes)}")
    for study in gone:
        print(f"{'would forget' if dry_run else 'forgot'} {study.study}: its folder {study.output} is gone")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def unneeded_files(store: Store, studies: Sequence[StudyRecord]) -> Iterator[Path]:
    """The files and folders of a store that no study needs.

    A study needs the states that it names, and the records of the segments that led to them. While it is unfinished it
    needs everything of its trees, since it may go on from a state that was saved on the way.
    """
    needed = set().union(*(study.states for study in studies))
    unfinished = {name.partition("/")[0] for study in studies if not study.complete for name in study.states}
    for state in list(needed):
        needed.update(_ancestors(store, state, needed))
    observed = {f"{name.tree}/{observation_prefix(name)}" for name in map(ShortStateName.parse, needed) if name}
    for kind in KINDS:
        for path in sorted((store.folder / kind).glob("*/[!.]*")):
            tree, name = path.parent.name, path.name.removesuffix(".json")
            if kind == "observations":
                is_needed = f"{tree}/{prefix_of_observation(name)}" in observed
            else:
                is_needed = f"{tree}/{name}" in needed
            if not is_needed and tree not in unfinished:
                yield path


def _ancestors(store: Store, path: str, needed: Container[str]) -> Iterator[str]:
    """The paths of the states through which a state was reached, up to the first that is needed already."""
    state = ShortStateName.parse(path)
    while state is not None and (record := store.segment_record(state)) is not None:
        state = record.parent(state.tree)
        if state is None or state.path in needed:
            return
        yield state.path


def unneeded_texts(store: Store, studies: Sequence[StudyRecord]) -> Iterator[Path]:
    """The folders of text that no study needs; what is needed again is made again."""
    needed = frozenset().union(*(study.texts for study in studies))
    for kind in (CLEAN, SAMPLED, TOKENIZERS, TOKENS):
        for path in sorted((text_folder(store.folder) / kind).glob("[!.]*")):
            if f"{kind}/{path.name}" not in needed:
                yield path
