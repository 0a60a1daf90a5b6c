"""What every benchmark of the analysis records beside its numbers: command, commit, versions, machine, spread."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent


def environment(packages: tuple[str, ...] = ("numpy", "scipy", "pandas")) -> dict[str, Any]:
    """Command, commit, versions and machine of this process."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "command": "python " + " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit.stdout.strip() or "uncommitted",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "machine": f"{processor()}, {os.cpu_count()} cores",
    }


def processor() -> str:
    """The processor's model name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def timed(work: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Seconds of `repeats` calls: each, median, least, greatest."""
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        seconds.append(perf_counter() - start)
    return {"seconds": seconds, "median": median(seconds), "least": min(seconds), "greatest": max(seconds)}


def shown_environment(record: dict[str, Any]) -> str:
    """The environment as markdown lines."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"`{record['command']}` at {record['commit'][:12]}, Python {record['python']}, {versions}; {record['machine']}."
    )


def write(record: dict[str, Any], json_file: Path, markdown: str, markdown_file: Path) -> None:
    """Write the record as JSON and what is generated from it as markdown."""
    json_file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    markdown_file.write_text(markdown)
    print(markdown)
