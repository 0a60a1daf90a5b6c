"""The store: states named by what was done to reach them, found again by any command that needs them.

states/<root>/<step>-<key>/      weights and optimizer (safetensors) with checksums; may be dropped
records/<root>/<step>-<key>.json the stretch that produced the state: its parent, its training series
observations/<root>/…            validation losses of the state
failures/<root>/…                why a state could not be reached
claims/, studies/                who trains what (claims.py), which study refers to what (references.py)
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay_sweeps.errors import DamagedFile
from replay_sweeps.files import file_checksum, folder_made_atomically, read_record, write_record
from replay_sweeps.tree.state_name import StateName, observation_name

logger = logging.getLogger(__name__)

# the columns of a training series, besides "step"
METRICS = ("train_target_loss", "train_generic_loss", "gradient_norm", "learning_rate", "tokens_per_second", "mfu")
Series = dict[str, list[float | int | None]]


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


@dataclass(frozen=True)
class Failure:
    """Why a state could not be reached, in one line, and the last lines of the log of the worker that tried."""

    reason: str
    log: str


class Store:
    """States, the stretches that produced them, and observations of them, below one folder.

    Every write is atomic, every read is verified; what is damaged is said, removed and reported as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _state_folder(self, state: StateName) -> Path:
        return self.folder / "states" / state.path

    def _record_file(self, state: StateName) -> Path:
        return self.folder / "records" / f"{state.path}.json"

    def put(
        self, state: StateName, segment_record: SegmentRecord, write: Callable[[Path], None], resumable: bool
    ) -> None:
        """Keep a state. `write` puts its safetensors files into a folder; `resumable` says whether the optimizer's are
        among them. A state that is already there is left alone: same name, same bits."""
        if self.segment_record(state) is None:
            write_record(self._record_file(state), {"state": state.path, **vars(segment_record)})
        final = self._state_folder(state)
        if final.is_dir() and (not resumable or self.is_kept(state)):
            return
        if final.is_dir():  # the weights alone were kept before
            self.drop(state)
        with folder_made_atomically(final) as folder:
            write(folder)
            checksums = {path.name: file_checksum(path) for path in sorted(folder.iterdir())}
            write_record(folder / "state.json", {"files": checksums, "resumable": resumable, "key": state.key})

    def has_weights(self, state: StateName) -> bool:
        """Whether the state's weights are kept; their content is verified when they are opened."""
        return self._manifest(state) is not None

    def is_kept(self, state: StateName) -> bool:
        """Whether training could go on from the state; its content is verified when it is opened."""
        manifest = self._manifest(state)
        return manifest is not None and manifest["resumable"] and self._record_file(state).is_file()

    def _manifest(self, state: StateName) -> dict[str, Any] | None:
        return self._read(self._state_folder(state) / "state.json", lambda: self.drop(state))

    def open(self, state: StateName) -> Path:
        """The folder of a kept state, every byte verified. Raises DamagedFile, the state then being dropped."""
        folder = self._state_folder(state)
        try:
            files = read_record(folder / "state.json")["files"]
            wrong = [name for name, checksum in files.items() if file_checksum(folder / name) != checksum]
        except (DamagedFile, OSError) as error:
            self.drop(state)
            raise DamagedFile(f"the state {folder} is damaged: {error}") from error
        if wrong:
            self.drop(state)
            raise DamagedFile(f"the state {folder} is damaged: {wrong[0]} does not match its checksum")
        return folder

    def forget_losses(self, state: StateName) -> None:
        """Remove the observations of a state, so that a study that needs them makes the state again."""
        for file in (self.folder / "observations" / state.tree).glob(f"{state.step:09d}-{state.key[:24]}-*.json"):
            file.unlink(missing_ok=True)

    def drop(self, state: StateName) -> None:
        """Remove a state's weights; what is known of it (stretch, observations) stays."""
        shutil.rmtree(self._state_folder(state), ignore_errors=True)

    def segment_record(self, state: StateName) -> SegmentRecord | None:
        """The stretch that produced a state, or None."""
        return self.segment_record_named(state.tree, state.name)

    def segment_record_named(self, tree: str, name: str) -> SegmentRecord | None:
        """The stretch that produced the state of this name, or None."""
        file = self.folder / "records" / tree / f"{name}.json"
        record = self._read(file, lambda: file.unlink(missing_ok=True))
        return SegmentRecord.from_record(record) if record else None

    def names(self, kind: str, tree: str) -> set[str]:
        """What is there of a root, by one look at its folder: names in `states`, `records`, `observations` or
        `failures`, without endings."""
        try:
            found = os.scandir(self.folder / kind / tree)
        except FileNotFoundError:
            return set()
        with found:
            return {entry.name.removesuffix(".json") for entry in found if not entry.name.startswith(".")}

    def observe(self, state: StateName, store: str, values: dict[str, float]) -> None:
        """Keep the validation losses of a state on the token store with this fingerprint."""
        write_record(self._observation_file(state, store), values)

    def observation(self, state: StateName, store: str) -> dict[str, float] | None:
        """The validation losses of a state on a token store, or None."""
        file = self._observation_file(state, store)
        return self._read(file, lambda: file.unlink(missing_ok=True))

    def _observation_file(self, state: StateName, store: str) -> Path:
        return self.folder / "observations" / state.tree / f"{observation_name(state, store)}.json"

    def fail(self, state: StateName, reason: str, log: str = "") -> None:
        """Note that the state could not be reached, why, and the last lines of the worker's log."""
        write_record(self._failure_file(state), {"reason": reason, "log": log})

    def failure(self, state: StateName) -> Failure | None:
        """Why the state could not be reached, or None."""
        file = self._failure_file(state)
        record = self._read(file, lambda: file.unlink(missing_ok=True))
        return Failure(record["reason"], record["log"]) if record else None

    def forgive(self, state: StateName) -> None:
        """Forget a failure, so that the state is tried again."""
        self._failure_file(state).unlink(missing_ok=True)

    def _failure_file(self, state: StateName) -> Path:
        return self.folder / "failures" / f"{state.path}.json"

    def _read(self, file: Path, remove: Callable[[], None]) -> dict[str, Any] | None:
        try:
            return read_record(file)
        except FileNotFoundError:
            return None
        except DamagedFile as error:
            logger.warning("%s; it is made again", error)
            remove()
            return None

    def states(self) -> Iterator[tuple[str, int, str, int]]:
        """All kept states: the beginning of the root, the step, the beginning of the key, bytes."""
        for folder in sorted((self.folder / "states").glob("*/*")):
            step, _, key = folder.name.partition("-")
            if step.isdigit():
                yield folder.parent.name, int(step), key, sum(file.stat().st_size for file in folder.iterdir())
