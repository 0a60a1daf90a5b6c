"""The house has floors: a room imports from its own floor's rooms below, never from above, and never in a circle.

Read from the code itself, imports inside functions and those for types alone among them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "replay_sweeps"
# from the roof to the ground; the rooms of one floor do not import each other
FLOORS = [
    {"main"},
    {"workers"},
    {"training", "plan", "results"},
    {"evaluation", "store"},
    {"tree"},
    {"study"},
    {"data"},
    {"distributed"},
    {"models"},
    {"schedule"},
    {"config_builder"},
    {"config", "machine", "parallel"},
    {"child_process", "files", "interrupt", "packages", "progress", "setting"},
    {"errors"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MOST_MODULES = 14  # of a folder: more are two rooms


def room_of(module: str) -> str:
    """The room of `replay_sweeps.room.module`."""
    return [*module.split("."), ""][1]


def imports(source: str) -> Iterator[str]:
    """The modules of this package that a source imports, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("replay_sweeps"):
            if node.module == "replay_sweeps":
                yield from (f"replay_sweeps.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("replay_sweeps"))


def climbing(room: str, source: str) -> list[str]:
    """The imports of a source in a room that lead to a room which is not below it."""
    return [
        module
        for module in imports(source)
        if room_of(module) in FLOOR and room_of(module) != room and FLOOR[room_of(module)] <= FLOOR[room]
    ]


def modules() -> Iterator[tuple[str, Path]]:
    """Each module with its room."""
    for file in sorted(PACKAGE.rglob("*.py")):
        inside = file.relative_to(PACKAGE)
        if inside != Path("__init__.py"):
            yield inside.parts[0].removesuffix(".py"), file


def test_every_room_has_a_floor() -> None:
    assert {room for room, _ in modules()} == set(FLOOR)


def test_no_import_leads_to_a_room_that_is_not_below() -> None:
    found = {str(file.relative_to(PACKAGE)): climbing(room, file.read_text()) for room, file in modules()}
    assert {file: wrong for file, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("room", "source", "climbs"),
    [
        ("tree", "from replay_sweeps.store.states import Store", True),
        ("tree", "def f():\n    import replay_sweeps.workers.pool", True),
        ("plan", "from replay_sweeps import training", True),
        ("plan", "from replay_sweeps.results.run_table import row", True),
        ("store", "from replay_sweeps.tree.paths import StudyTree", False),
        ("store", "from replay_sweeps.store.states import Store", False),
    ],
)
def test_an_import_that_climbs_is_found(room: str, source: str, climbs: bool) -> None:
    assert bool(climbing(room, source)) == climbs


def test_the_modules_of_a_room_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        ".".join(("replay_sweeps", *file.relative_to(PACKAGE).with_suffix("").parts)): set(imports(file.read_text()))
        for _, file in modules()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for imported in sorted(graph.get(module, ())):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_every_room_says_what_it_is() -> None:
    for folder in {file.parent for _, file in modules()} - {PACKAGE}:
        assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), folder


def test_no_room_holds_more_modules_than_one_finds_at_a_glance() -> None:
    for folder in {file.parent for _, file in modules()}:
        names = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
        assert len(names) <= MOST_MODULES, folder
