"""Garbage collection: drop the states and the text that no study needs."""

import shlex
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from replay_sweeps.data.pipeline import CLEAN, SAMPLED, TOKENIZERS, TOKENS
from replay_sweeps.data.prepare import only_one
from replay_sweeps.data.study_texts import text_folder
from replay_sweeps.errors import CannotGoOn, DamagedFile
from replay_sweeps.files import is_real_folder, remove
from replay_sweeps.store.leases import Leases
from replay_sweeps.store.leftovers import half_written, put_aside_long_ago
from replay_sweeps.store.marker import check_is_store
from replay_sweeps.store.reading import bytes_of
from replay_sweeps.store.states import KINDS, Store
from replay_sweeps.store.study_records import StudyRecord, study_records
from replay_sweeps.store.trash import TRASH, drop, has_room, in_trash
from replay_sweeps.tree.state_name import ShortStateName, StateName, observation_prefix, prefix_of_observation


def megabytes(sizes: Sequence[int]) -> str:
    """The sum of sizes in bytes, in words."""
    return f"{sum(sizes) / 1e6:,.1f} MB"


def collect_garbage(
    store: Store, dry_run: bool, at_once: bool = False, leases: Callable[[], Leases] | None = None
) -> None:
    """Drop what no study needs and print what was dropped; it stays in the store's trash for a day, or not `at_once`.

    Raises UserError where the folder is no store, CannotGoOn while a study is training or preparing text, and where
    the record of a study cannot be read. `leases` makes an observer of the store's leases.
    """
    check_is_store(store.folder)
    study_records(store.folder)  # what stops the collection is said before anything is waited for
    watched = leases() if leases else Leases(store.folder, session="")
    if watched.any_alive(lambda: print(f"watching for {watched.grace_period:.0f} s whether a worker elsewhere lives")):
        raise CannotGoOn(f"workers are training in {store.folder}; try again when they are done")
    with nullcontext() if dry_run else only_one(text_folder(store.folder), wait=False):
        if not dry_run:
            watched.clear_stale(session_over=True)
        _collect(store, dry_run, at_once)


def _collect(store: Store, dry_run: bool, at_once: bool) -> None:
    studies = study_records(store.folder)
    unneeded = [*unneeded_files(store, studies), *unneeded_texts(store, studies)]
    # records first: a gc that is killed leaves no record of a run whose weights are gone
    unneeded.sort(key=lambda path: path.relative_to(store.folder).parts[0] == "states")
    leftovers = [*half_written(store, nobody_writes=True), *put_aside_long_ago(store)]
    sizes = [bytes_of(path) for path in [*unneeded, *leftovers]]
    at_once = at_once or not has_room(store.folder, sum(sizes) + bytes_of(store.folder / TRASH))
    before = list(in_trash(store.folder, all_of_it=at_once))
    old = [bytes_of(path) for path in before]
    if not dry_run:
        for path in [*before, *leftovers]:
            remove(path)
        drop(store.folder, unneeded, at_once)
    counts = Counter(path.relative_to(store.folder).parts[0] for path in unneeded)
    states, texts = counts["states"], counts["text"]
    records = len(unneeded) - states - texts
    dropped = "would drop" if dry_run else "dropped"
    print(f"{dropped} {states} states, {records} records, {texts} folders of text, {megabytes(sizes)}")
    if unneeded and not at_once:
        stay = "would stay" if dry_run else "stay"
        print(f"they {stay} in {store.folder / TRASH} for a day; the next gc after it removes them, or gc --now")
    if before:
        print(f"{'would remove' if dry_run else 'removed'} from the trash: {megabytes(old)}")
    for study in studies:
        if not Path(study.output).is_dir():
            command = shlex.join(["replay-store", "forget", study.output, "--store", str(store.folder)])
            print(
                f"{study.study} keeps what it needs, though its folder {study.output} is not there; if it is gone for "
                f"good: {command}"
            )


def unneeded_files(store: Store, studies: Sequence[StudyRecord]) -> Iterator[Path]:
    """The files and folders of a store that no study needs.

    A study needs the states that it names, and the records of the segments that led to them. While it is unfinished it
    needs everything of its trees, since it may go on from a state that was saved on the way. The same holds where a
    record on the way is damaged or lost: what came before it is not known then. What has no name of ours is left alone.
    """
    needed = set().union(*(study.states for study in studies))
    whole = {name.partition("/")[0] for study in studies if not study.complete for name in study.states}
    ends = {StateName(*end).path for study in studies for end in study.runs.values()}
    for state in list(needed):
        try:
            needed.update(_ancestors(store, state, needed, state in ends))
        except DamagedFile:
            whole.add(state.partition("/")[0])
    observed = {f"{name.tree}/{observation_prefix(name)}" for name in map(ShortStateName.parse, needed) if name}
    for kind in KINDS:
        if (store.folder / kind).is_symlink():
            continue  # the folder is the user's, on another disk
        for tree, entry in store.entries(kind):
            name = entry.removesuffix(".json")
            path = store.folder / kind / tree / entry
            if tree not in whole and _is_ours(kind, path, f"{tree}/{name}"):
                is_observation = kind == "observations"
                known = observed if is_observation else needed
                if f"{tree}/{prefix_of_observation(name) if is_observation else name}" not in known:
                    yield path


def _is_ours(kind: str, path: Path, name: str) -> bool:
    """Whether a file or folder has the name and the nature of what the store keeps."""
    if kind == "observations":
        name, parts = "-".join(name.split("-")[:2]), len(name.split("-"))
        if parts < 3:
            return False
    if ShortStateName.parse(name) is None:
        return False
    if kind == "states":
        return is_real_folder(path)
    return path.suffix == ".json" and path.is_file() and not path.is_symlink()


def _ancestors(store: Store, path: str, needed: Container[str], is_end: bool) -> Iterator[str]:
    """The paths of the states through which a state was reached, up to the first that is needed already.

    Raises DamagedFile where the way back is not known. A state that was only observed has no record.
    """
    state = ShortStateName.parse(path)
    must_be_there = is_end
    while state is not None:
        record = store.peek_segment_record(state)
        if record is None:
            if must_be_there:
                raise DamagedFile(f"the record of {state.path} is lost")
            return
        must_be_there = True
        state = record.parent(state.tree)
        if state is None or state.path in needed:
            return
        yield state.path


def unneeded_texts(store: Store, studies: Sequence[StudyRecord]) -> Iterator[Path]:
    """The folders of text that no study needs; what is needed again is made again."""
    needed = frozenset().union(*(study.texts for study in studies))
    for kind in (CLEAN, SAMPLED, TOKENIZERS, TOKENS):
        folder = text_folder(store.folder) / kind
        if folder.is_symlink() or folder.parent.is_symlink():
            continue  # the folder is the user's, on another disk
        for path in sorted(folder.glob("[!.]*")):
            if f"{kind}/{path.name}" not in needed and is_real_folder(path):
                yield path
