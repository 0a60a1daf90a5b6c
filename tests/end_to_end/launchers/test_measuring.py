"""Workers that are lost while they measure for a budget: the command says so in a line, and can be given again."""

from collections.abc import Callable

import pytest

from replay_sweeps.main import main
from replay_sweeps.workers import worker_process


def dies(_: object) -> None:
    raise RuntimeError("the node is gone")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (lambda _: None, "the workers ended while measuring: see the study's logs/"),
        (dies, "a worker failed: RuntimeError: the node is gone"),
    ],
    ids=["without a word", "with an exception of its launcher"],
)
def test_a_worker_that_is_lost_while_it_measures_is_told_in_a_line(
    lost: Callable[[object], None],
    said: str,
    command: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(worker_process, "work", lost)
    assert main(command("budget=1h", "schedule.replay_fraction=0,0.5")) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"replay-sweep: {said}"
