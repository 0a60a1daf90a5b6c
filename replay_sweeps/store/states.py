"""The store of states: each is named by what was done to reach it, so that any command finds it again."""

import errno
import logging
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import (
    file_checksum,
    folder_made_atomically,
    is_plain_name,
    is_real_folder,
    put_aside,
    remove,
    temporary_name,
    usable_folder,
    write_record,
)
from replay_sweeps.store.marker import mark_store
from replay_sweeps.store.reading import bytes_of, read_manifest, read_shaped, remove_record, visible_names
from replay_sweeps.tree.state_name import ShortStateName, StateName, observation_name, observation_prefix

logger = logging.getLogger(__name__)
T = TypeVar("T")

# the columns of a training series, besides "step"
METRICS = ("train_target_loss", "train_generic_loss", "gradient_norm", "learning_rate", "tokens_per_second", "mfu")
Series = dict[str, list[float | int | None]]
# errors of a disk, a server or this process that pass; what they hinder is not damaged
PASSING = (
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EINTR,
    errno.EAGAIN,
)
KINDS = ("states", "records", "observations", "failures")  # folders of a store that have one folder for each tree


@dataclass(frozen=True)
class SegmentRecord:
    """How a state came about: trained from `parent` (None: from the initial weights) with these training series."""

    parent_step: int
    parent_key: str | None
    series: Series  # "step" and the metrics logged at it, a column each
    numerics: dict[str, Any]  # torch, device, threads, world size
    seconds: float

    @classmethod
    def from_record(cls, record: dict[str, Any], step: int) -> "SegmentRecord":
        """The segment that ended at `step`. Raises KeyError, TypeError or ValueError for a record of another shape."""
        segment = cls(*(record[name] for name in ("parent_step", "parent_key", "series", "numerics", "seconds")))
        # a segment leads back, else a chain of them would never end
        has_parent = is_plain_name(segment.parent_key) and 0 < segment.parent_step < step
        lengths = {len(segment.series[name]) for name in ("step", *METRICS)}
        is_first = segment.parent_key is None and segment.parent_step == 0
        if not ((has_parent or is_first) and len(lengths) == 1 and isinstance(segment.numerics, dict)):
            raise ValueError("not a segment")
        return segment

    def parent(self, tree: str) -> ShortStateName | None:
        """The state that training went on from, in the tree of the state itself; None for the initial weights."""
        return None if self.parent_key is None else ShortStateName.of(tree, self.parent_step, self.parent_key)


@dataclass(frozen=True)
class Failure:
    """Why a state could not be reached, in one line, and the last lines of the log of the worker that tried."""

    reason: str
    log: str


