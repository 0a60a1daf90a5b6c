"""A run, and studies of commands, without text."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_loader import ConfigLoader

from replay_sweeps.config import RunConfig
from replay_sweeps.errors import UserError
from replay_sweeps.study.command import read_command
from replay_sweeps.study.composer import Composer
from replay_sweeps.study.study import Study, hydra_loader


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    """Hydra's loader over conf/."""
    with hydra_loader() as found:
        yield found


@pytest.fixture(scope="session")
def fine_tune() -> RunConfig:
    """A tiny run with a learning-rate schedule in both stages, all of it in order."""
    with hydra_loader() as loader:
        command = read_command(["+scale=tiny", "schedule=fine_tune", "schedule.target_fraction=1/128"], loader)
        run, problems = Composer(command, loader).run({})
    assert run is not None and not problems
    return run


@pytest.fixture
def problems_of(study_of: Callable[..., Study], tmp_path: Path) -> Callable[..., list[str]]:
    """The lines that are said of a command on a tiny study."""

    def told(*arguments: str) -> list[str]:
        with pytest.raises(UserError) as error:
            study_of("+scale=tiny", *arguments)
        return list(error.value.problems)

    return told
