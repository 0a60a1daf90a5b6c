"""The store of states: each is named by what was done to reach it, so that any command finds it again."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import file_checksum, folder_made_atomically, read_record, write_record
from replay_sweeps.tree.state_name import ShortStateName, StateName, observation_name, observation_prefix

logger = logging.getLogger(__name__)

# the columns of a training series, besides "step"
METRICS = ("train_target_loss", "train_generic_loss", "gradient_norm", "learning_rate", "tokens_per_second", "mfu")
Series = dict[str, list[float | int | None]]
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
    def from_record(cls, record: dict[str, Any]) -> "SegmentRecord":
        return cls(*(record[name] for name in ("parent_step", "parent_key", "series", "numerics", "seconds")))

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

    A state may be dropped to make room; its record and its observations stay. Every write is atomic and every read is
    verified: a damaged file is reported in the log, removed, and counts as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_state(
        self, state: StateName, record: SegmentRecord, write: Callable[[Path], None], resumable: bool
    ) -> None:
        """Keep a state. `write` puts its safetensors files into a folder; `resumable` says whether the optimizer's are
        among them. A state that is already there is left alone: the same name means the same bits."""
        if self.segment_record(state) is None:
            write_record(self._record_file(state), {"state": state.path, **vars(record)})
        final = self._state_folder(state)
        if final.is_dir() and (not resumable or self.is_resumable(state)):
            return
        if final.is_dir():  # the weights alone were kept before
            self.drop_state(state)
        with folder_made_atomically(final) as folder:
            write(folder)
            checksums = {path.name: file_checksum(path) for path in sorted(folder.iterdir())}
            write_record(folder / "state.json", {"files": checksums, "resumable": resumable, "key": state.key})

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
            files = read_record(folder / "state.json")["files"]
            wrong = [name for name, checksum in files.items() if file_checksum(folder / name) != checksum]
        except (DamagedFile, OSError) as error:
            self.drop_state(state)
            raise DamagedFile(f"the state {folder} is damaged: {error}") from error
        if wrong:
            self.drop_state(state)
            raise DamagedFile(f"the state {folder} is damaged: {wrong[0]} does not match its checksum")
        return folder

    def drop_state(self, state: StateName) -> None:
        """Remove a state's weights and optimizer; its record and its observations stay."""
        shutil.rmtree(self._state_folder(state), ignore_errors=True)

    def kept_states(self) -> Iterator[tuple[ShortStateName, int]]:
        """All states whose weights are kept, with the bytes that each takes."""
        for folder in sorted((self.folder / "states").glob("*/*")):
            state = ShortStateName.parse(f"{folder.parent.name}/{folder.name}")
            if state is not None:
                yield state, sum(file.stat().st_size for file in folder.iterdir())

    def names(self, kind: str, tree: str) -> set[str]:
        """The names of all that is kept of one of KINDS in a tree, without endings; the folder is read once."""
        try:
            entries = os.scandir(self.folder / kind / tree)
        except FileNotFoundError:
            return set()
        with entries:
            return {entry.name.removesuffix(".json") for entry in entries if not entry.name.startswith(".")}

    def segment_record(self, state: StateName | ShortStateName) -> SegmentRecord | None:
        """The segment that produced a state, or None."""
        record = self._read_or_remove(self._record_file(state))
        return SegmentRecord.from_record(record) if record else None

    def save_observation(self, state: StateName, store: str, losses: dict[str, float]) -> None:
        """Keep the losses of a state on the validation store with this fingerprint."""
        write_record(self._observation_file(state, store), losses)

    def observation(self, state: StateName, store: str) -> dict[str, float] | None:
        """The losses of a state on the validation store with this fingerprint, or None."""
        return self._read_or_remove(self._observation_file(state, store))

    def remove_observations(self, state: StateName) -> None:
        """Remove all observations of a state, so that a study that needs them makes the state again."""
        for file in (self.folder / "observations" / state.tree).glob(f"{observation_prefix(state)}-*.json"):
            file.unlink(missing_ok=True)

    def record_failure(self, state: StateName, reason: str, log: str = "") -> None:
        """Record that a state could not be reached, why, and the last lines of the worker's log."""
        write_record(self._failure_file(state), {"reason": reason, "log": log})

    def failure(self, state: StateName) -> Failure | None:
        """Why a state could not be reached, or None."""
        record = self._read_or_remove(self._failure_file(state))
        return Failure(record["reason"], record["log"]) if record else None

    def clear_failure(self, state: StateName) -> None:
        """Remove the record of a failure, so that the state is tried again."""
        self._failure_file(state).unlink(missing_ok=True)

    def _state_folder(self, state: StateName) -> Path:
        return self.folder / "states" / state.path

    def _record_file(self, state: StateName | ShortStateName) -> Path:
        return self.folder / "records" / f"{state.path}.json"

    def _observation_file(self, state: StateName, store: str) -> Path:
        return self.folder / "observations" / state.tree / f"{observation_name(state, store)}.json"

    def _failure_file(self, state: StateName) -> Path:
        return self.folder / "failures" / f"{state.path}.json"

    def _manifest(self, state: StateName) -> dict[str, Any] | None:
        return self._read_or(self._state_folder(state) / "state.json", lambda: self.drop_state(state))

    def _read_or_remove(self, file: Path) -> dict[str, Any] | None:
        return self._read_or(file, lambda: file.unlink(missing_ok=True))

    def _read_or(self, file: Path, remove: Callable[[], None]) -> dict[str, Any] | None:
        """The content of a file; None where there is none, or where it is damaged and `remove` was called."""
        try:
            return read_record(file)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            logger.warning("%s; it is made again", error)
            remove()
            return None
