"""Whatever is wrong with any file of a store or of a study's folder: no command crashes, hangs, or harms another file.

Made from the store's own list of the kinds of its files: a new kind is covered the day it is added.
"""

import os
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from replay_sweeps.files import DAMAGED_SUFFIX
from replay_sweeps.store.file_kinds import FILE_KINDS, FileKind, kind_of
from tests.faults.commands import COMMANDS, HANGS, Commands, Outcome
from tests.faults.damage import FILE_FAULTS, FOLDER_FAULTS, Damage
from tests.faults.world import OTHER_TREE, World, without_times

pytestmark = pytest.mark.slow

FOLDERS = sorted({(kind.place, folder) for kind in FILE_KINDS for folder in kind.folders()})
NEEDS_WORK = ("states", "claims", "failures")  # folders that a command looks into only where something is left to do
# after a command that finished the study: some were of the past, others are made when they are needed. How steps were
# cut into segments may differ, so that records do; a run's history does not, whatever they are
NOT_MADE_AGAIN = ("claims", "failures", "timings", "logs", "states", "records", "work.json", "measure.json")
NOT_READ_AGAIN = (("text", "text"), ("text", "sampled"), ("history",))  # damage there waits until it is read


@pytest.fixture(scope="module")
def commands(world: World) -> Iterator[Commands]:
    """The commands on the healthy world."""
    with pytest.MonkeyPatch.context() as patch:
        yield Commands(world, patch)


def test_every_file_of_a_healthy_store_and_study_is_of_a_kind(world: World) -> None:
    found = {place: world.files(place) for place in ("store", "output")}
    unknown = [path for place, paths in found.items() for path in paths if kind_of(place, path) is None]
    assert not unknown, "add their kind to replay_sweeps/store/file_kinds.py"
    met = {kind_of(place, path) for place, paths in found.items() for path in paths}
    assert not [kind.pattern for kind in FILE_KINDS if kind not in met], "the healthy world has no file of this kind"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_healthy_world_stays_as_it_is(command: str, world: World, commands: Commands) -> None:
    world.restore()
    outcome = commands.run(command)
    assert outcome.code == 0, outcome.err
    assert not list(_problems(world, command, outcome))


@pytest.mark.parametrize("fault", FILE_FAULTS)
@pytest.mark.parametrize("kind", FILE_KINDS, ids=lambda kind: kind.pattern)
def test_a_damaged_file_harms_nothing_else(kind: FileKind, fault: str, world: World, commands: Commands) -> None:
    ours = [path for path in world.files(kind.place) if kind_of(kind.place, path) is kind and _is_ours(path)]
    # of states the last of a run is needed most, of the text's records that of the whole study, which is the largest
    path = (
        max(ours, key=lambda path: ((world.store / path).stat().st_size, path))
        if kind.pattern.startswith("text/records/")
        else ours[-1]
    )
    _check(
        world, commands, kind.place, path, fault, FILE_FAULTS[fault], len(path.parts) - kind.unit if kind.unit else 0
    )


@pytest.mark.parametrize("fault", FOLDER_FAULTS)
@pytest.mark.parametrize(("place", "folder"), FOLDERS, ids=lambda value: value)
def test_a_damaged_folder_harms_nothing_else(
    place: str, folder: str, fault: str, world: World, commands: Commands
) -> None:
    depth = len(PurePath(folder).parts)
    below = (path for path in world.files(place) if len(path.parts) > depth and _is_ours(path))
    path = next(PurePath(*p.parts[:depth]) for p in below if PurePath(*p.parts[:depth]).match(folder))
    _check(world, commands, place, path, fault, FOLDER_FAULTS[fault], 0)


def _is_ours(path: PurePath) -> bool:
    return OTHER_TREE not in path.parts[:-1] and not path.name.startswith("other-")


