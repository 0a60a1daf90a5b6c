"""Every kind of file that a store and a study's folder hold; the fault tests are made from this list.

Who adds a file to a store or to a study's folder adds its kind here: the fault tests fail on a file of no kind.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Literal

Place = Literal["store", "output"]


@dataclass(frozen=True)
class FileKind:
    """Files that one part of the code writes and reads."""

    place: Place  # the store, or the study's folder
    pattern: str  # of the path below that place; "*" stands for one name
    holds: str
    unit: int = 0  # names of the path that are made, dropped and made again as one; 0: the file alone

    def matches(self, path: PurePath) -> bool:
        """Whether a path below the place is of this kind."""
        patterns = PurePath(self.pattern).parts
        return len(patterns) == len(path.parts) and all(map(fnmatchcase, path.parts, patterns))

    def folders(self) -> Iterator[str]:
        """The patterns of the folders that a file of this kind lies in, the outermost first."""
        parts = PurePath(self.pattern).parts
        for depth in range(1, len(parts)):
            yield "/".join(parts[:depth])


FILE_KINDS = (
    FileKind("store", "store.json", "that the folder is a store, and of which version"),
    FileKind("store", "states/*/*/state.json", "names and checksums of a state's files", unit=3),
    FileKind("store", "states/*/*/model.safetensors", "weights", unit=3),
    FileKind("store", "states/*/*/optimizer.safetensors", "the optimizer's part of a state", unit=3),
    FileKind("store", "records/*/*.json", "how a state was trained"),
    FileKind("store", "observations/*/*.json", "validation losses of a state"),
    FileKind("store", "failures/*/*.json", "why a state could not be reached"),
    FileKind("store", "claims/worker-*", "that a worker is alive"),
    FileKind("store", "claims/*", "the lease of a path"),
    FileKind("store", "studies/*.json", "what a study needs of the store"),
    FileKind("store", "numerics/*.json", "what this machine computes fast"),
    FileKind("store", "timings/*.json", "how long steps take on this machine"),
    FileKind("store", "text/lock", "lock of the text's folder"),
    FileKind("store", "text/records/*.json", "what text was made of what"),
    FileKind("store", "text/text/*/record.json", "what cleaning counted", unit=3),
    FileKind("store", "text/text/*/*.jsonl.zst", "cleaned text", unit=3),
    FileKind("store", "text/text/*/*.signatures", "what near duplicates are found by", unit=3),
    FileKind("store", "text/tokenizers/*/*", "a tokenizer's file", unit=3),
    FileKind("store", "text/tokens/*/*.bin", "tokens", unit=3),
    FileKind("store", "text/sampled/*/*.json", "what a model wrote"),
    FileKind("output", "runs.csv", "the run table"),
    FileKind("output", "runs.parquet", "the run table"),
    FileKind("output", "history.parquet", "training series and losses of all runs"),
    FileKind("output", "study.json", "what a report says of the study"),
    FileKind("output", "work.json", "what the workers are told"),
    FileKind("output", "measure.json", "what workers that measure are told"),
    FileKind("output", "budget.json", "which runs fit the budget"),
    FileKind("output", "mirrored.json", "which runs the trackers have"),
    FileKind("output", "history/*.csv", "training series and losses of a run"),
    FileKind("output", "logs/*.log", "what a worker said"),
)


def kind_of(place: Place, path: PurePath) -> FileKind | None:
    """The kind of a file by its path below a store or a study's folder, or None."""
    return next((kind for kind in FILE_KINDS if kind.place == place and kind.matches(path)), None)
