"""What benchmarks of sweeps write: JSON with command, commit, versions, machine, spread; and a page made from it."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def write(
    name: str, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> None:
    """Write `NAME.json` and `NAME.md` beside this file."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    record = {
        "title": title,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("torch", "lightning")}},
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
        "rows": list(rows),
        "notes": list(notes),
    }
    (HERE / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        f"# {title}",
        "",
        f"`{record['command']}` at {record['commit']}; "
        + ", ".join(f"{package} {number}" for package, number in record["versions"].items()),
        f"; {record['machine']['cores']} cores of {record['machine']['processor']}, load {record['machine']['load']}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows),
        "",
        *notes,
    ]
    (HERE / f"{name}.md").write_text("\n".join(lines) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def median_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """The median of measurements and their range, as text."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return f"{middle:.{digits}f} ({ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f})"
