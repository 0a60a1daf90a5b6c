"""A small store that an earlier version of this project made, and the command that made it.

Written by `python -m tests.store.golden` with the version that is to be kept readable; then the archive is committed.
"""

import os
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.conftest import write_text

ARCHIVE = Path(__file__).parent / "golden_store.tar.xz"
CHANGED = 1_700_000_000  # when the files of the text were last changed, seconds: it is part of what names a text


def write_texts(folder: Path) -> None:
    """The text of the study, the same on every machine."""
    for name, seed in (("generic", 1), ("target", 2)):
        for file in write_text(folder / name, seed, 80, 40).iterdir():
            os.utime(file, (CHANGED, CHANGED))


def golden_command(folder: Path) -> list[str]:
    """The command whose store is kept: two runs that share their first steps, on two target sizes."""
    return [
        "+scale=tiny",
        "generic=local",
        f"generic.path={folder / 'generic'}",
        "target=local",
        f"target.path={folder / 'target'}",
        "generic.validation_fraction=0.2",
        "target.validation_fraction=0.2",
        "model.hidden_size=8",
        "model.layers=1",
        "model.heads=1",
        "model.key_value_heads=1",
        "model.mlp_size=8",
        "model.tokenizer.vocab_size=300",
        "schedule.total_tokens=8192",
        "schedule.target_fraction=1/128",
        "schedule.target_epochs=4",
        "schedule.replay_fraction=0,0.5",
        "trainer.row_length=16",
        "trainer.batch_rows=8",
        "trainer.precision=fp32",
        "trainer.compile=false",
        "trainer.threads=1",
        "trainer.waypoints=2",
        "evaluation.tokens=256",
        "logger=csv",
        "study.name=golden",
        "study.analyze=false",
        f"paths.output={folder / 'output'}",
    ]


def make(folder: Path) -> None:
    """Run the command, and pack its store."""
    from replay_sweeps.main import main

    write_texts(folder)
    assert main(golden_command(folder)) == 0
    with tarfile.open(ARCHIVE, "w:xz") as archive:
        archive.add(folder / "output" / "store", "store")
        archive.add(folder / "output" / "runs.csv", "runs.csv")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        make(Path(place))
    sys.exit(0)
