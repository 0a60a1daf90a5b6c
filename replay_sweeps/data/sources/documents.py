"""The documents of a source of any kind: a hub data set, local files, installed packages, or a model that writes."""

from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources import hub_datasets, installed_packages, local_files, self_generated
from replay_sweeps.data.sources.installed_packages import PACKAGES
from replay_sweeps.data.sources.normal_text import cut, normalise
from replay_sweeps.data.sources.table_rows import table_reader
from replay_sweeps.errors import UserError
from replay_sweeps.files import fingerprint
from replay_sweeps.packages import STANDARD_LIBRARY, package_folder, package_version

EXTRACTION_VERSION = 1  # raised whenever the same input would give other documents


class InstalledText(NamedTuple):
    """What is read of installed packages."""

    packages: tuple[str, ...]
    what: Literal["documentation", "sources"]
    with_tests: bool  # whether tests are among the sources


INSTALLED = {
    "installed_documentation": InstalledText((*PACKAGES, STANDARD_LIBRARY), "documentation", False),
    "installed_documentation_without_standard_library": InstalledText(PACKAGES, "documentation", False),
    "sympy": InstalledText(("sympy",), "sources", True),
    "standard_library": InstalledText((STANDARD_LIBRARY,), "sources", False),
}
KINDS = ("hub", "local", self_generated.KIND, *INSTALLED)


def _raw_documents(source: SourceConfig, pool: Executor | None, sampled: Path | None) -> Iterator[str]:
    if source.kind == "hub":
        yield from hub_datasets.documents(source, table_reader(source))
    elif source.kind == self_generated.KIND:
        assert sampled is not None
        yield from self_generated.documents(source, sampled)
    elif source.kind == "local":
        assert source.path is not None
        yield from local_files.documents(Path(source.path).expanduser(), table_reader(source))
    else:
        text = INSTALLED[source.kind]
        if text.what == "documentation":
            yield from installed_packages.documentation(text.packages, pool)
        else:
            for package in text.packages:
                yield from installed_packages.sources(package, text.with_tests)


def documents(source: SourceConfig, pool: Executor | None = None, sampled: Path | None = None) -> Iterator[str]:
    """The source's documents in a fixed order: normalised, none empty, long ones cut at paragraphs.

    A conversation is one document, never cut: its canonical JSON, whose texts alone are normalised.
    `source.max_documents` counts documents before they are cut. Text that a model samples is kept below `sampled`.
    Raises UserError when the source can't be read.
    """
    problems = check_source(source)
    if problems:
        raise UserError(*problems)
    for raw in islice(_raw_documents(source, pool, sampled), source.max_documents):
        if source.format == "text":
            yield from cut(normalise(raw), source.split_above_characters)
        elif raw:
            yield raw


def check_source(source: SourceConfig) -> list[str]:
    """What is wrong with a source as far as can be seen without reading it through, one line each."""
    if source.kind not in KINDS:
        return [f"{source.name}: unknown kind {source.kind!r}; there are: {', '.join(KINDS)}"]
    if source.kind in ("hub", "local"):
        if not source.path:
            what = "the data set's id" if source.kind == "hub" else "a file or folder"
            return [f"{source.name}: `path` is missing: {what}"]
        if source.kind == "local":
            path = Path(source.path).expanduser()
            return [f"{source.name}: {problem}" for problem in local_files.check(path, table_reader(source))]
        return []
    if source.kind == self_generated.KIND:
        return [f"{source.name}: {name}: {problem}" for name, problem in self_generated.check(source)]
    packages = INSTALLED[source.kind].packages
    if all(package_folder(package) is None for package in packages):
        return [f"{source.name}: not installed: {', '.join(packages)}"]
    return []


def input_fingerprint(source: SourceConfig) -> str:
    """A hash of all that decides the source's documents, computed without reading them.

    Local files count by relative name, size and time of change; installed packages by version; a hub data set by its
    id, subset, split and revision; a model by its weights, with how it is sampled. The source's name never enters.
    """
    shape: dict[str, Any] = {
        "version": EXTRACTION_VERSION,
        "kind": source.kind,
        "max_documents": source.max_documents,
        "split_above_characters": source.split_above_characters,
    }
    if source.kind == "hub":
        shape |= {"path": source.path, "subset": source.subset, "split": source.split, "revision": source.revision}
        shape |= _columns(source)
        shape |= {"folder": source.folder} if source.folder else {}
    elif source.kind == "local":
        shape |= _columns(source)
        shape["files"] = [[name, size, changed] for name, size, changed, *_ in input_state(source)]
    elif source.kind == self_generated.KIND:
        shape["sampled"] = self_generated.documents_fingerprint(source)
    elif source.kind in INSTALLED:
        shape["packages"] = {package: package_version(package) for package in INSTALLED[source.kind].packages}
    return fingerprint(shape)


def input_state(source: SourceConfig) -> list[tuple[str, int, int, int, int]]:
    """What tells that local files were changed, also one that got its old time back: (name, size, time of change,
    inode, time of the last change of these) of each. Raises UserError where one of them vanishes.
    """
    if source.kind != "local":
        return []
    found = []
    for name, file in local_files.readable_files(Path(source.path or "").expanduser(), table_reader(source)):
        try:
            state = file.stat()
        except OSError as error:
            raise UserError(f"{file}: can't be read ({error.strerror}); give text that stays") from error
        found.append((name, state.st_size, state.st_mtime_ns, state.st_ino, state.st_ctime_ns))
    return found


def _columns(source: SourceConfig) -> dict[str, Any]:
    """Which columns of a table are read; the names of these values are part of the key."""
    if source.format == "text":
        return {"text_column": source.text_column}
    return {"format": source.format, "columns": table_reader(source).columns}
