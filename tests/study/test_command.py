"""A command line is read whole: what is fixed, what is swept, and each word that names nothing, with a hint."""

import importlib.util

import pytest
from hydra.core.config_loader import ConfigLoader

from replay_sweeps.errors import UserError
from replay_sweeps.study.command import Command, choices, read_command


def problems(loader: ConfigLoader, *arguments: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        read_command(arguments, loader)
    return tuple(error.value.problems)


def test_fixed_and_swept_values_are_told_apart_in_the_order_given(loader: ConfigLoader) -> None:
    command = read_command(
        ["model=1m,4m", "schedule.replay_fraction=0,0.5", "optimizer.beta2=0.9", "-m", "study=quickstart"], loader
    )
    assert command.swept == {"model": ["1m", "4m"], "schedule.replay_fraction": [0, 0.5]}
    assert list(command.swept) == ["model", "schedule.replay_fraction"]
    assert command.values == {"optimizer.beta2": 0.9, "study": "quickstart"}
    assert command.fixed == ("++optimizer.beta2=0.9", "study=quickstart")


def test_the_last_of_two_values_holds(loader: ConfigLoader) -> None:
    command = read_command(["workers=1,2", "optimizer.beta2=0.5", "workers=3", "optimizer.beta2=0.1,0.2"], loader)
    assert command.values == {"workers": 3} and command.swept == {"optimizer.beta2": [0.1, 0.2]}
    assert str(command) == "replay-sweep workers=3 optimizer.beta2=0.1,0.2"


def test_a_scale_is_added_and_quoted_words_lose_their_quotes(loader: ConfigLoader) -> None:
    command = read_command(["+scale=tiny", "study.title='two words'"], loader)
    assert command.fixed == ("+scale=tiny", "++study.title='two words'")
    assert command.values == {"scale": "tiny", "study.title": "two words"}


def test_the_command_is_shown_as_a_user_types_it() -> None:
    command = Command((), {}, {}, ("++paths.output=my folder", "model=1m"))
    assert str(command) == "replay-sweep 'paths.output=my folder' model=1m"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("schedule.replay_fractn=0", "there is no setting or group schedule.replay_fractn; did you mean"),
        ("modle=1m", "there is no setting or group modle; did you mean model?"),
        ("study=quikstart", "there is no study 'quikstart'; did you mean quickstart?"),
        ("model=1m,7m", "there is no model '7m'; did you mean"),
        ("zzzz=1", "there is no setting or group zzzz; see replay-sweep --help"),
        ("hydra/launcher=nowhere", "there is no hydra/launcher 'nowhere'; "),
        ("logger=zzzz", "there is no logger 'zzzz'; known: csv, "),
        ("schedule.stage1=3", "is a group of settings; set one of schedule.stage1.cooldown_fraction, "),
        ("~workers", "settings cannot be deleted; give a value"),
        ("replay", "cannot be read as key=value: "),
    ],
)
def test_what_names_nothing_is_told_with_a_hint(argument: str, said: str, loader: ConfigLoader) -> None:
    [line] = problems(loader, argument)
    assert line.startswith(f"{argument} (command line): {said}")


def test_all_wrong_arguments_are_told_at_once(loader: ConfigLoader) -> None:
    told = problems(loader, "modle=1m", "workers=2", "study=quikstart", "schedule.replay_fractn=0")
    assert [line.split(" ")[0] for line in told] == ["modle=1m", "study=quikstart", "schedule.replay_fractn=0"]


def test_a_launcher_that_is_not_installed_is_told_with_its_extra(
    loader: ConfigLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    [line] = problems(loader, "hydra/launcher=joblib")
    assert line.endswith("is not installed: pip install 'replay-sweeps[joblib]'")
    assert read_command(["hydra/launcher=local"], loader).values == {"hydra/launcher": "local"}


def test_the_choices_of_a_group_are_the_names_of_its_files() -> None:
    assert "1m" in choices("model") and "tiny" in choices("scale") and choices("model") == sorted(choices("model"))
