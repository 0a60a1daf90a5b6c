"""Text that every machine has: documentation and sources of installed packages, read with `ast`, never imported."""

import ast
import gc
import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path

from replay_sweeps.packages import package_folder
from replay_sweeps.parallel import ordered_map

logger = logging.getLogger(__name__)

PACKAGES = ("numpy", "scipy", "pandas", "torch", "matplotlib", "transformers")  # sympy is a target

MINIMUM_CHARACTERS = 80  # shorter docstrings repeat the name that they document
FILES_PER_TASK = 16

# Some Python installations ship without the tests and the demonstrations, and generated files name their machine.
_LEFT_OUT_FOLDERS = {"test", "tests", "site-packages", "dist-packages", "idlelib", "turtledemo", "__pycache__"}
_LEFT_OUT_NAMES = "_sysconfigdata"

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def python_files(package: str, tests: bool) -> list[Path]:
    """The package's Python files in a fixed order, with or without its tests."""
    folder = package_folder(package)
    if folder is None:
        logger.warning("%s is not installed: its text is left out", package)
        return []
    left_out = _LEFT_OUT_FOLDERS - {"test", "tests"} if tests else _LEFT_OUT_FOLDERS
    files = []
    for path in folder.rglob("*.py"):
        inside = path.relative_to(folder)
        if left_out.isdisjoint(inside.parts) and not path.name.startswith(_LEFT_OUT_NAMES):
            files.append((inside.as_posix(), path))
    return [path for _, path in sorted(files)]


def _documenting_call(node: ast.stmt) -> str | None:
    """The text that a statement such as numpy's `add_newdoc(place, name, text)` attaches to a compiled function."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return None
    function = node.value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if not name.lstrip("_").startswith(("add_newdoc", "add_docstr")):
        return None
    strings = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return inspect.cleandoc(max(strings, key=len)) if strings else None


def docstrings(source: bytes) -> list[str]:
    """Every docstring of a Python source, dedented, in the order of the source; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    texts: list[str | None] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, _DOCUMENTED):
            texts.append(ast.get_docstring(node))
        elif isinstance(node, ast.stmt):
            texts.append(_documenting_call(node))
        children = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt | ast.ExceptHandler)]
        stack.extend(reversed(children))
    return [text for text in texts if text and len(text) >= MINIMUM_CHARACTERS]


def _docstrings_of_files(paths: list[Path]) -> list[str]:
    collecting = gc.isenabled()
    gc.disable()  # a syntax tree is one large garbage-free structure: collecting costs a fifth of the time
    try:
        return [text for path in paths for text in docstrings(path.read_bytes())]
    finally:
        if collecting:
            gc.enable()


def documentation(packages: Iterable[str], pool: Executor | None = None) -> Iterator[str]:
    """The docstrings of installed packages, one document each."""
    paths = [path for package in packages for path in python_files(package, tests=False)]
    tasks = [paths[start : start + FILES_PER_TASK] for start in range(0, len(paths), FILES_PER_TASK)]
    for texts in ordered_map(pool, _docstrings_of_files, tasks, ahead=16):
        yield from texts


def sources(package: str, tests: bool) -> Iterator[str]:
    """The package's Python files, one document each."""
    for path in python_files(package, tests):
        yield path.read_text(encoding="utf-8", errors="replace")