def _check(world: World, commands: Commands, place: str, path: PurePath, fault: str, damage: Damage, up: int) -> None:
    if fault == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads every file")
    root = world.store if place == "store" else world.output
    unit = path.parents[up - 1] if up else path
    problems = []
    for command in COMMANDS:
        if command == "analyze" and place == "store":
            continue  # it reads the study's folder alone
        world.restore()
        if command == "resume" and path.parts[0] in NEEDS_WORK:
            world.leave_work()
        damage(root / path, world.folder / "victim")
        outcome = commands.run(command)
        damaged = (root / unit).relative_to(world.folder).as_posix()
        problems += [f"{command}: {problem}" for problem in _problems(world, command, outcome, damaged, fault)]
        if outcome.problem == HANGS:
            break  # the other commands most likely wait for the same
    assert not problems, f"{fault} of {place} {path}:\n" + "\n".join(problems)


def _problems(world: World, command: str, outcome: Outcome, damaged: str = "", fault: str = "") -> Iterator[str]:
    """What a command did that it must not do."""
    yield from outcome.problems()
    for path in world.changed():
        if damaged and (path == damaged or path.startswith(f"{damaged}/") or damaged.startswith(f"{path}/")):
            continue
        change = _change(world, path)
        if fault == "link outside" and change == "wrote" and _is_on_another_disk(damaged, path):
            continue
        if fault == "missing" and command == "gc" and damaged.startswith("output/store/studies"):
            continue  # as if forgotten: what only those studies needed is in the trash for a day
        if not _is_allowed(world, command, path, change):
            yield f"{change} {path}"
    if command == "resume" and outcome.code == 0:
        yield from _differing_bits(world, damaged, fault)


def _is_on_another_disk(linked: str, path: str) -> bool:
    """Whether a path lies where a folder of the store was led by its user: a store may lie on several disks."""
    return str(PurePath(linked).parent) in ("output/store", "output/store/text") and path.startswith("victim/")


def _change(world: World, path: str) -> str:
    here, healthy = (os.path.lexists(place / path) for place in (world.folder, world.healthy))
    return "changed" if here and healthy else "wrote" if here else "removed"


def _is_allowed(world: World, command: str, path: str, change: str) -> bool:
    """Whether a command may change a path that is not the damaged one."""
    place, _, rest = path.partition("/")
    if place == "aside":
        return change == "wrote"
    if place != "output":
        return False
    kept = ("store/states", "store/records", "store/observations", "store/text", "store/studies")
    if change == "wrote" and any(part.endswith(DAMAGED_SUFFIX) for part in PurePath(rest).parts):
        return True  # put aside
    if OTHER_TREE in path or "studies/other" in path or "sampled" in path:
        return False
    if rest.startswith(("store/claims", "store/failures", "store/trash")):
        return command in ("resume", "gc")
    if command != "resume":
        return False
    if rest.startswith(kept):
        return change != "removed" or "observations/" in rest  # those were removed to leave work, see the bits
    return True


def _differing_bits(world: World, damaged: str, fault: str) -> Iterator[str]:
    """The files that a finished command left with other bits than the healthy one, what measures time left out."""
    for place, root in (("store", "output/store"), ("output", "output")):
        for path in world.files(place):
            name = f"{root}/{path}"
            here, healthy = (folder / name for folder in (world.folder, world.healthy))
            if damaged and f"{name}/".startswith(f"{damaged}/") and _stays_damaged(path, fault):
                continue
            if not here.is_file():
                if path.parts[0] not in NOT_MADE_AGAIN and path.name != "lock":
                    yield f"left out {name}"
            elif path.name == "runs.csv" or path.parts[0] == "history":
                if without_times(here) != without_times(healthy):
                    yield f"other content in {name}"
            elif _has_same_bits(path) and here.read_bytes() != healthy.read_bytes():
                yield f"other bits in {name}"


def _stays_damaged(path: PurePath, fault: str) -> bool:
    """Whether nobody mends a damaged file: the finished command has no use for it."""
    if OTHER_TREE in path.parts or path.name.startswith("other-"):
        return True  # another study's, lost with the folder that was damaged
    # what is sound, with a field that a later version wrote, stays as it is
    return path.parts[:2] in NOT_READ_AGAIN or path.parts[:1] in NOT_READ_AGAIN or fault == "newer version"


def _has_same_bits(path: PurePath) -> bool:
    """Whether a file is the same however it came about: weights, losses, tokens, text."""
    return path.suffix in (".safetensors", ".bin") or (
        path.parts[0] in ("observations", "text") and path.name != "lock"
    )