class Store:
    """States, the segments that produced them, their validation losses and failures, below one folder:

    states/<tree>/<step>-<key>/                       weights and optimizer (safetensors), state.json with checksums
    records/<tree>/<step>-<key>.json                  the segment that produced the state: its parent, training series
    observations/<tree>/<step>-<key>-<validation>.json    losses of the state on one validation store
    failures/<tree>/<step>-<key>.json                 why the state could not be reached
    claims/                                           leases of the paths that are being trained (leases.py)
    studies/                                          which study needs which states (study_records.py)
    text/, timings/, numerics/                        prepared text (data/), what was measured of this machine
    trash/                                            what gc dropped less than a day ago (trash.py)
    store.json                                        says that this is a store (marker.py)

    A state may be dropped to make room; its record and its observations stay. Every write is atomic and every read is
    verified: a damaged file is reported in the log, removed, and counts as missing. A folder, a link or a pipe in the
    place of a file or of a tree's folder is put aside.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_state(
        self, state: StateName, record: SegmentRecord, write: Callable[[Path], None], resumable: bool
    ) -> None:
        """Keep a state. `write` puts its safetensors files into a folder; `resumable` says whether the optimizer's are
        among them. A state that is already there is left alone: the same name means the same bits.

        The state comes first and its record last: with its record a run counts as done, and then its weights are there
        whenever the process is killed.
        """
        mark_store(self.folder)
        if not self._is_kept(state, resumable):
            with folder_made_atomically(self._state_folder(state), lambda: self._make_way(state, resumable)) as folder:
                write(folder)
                checksums = {path.name: file_checksum(path) for path in sorted(folder.iterdir())}
                write_record(folder / "state.json", {"files": checksums, "resumable": resumable, "key": state.key})
        if self.segment_record(state) is None:
            write_record(self._record_file(state), {"state": state.path, **vars(record)})

    def _is_kept(self, state: StateName, resumable: bool) -> bool:
        manifest = self._manifest(state)
        return manifest is not None and (manifest["resumable"] or not resumable)

    def _make_way(self, state: StateName, resumable: bool) -> None:
        """Drop a state that another one is about to replace: the weights alone were kept before, or it is damaged."""
        folder = self._state_folder(state)
        if os.path.lexists(folder) and not self._is_kept(state, resumable):
            self._record_file(state).unlink(missing_ok=True)  # a record without a state is a run without weights
            self.drop_state(state)

    def has_weights(self, state: StateName) -> bool:
        """Whether the state's weights are kept; their content is verified when they are opened."""
        return self._manifest(state) is not None

    def is_resumable(self, state: StateName) -> bool:
        """Whether training can go on from the state; its content is verified when it is opened."""
        manifest = self._manifest(state)
        return manifest is not None and manifest["resumable"] and self._record_file(state).is_file()

    def open_state(self, state: StateName) -> Path:
        """The folder of a kept state, every byte verified. A damaged state is dropped, and DamagedFile raised."""
        folder = self._state_folder(state)
        try:
            files = read_manifest(folder)["files"]
            wrong = [name for name, checksum in files.items() if file_checksum(folder / name, False) != checksum]
        except (DamagedFile, OSError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise  # the state may be sound
            self.drop_state(state)
            raise DamagedFile(f"the state {folder} is damaged: {error}") from error
        if wrong:
            self.drop_state(state)
            raise DamagedFile(f"the state {folder} is damaged: {wrong[0]} does not match its checksum")
        return folder

    def drop_state(self, state: StateName) -> None:
        """Remove a state's weights and optimizer; its record and its observations stay."""
        folder = self._state_folder(state)
        if is_real_folder(folder):  # renamed first: a state is there whole or not at all
            hidden = temporary_name(folder)
            try:
                folder.rename(hidden)
                folder = hidden
            except FileNotFoundError:
                return
            except OSError:
                logger.debug("%s could not be renamed", folder, exc_info=True)
        remove(folder)

    def kept_states(self) -> Iterator[tuple[ShortStateName, int]]:
        """All states whose weights are kept, with the bytes that each takes."""
        for tree, name in self.entries("states"):
            state, folder = ShortStateName.parse(f"{tree}/{name}"), self.folder / "states" / tree / name
            if state is not None and is_real_folder(folder):
                yield state, bytes_of(folder)

    def entries(self, kind: str) -> Iterator[tuple[str, str]]:
        """Tree and name of all that lies in the folders of one of KINDS; links to folders are not followed."""
        for tree in sorted(visible_names(usable_folder(self.folder / kind))):
            if is_real_folder(self.folder / kind / tree):
                yield from ((tree, name) for name in sorted(visible_names(self.folder / kind / tree)))

    def names(self, kind: str, tree: str) -> set[str]:
        """The names of all that is kept of one of KINDS in a tree, without endings; the folder is read once."""
        return {name.removesuffix(".json") for name in visible_names(self._tree_folder(kind, tree))}

    def segment_record(self, state: StateName | ShortStateName) -> SegmentRecord | None:
        """The segment that produced a state, or None."""
        return self._read_or_remove(
            self._record_file(state), lambda found: SegmentRecord.from_record(found, state.step)
        )

    def peek_segment_record(self, state: StateName | ShortStateName) -> SegmentRecord | None:
        """As `segment_record`, for who only looks: raises DamagedFile for a damaged record, and leaves it."""
        try:
            return read_shaped(self._record_file(state), lambda found: SegmentRecord.from_record(found, state.step))
        except FileNotFoundError:
            return None

    def save_observation(self, state: StateName, store: str, losses: dict[str, float]) -> None:
        """Keep the losses of a state on the validation store with this fingerprint."""
        write_record(self._observation_file(state, store), losses)

    def observation(self, state: StateName, store: str) -> dict[str, float] | None:
        """The losses of a state on the validation store with this fingerprint, or None."""
        return self._read_or_remove(self._observation_file(state, store), _losses)

    def remove_observations(self, state: StateName) -> None:
        """Remove all observations of a state, so that a study that needs them makes the state again."""
        for file in (self.folder / "observations" / state.tree).glob(f"{observation_prefix(state)}-*.json"):
            file.unlink(missing_ok=True)

    def record_failure(self, state: StateName, reason: str, log: str = "") -> None:
        """Record that a state could not be reached, why, and the last lines of the worker's log."""
        write_record(self._failure_file(state), {"reason": reason, "log": log})

    def failure(self, state: StateName) -> Failure | None:
        """Why a state could not be reached, or None."""
        return self._read_or_remove(
            self._failure_file(state), lambda found: Failure(_text(found["reason"]), _text(found["log"]))
        )

    def clear_failure(self, state: StateName) -> None:
        """Remove the record of a failure, so that the state is tried again."""
        self._failure_file(state).unlink(missing_ok=True)

    def _state_folder(self, state: StateName) -> Path:
        return self._place("states", state.tree, state.name)

    def _record_file(self, state: StateName | ShortStateName) -> Path:
        return self._place("records", state.tree, f"{state.name}.json")

    def _observation_file(self, state: StateName, store: str) -> Path:
        return self._place("observations", state.tree, f"{observation_name(state, store)}.json")

    def _failure_file(self, state: StateName) -> Path:
        return self._place("failures", state.tree, f"{state.name}.json")

    def _place(self, kind: str, tree: str, name: str) -> Path:
        """A path in the folder of a tree. Names come from files too: raises DamagedFile where one leads elsewhere."""
        if not (is_plain_name(tree) and is_plain_name(name)):
            raise DamagedFile(f"{tree}/{name} is not the name of a state")
        return self._tree_folder(kind, tree) / name

    def _tree_folder(self, kind: str, tree: str) -> Path:
        """The folder of a tree; a file or a link in its place is put aside, since a link may lead out of the store."""
        folder = self.folder / kind / tree
        try:
            is_folder = stat.S_ISDIR(folder.lstat().st_mode)
        except OSError:
            usable_folder(self.folder / kind)
            return folder
        if not is_folder:
            put_aside(folder)
        return folder

    def _manifest(self, state: StateName) -> dict[str, Any] | None:
        return self._read_or(
            self._state_folder(state), read_manifest, lambda folder: self.drop_state(state), "the state is dropped"
        )

    def _read_or_remove(self, file: Path, shape: Callable[[dict[str, Any]], T]) -> T | None:
        return self._read_or(file, lambda path: read_shaped(path, shape), remove_record, "it is made again")

    def _read_or(self, path: Path, read: Callable[[Path], T], clear: Callable[[Path], None], then: str) -> T | None:
        """What `read` finds; None where there is nothing, or where it is damaged and `clear` was called."""
        try:
            return read(path)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            logger.warning("%s; %s", error, then)
            clear(path)
            return None


def _losses(record: dict[str, Any]) -> dict[str, float]:
    if not math.isfinite(record["loss"]):
        raise ValueError("not a loss")
    return record


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value
