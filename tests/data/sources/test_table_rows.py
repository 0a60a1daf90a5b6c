"""Rows of any kind of file become the same conversations, never cut."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.documents import documents, input_fingerprint
from replay_sweeps.data.sources.table_rows import conversation
from tests.fixtures.conversations import Conversation

QUESTION: Conversation = [{"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "four"}]


def chat(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig("mine", "local", path=str(path), format="chat", **more)


def test_messages_and_prompts_with_responses_give_the_same_conversations_from_any_kind_of_file(tmp_path: Path) -> None:
    pairs = {"question": ["two and two?", None], "answer": ["four", "left out"]}
    pyarrow.parquet.write_table(pyarrow.table(pairs), tmp_path / "pairs.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"messages": [QUESTION, None]}), tmp_path / "nested.parquet")
    (tmp_path / "lines.jsonl").write_text(json.dumps({"messages": QUESTION}) + "\n" + json.dumps({"messages": []}))
    parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in QUESTION]
    (tmp_path / "array.json").write_text(json.dumps([{"messages": parts}]))
    for name in ("nested.parquet", "lines.jsonl", "array.json"):
        assert [conversation(document) for document in documents(chat(tmp_path / name))] == [QUESTION]
    columns = {"prompt_column": "question", "response_column": "answer"}
    pairs_source = chat(tmp_path / "pairs.parquet", **columns)
    assert [conversation(document) for document in documents(pairs_source)] == [QUESTION]
    assert input_fingerprint(pairs_source) != input_fingerprint(chat(tmp_path / "pairs.parquet"))


def test_a_long_conversation_is_never_cut_and_its_layout_is_kept(tmp_path: Path) -> None:
    code = "def f():\n\n    return '\\n'\n\n" * 50
    messages = [{"role": "user", "content": "write it"}, {"role": "assistant", "content": code.strip("\n")}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    [document] = documents(chat(tmp_path, split_above_characters=200))
    assert conversation(document) == messages
