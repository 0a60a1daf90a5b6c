"""Studies with conversations run from a command to their table; what is wrong with one is said in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from replay_sweeps.main import main
from tests.fixtures.conversations import CHATML, made_up_conversation
from tests.fixtures.shared import finish

SWEPT = "schedule.replay_fraction=0,1/2"


def results(output: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, dict[str, Any]]]:
    """The run table, the history, and what the report says of the texts."""
    texts = {text["role"]: text for text in json.loads((output / "study.json").read_text())["sources"]}
    return pd.read_parquet(output / "runs.parquet"), pd.read_parquet(output / "history.parquet"), texts


@pytest.mark.slow
@pytest.mark.parametrize("chat", ["target", "generic"])
def test_conversations_and_plain_text_mix_in_either_role(
    chat: str, chat_command: Callable[..., list[str]], conversations: Path, tmp_path: Path, chat_text: Path
) -> None:
    finish(chat_command(f"{chat}=chat", f"{chat}.path={conversations}", SWEPT), text_of=chat_text)
    runs, history, texts = results(tmp_path / "output")
    assert list(runs.status) == ["done", "done"]
    first = history[(history.step == 0) & (history.metric == "target_loss")].value
    assert first.nunique() == 1 and (runs.target_loss < first.iloc[0]).all()
    counts = texts[chat]
    assert counts["packed_rows"] * 128 == counts["train_tokens"]
    assert 0 < counts["learned_tokens"] < counts["train_tokens"]
    assert "packed_rows" not in texts["generic" if chat == "target" else "target"]


@pytest.mark.slow
def test_micro_batches_do_not_change_what_is_learned(
    chat_command: Callable[..., list[str]],
    conversations: Path,
    tmp_path: Path,
    chat_text: Path,
) -> None:
    losses = []
    for micro_rows in (8, 2):
        output = f"micro{micro_rows}"
        given = ["target=chat", f"target.path={conversations}", SWEPT, f"trainer.micro_batch_rows={micro_rows}"]
        finish(chat_command(*given, "schedule.target_epochs=4", output=output), text_of=chat_text)
        losses.append(results(tmp_path / output)[0].set_index("replay_fraction").target_loss)
    assert losses[0].to_dict() == pytest.approx(losses[1].to_dict(), rel=1e-5)  # fp32 sums in another order, 16 steps


@pytest.mark.slow
def test_a_model_from_scratch_learns_conversations_by_a_template_of_ones_own(
    command: Callable[..., list[str]], conversations: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(CHATML)
    given = ["target=chat", f"target.path={conversations}", f"model.tokenizer.chat_template={template}"]
    short = ["trainer.row_length=64", "trainer.batch_rows=8", "trainer.threads=1", "schedule.total_tokens=8192"]
    assert main(command(*given, "schedule.replay_fraction=0.5", *short)) == 0
    runs, _, texts = results(tmp_path / "output")
    assert list(runs.status) == ["done"] and texts["target"]["learned_tokens"] > 0


def test_a_missing_template_is_told_before_anything_is_done(
    chat_command: Callable[..., list[str]],
    command: Callable[..., list[str]],
    chat_model: Path,
    conversations: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = ["target=chat", f"target.path={conversations}"]
    mute = shutil.copytree(chat_model, tmp_path_factory.mktemp("mute") / "model")
    (mute / "chat_template.jinja").unlink()
    assert main(chat_command(*target, f"model.path={mute}")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"model.tokenizer.path={mute} " in line and "has no chat template" in line
    assert "model.tokenizer.chat_template" in line
    assert main(command(*target)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "model.tokenizer.path=bpe " in line and "model.tokenizer.chat_template" in line
    absent = tmp_path / "absent.jinja"
    assert main(chat_command(*target, f"model.tokenizer.chat_template={absent}")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"model.tokenizer.chat_template={absent} (command line): there is no file" in line
    absent.write_text("{% for %}")
    assert main(chat_command(*target, f"model.tokenizer.chat_template={absent}")) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(absent) in line and "the chat template can't be read" in line
    absent.unlink()
    assert list(tmp_path.iterdir()) == []


GOOD = json.dumps({"messages": made_up_conversation(0)})
BAD = {
    "no messages": ('{"text": "plain"}', "line 2: no column 'messages'; there are: text"),
    "not a list": ('{"messages": 3}', "line 2: column 'messages' holds int, not a list of messages"),
    "no role": ('{"messages": [{"from": "human", "value": "hello"}]}', 'message 1: expected {"role": ..., "content"'),
    "unknown role": (
        '{"messages": [{"role": "human", "content": "x"}]}',
        "message 1: unknown role 'human'; there are:",
    ),
    "no content": ('{"messages": [{"role": "user"}]}', "message 1: no content (role user)"),
    "a picture": (
        '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
        "message 1: content has a part of type 'image'; only text can be learned",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_told_with_its_place_and_what_is_expected(
    case: str, chat_command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, said = BAD[case]
    file = tmp_path / "bad.jsonl"
    file.write_text(f"{GOOD}\n{row}\n")
    assert main(chat_command("target=chat", f"target.path={file}")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"replay-sweep: {file}, line 2") and said in line
    assert not (tmp_path / "output" / "runs.csv").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["target=mathematics", "target.format=chat"], "target.format=chat (command line): must be text"),
        (["target.prompt_column=question"], "target.prompt_column=question (command line): has no effect"),
        (["target=chat", "target.prompt_column=a"], "give both target.prompt_column and target.response_column"),
    ],
)
def test_settings_of_conversations_that_contradict_each_other_are_told(
    wrong: list[str],
    said: str,
    chat_command: Callable[..., list[str]],
    conversations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = [f"target.path={conversations}"] if "target=chat" in wrong else []
    assert main(chat_command(*wrong, *path)) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
