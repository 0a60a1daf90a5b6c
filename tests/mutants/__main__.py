"""`python -m tests.mutants`: breaks one promise at a time in a copy of the checkout; the tests named for it must fail.

Prints a table and its score; the exit code is 1 if a mutant survives, or if a mutation fits the code no longer.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.mutants.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parent.parent.parent
COPIED = ("replay_sweeps", "analysis", "hydra_plugins", "conf", "tests", "pyproject.toml")
LIMIT = 300  # seconds for the tests of one mutation
PASSED, FAILED = 0, 1  # exit codes of pytest


def misfits(mutations: Iterable[Mutation] = MUTATIONS) -> Iterator[str]:
    """The mutations that fit the code no longer: their old text must stand in the file once, their tests must exist."""
    for mutation in mutations:
        count = (ROOT / mutation.file).read_text().count(mutation.old)
        if count != 1:
            yield f"{mutation.promise}: the old text stands {count} times in {mutation.file}"
        yield from (f"{mutation.promise}: there is no {test}" for test in mutation.tests if not _file(test).is_file())


def _file(test: str) -> Path:
    return ROOT / test.partition("::")[0]


def verdict(mutation: Mutation | None, tests: Sequence[str]) -> str:
    """What becomes of a mutation (None: of the code as it is): killed, survived, or what else happened."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for name in COPIED:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / name, ignore=ignored) if source.is_dir() else shutil.copy2(source, copy)
        if mutation:
            changed = copy / mutation.file
            changed.write_text(changed.read_text().replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return "killed (its tests do not end)"
        if ended.returncode not in (PASSED, FAILED):
            return f"pytest ended with {ended.returncode}: {ended.stdout[-300:]}{ended.stderr[-300:]}"
        if ended.returncode == PASSED:
            return "survived"
        failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)", ended.stdout, re.MULTILINE)
        return f"killed by {failed[0]}" if failed else "killed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutations whose promise holds a text, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="run the mutations whose promise holds this text")
    only = parser.parse_args(arguments).only
    chosen = [mutation for mutation in MUTATIONS if only in mutation.promise]
    if problems := list(misfits(chosen)):
        print("\n".join(problems), file=sys.stderr)
        return 1
    healthy = verdict(None, sorted({test for mutation in chosen for test in mutation.tests}))
    if healthy != "survived":
        print(f"the tests fail without any mutation: {healthy}", file=sys.stderr)
        return 1
    killed = 0
    for mutation in chosen:
        began = time.monotonic()
        result = verdict(mutation, mutation.tests)
        killed += result.startswith("killed")
        print(f"{mutation.promise:70}  {result} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"score: {killed} of {len(chosen)} mutants are killed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
