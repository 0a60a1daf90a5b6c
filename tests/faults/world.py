"""A finished study with its store, its text and a bystander beside it, put back to health before every case."""

import json
import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from replay_sweeps.files import write_record
from replay_sweeps.store.leases import WORKER_PREFIX, LeaseOwner, heartbeat, host_name
from replay_sweeps.store.states import KINDS
from replay_sweeps.store.study_records import StudyRecord, study_records, write_study_record
from tests.store.golden import golden_command, write_texts

SAMPLED = "sampled/fedcba9876543210"
OTHER_TREE = "0123456789abcdef"
NO_PROCESS = 2**22 + 1  # above the largest process id


@dataclass(frozen=True)
class Seen:
    """What tells a changed path from an unchanged one without reading it."""

    mode: int
    size: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Seen":
        status = path.lstat()
        folder = stat.S_ISDIR(status.st_mode)
        return cls(status.st_mode, 0 if folder else status.st_size, 0 if folder else status.st_mtime_ns, status.st_ino)


def walk(folder: Path) -> dict[str, Seen]:
    """All paths below a folder, links not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            found[path.relative_to(folder).as_posix()] = Seen.of(path)
    return found


def remove(path: Path) -> None:
    """Remove whatever lies at a path, without following it."""
    if path.is_dir() and not path.is_symlink():
        path.chmod(0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class World:
    """One folder: `output/` with its store, `texts/`, `other/` (a second study's), `victim/` (nobody's business)."""

    def __init__(self, base: Path) -> None:
        self.healthy, self.folder = base / "healthy", base / "world"
        self.output, self.store = self.folder / "output", self.folder / "output" / "store"
        self.texts = self.folder / "texts"
        self._seen: dict[str, Seen] = {}

    def command(self) -> list[str]:
        """The study's command."""
        given = [item for item in golden_command(self.texts) if not item.startswith("paths.output=")]
        return [*given, "budget=1h", f"paths.output={self.output}"]

    def adopt(self) -> None:
        """Take what lies in the folder now, with the bystanders added, as healthy."""
        self._add_bystanders()
        shutil.copytree(self.folder, self.healthy)
        self._seen = walk(self.folder)

    def write_texts(self) -> None:
        """The text of the study."""
        write_texts(self.texts)

    def _add_bystanders(self) -> None:
        """What a healthy command leaves only at times, a second study, and a folder that is no part of any."""
        [study] = study_records(self.store)
        [tree] = study.models
        for kind in KINDS:
            if (self.store / kind / tree).is_dir():
                shutil.copytree(self.store / kind / tree, self.store / kind / OTHER_TREE)
        write_record(self.store / "text" / SAMPLED / "000000.json", {"documents": ["a b c"], "tokens": 3})
        states = frozenset(f"{OTHER_TREE}/{name.partition('/')[2]}" for name in study.states)
        (self.folder / "other").mkdir()
        (self.folder / "other" / "kept.txt").write_text("kept\n")
        texts = study.texts | {SAMPLED}
        write_study_record(
            self.store, StudyRecord("other", str(self.folder / "other"), True, states, {}, (), {}, texts=texts)
        )
        victim = self.folder / "victim"
        victim.mkdir()
        (victim / "precious.txt").write_text("precious\n")
        (victim / "record.json").write_text("{}\n")
        self._leave_failure_and_leases(study)

    def _leave_failure_and_leases(self, study: StudyRecord) -> None:
        tree, step, key = next(iter(study.runs.values()))
        name = f"{step:09d}-{key[:32]}"
        write_record(self.store / "failures" / tree / f"{name}.json", {"reason": "RuntimeError: once", "log": ""})
        owner = LeaseOwner(uuid.uuid4().hex, uuid.uuid4().hex, host_name(), NO_PROCESS, 1, 0, "")
        for lease in (WORKER_PREFIX + uuid.uuid4().hex, self.lease):
            (self.store / "claims").mkdir(exist_ok=True)
            (self.store / "claims" / lease).write_bytes(heartbeat(3, 7) + owner.to_json())

    lease = ""  # the name of the first path's lease

    def run_id(self) -> str:
        """A run of the study."""
        return str(pd.read_csv(self.healthy / "output" / "runs.csv").run_id[0])

    def files(self, place: str) -> list[Path]:
        """The files of the healthy store or of the healthy study's folder, by their paths below it."""
        root = self.healthy / "output" / ("store" if place == "store" else "")
        paths = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
        return [path for path in paths if place == "store" or path.parts[0] != "store"]

    def restore(self) -> None:
        """Put everything back that differs from the healthy world."""
        now = walk(self.folder)
        for path in sorted(now.keys() - self._seen.keys()) + [p for p in now if self._seen.get(p, now[p]) != now[p]]:
            if path in now and not _is_folder(self._seen.get(path), now[path]):
                remove(self.folder / path)
        for path in sorted(self._seen):
            here, healthy = self.folder / path, self.healthy / path
            if os.path.lexists(here):
                continue
            if healthy.is_dir():
                here.mkdir()
            else:
                shutil.copy2(healthy, here)
            self._seen[path] = Seen.of(here)
        for path, seen in self._seen.items():
            if (self.folder / path).lstat().st_mode != seen.mode:
                (self.folder / path).chmod(seen.mode & 0o7777)

    def leave_work(self) -> None:
        """Remove the losses of each path's last state, so that the next command has something to do."""
        for file in (self.store / "observations").glob("*/000000064-*.json"):
            if file.parent.name != OTHER_TREE:
                file.unlink()

    def changed(self) -> list[str]:
        """The paths that differ from the healthy world, by content."""
        now = walk(self.folder)
        return sorted(
            path
            for path in now.keys() | self._seen.keys()
            if now.get(path) != self._seen.get(path) and not self._same(path)
        )

    def _same(self, path: str) -> bool:
        here, healthy = self.folder / path, self.healthy / path
        if here.is_symlink() or not here.is_file() or not healthy.is_file():
            return here.is_dir() and healthy.is_dir() and not here.is_symlink()
        return here.stat().st_size == healthy.stat().st_size and here.read_bytes() == healthy.read_bytes()


def _is_folder(before: Seen | None, now: Seen) -> bool:
    return before is not None and before.mode >> 12 == now.mode >> 12 == 0o4


def without_times(path: Path) -> object:
    """The content of a record or a table without what no two trainings share: seconds and rates."""
    if path.suffix == ".csv":
        table = pd.read_csv(path)
        return table.drop(columns=[n for n in ("seconds", "log", "tokens_per_second", "mfu") if n in table]).to_csv()
    record = json.loads(path.read_bytes())
    record.pop("checksum", None)
    record.pop("seconds", None)
    for name in ("tokens_per_second", "mfu"):
        record.get("series", {}).pop(name, None)
    return record
