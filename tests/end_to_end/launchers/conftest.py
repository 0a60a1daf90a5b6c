"""The command that launchers run: the small grid of `whole`, its text prepared."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.grid import GRID
from tests.fixtures.shared import share_text


@pytest.fixture
def grid(command: Callable[..., list[str]], tmp_path: Path, whole: Path) -> list[str]:
    """The command of the grid; its text is prepared."""
    share_text(whole, tmp_path / "output")
    return command(*GRID)
