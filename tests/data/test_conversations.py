"""Rows become conversations, conversations become tokens of which the responses are learned, tokens become rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.chat_template import ChatTemplate
from replay_sweeps.data.packing import Example, RowPacker
from replay_sweeps.data.prepare import prepare_text
from replay_sweeps.data.prepared_text import PreparedTokenizer
from replay_sweeps.data.sources.documents import documents, input_fingerprint
from replay_sweeps.data.sources.table_rows import conversation
from replay_sweeps.data.token_rows import TokenRows
from replay_sweeps.data.token_store import BEGINS, FLAGS_FILE, LEARNED, PADDING, write_packed_store
from replay_sweeps.errors import DamagedFile, UserError
from tests.data.conftest import request
from tests.fixtures.conversations import CHATML, MARKED, Conversation, made_up_conversation

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


@pytest.fixture
def template(chat_model: Path, tmp_path: Path) -> Callable[[str], ChatTemplate]:
    """The small model's tokenizer with a template of the caller's."""
    import shutil

    def make(text: str) -> ChatTemplate:
        folder = tmp_path / "tokenizer"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(chat_model, folder)
        (folder / "chat_template.jinja").write_text(text)
        return ChatTemplate(PreparedTokenizer(folder, 400, 0, "made up"), "the tokenizer")

    return make


def learned_texts(template: ChatTemplate, messages: Conversation) -> list[str]:
    """The learned stretches of a conversation, as text."""
    [example] = template.examples([json.dumps(messages)], 1, "test")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], example.learned, [False]]).astype(int)))
    return [
        template.tokenizer.decode(example.tokens[begin:end].tolist(), skip_special_tokens=False)
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


@pytest.mark.parametrize("text", [CHATML, MARKED], ids=["told by its prompts", "marked"])
def test_all_of_each_response_is_learned_with_its_end_of_turn_and_nothing_else(
    text: str, template: Callable[[str], ChatTemplate]
) -> None:
    system = [{"role": "system", "content": "be brief"}]
    more = [{"role": "user", "content": "naïve 中文 😀?"}, {"role": "assistant", "content": " ja, 中文 😀\n- ende"}]
    expected = ["four<|im_end|>", " ja, 中文 😀\n- ende<|im_end|>"]
    assert learned_texts(template(text), [*system, *QUESTION, *more]) == expected


THINKS = (  # as some models' templates do, it writes a thought into the last response alone
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ '(thinks)' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_hides_where_responses_are_is_told_in_one_line(
    template: Callable[[str], ChatTemplate],
) -> None:
    assert learned_texts(template(THINKS), QUESTION) == ["(thinks)four<|im_end|>"]
    with pytest.raises(UserError, match=r"writes messages otherwise once others follow.*{% generation %}") as caught:
        learned_texts(template(THINKS), [*QUESTION, *QUESTION])
    assert len(caught.value.problems) == 1
    refuses = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(UserError, match=r"refuses the conversation that begins 'two and two.': roles must alternate"):
        learned_texts(template(refuses), QUESTION)


def test_a_template_that_writes_the_date_gives_the_same_tokens_on_any_day(
    template: Callable[[str], ChatTemplate],
) -> None:
    dated = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + CHATML
    assert template(dated).text(QUESTION)[0].startswith("Today: 26 Jul 2024\n<|im_start|>user")
    assert learned_texts(template(dated), QUESTION) == ["four<|im_end|>"]


lengths = st.lists(st.tuples(st.integers(2, 40), st.integers(0, 45)), min_size=1, max_size=200)


@given(lengths)
def test_every_example_is_in_one_row_whole_or_cut_at_its_end(sizes: list[tuple[int, int]]) -> None:
    """Sizes: the tokens of each example, and the first of them that is learned."""
    row_length, padding = 24, 7
    examples = [
        Example(np.arange(1000 * number, 1000 * number + size), np.arange(size) >= max(first, 1))
        for number, (size, first) in enumerate(sizes, 1)
    ]
    packing = RowPacker(row_length, padding)
    rows = list(packing.pack(iter(examples)))
    found = {}
    for tokens, flags in rows:
        assert len(tokens) == len(flags) == row_length and (flags & LEARNED).any() and flags[0] & BEGINS
        assert set(tokens[flags & PADDING != 0]) <= {padding} and not (flags & LEARNED)[flags & PADDING != 0].any()
        for part, marks in zip(
            *(np.split(a, np.flatnonzero(flags & BEGINS)[1:]) for a in (tokens, flags)), strict=True
        ):
            if not marks[0] & PADDING:
                found[part[0] // 1000] = (part.tolist(), (marks & LEARNED != 0).tolist())
    expected = {
        number: (example.tokens[:row_length].tolist(), example.learned[:row_length].tolist())
        for number, example in enumerate(examples, 1)
        if example.learned[:row_length].any()
    }
    assert found == expected
    counts = packing.counts
    dropped = counts["conversations_without_response_dropped"] + counts["conversations_cut_before_response_dropped"]
    assert (counts["packed_rows"], counts["packed_conversations"] + dropped) == (len(rows), len(examples))
    assert counts["learned_tokens"] == sum(sum(learned) for _, learned in found.values())
    assert counts["packed_rows"] * row_length - counts["padding_tokens"] == sum(
        len(tokens) for tokens, _ in found.values()
    )


def test_damaged_flags_are_noticed_and_the_store_is_named_by_them(tmp_path: Path) -> None:
    tokens, flags = np.arange(6), np.array([BEGINS, LEARNED, BEGINS, LEARNED, LEARNED, PADDING], dtype=np.uint8)
    store = write_packed_store(tmp_path, [(tokens, flags)], "<u2")
    masks, segments = TokenRows.open(store, 3).parts(slice(None))
    assert masks.tolist() == [[False, True, False], [True, True, False]]
    assert segments.tolist() == [[1, 1, 2], [0, 0, 0]]
    other = write_packed_store(tmp_path, [(tokens, flags ^ LEARNED)], "<u2")
    assert other.fingerprint != store.fingerprint
    file = store.path.with_name(FLAGS_FILE)
    file.write_bytes(bytes(6))
    with pytest.raises(DamagedFile):
        store.verify()
    file.unlink()
    with pytest.raises(DamagedFile, match="is missing"):
        store.verify()


def test_what_becomes_of_conversations_is_counted_and_their_rows_depend_on_no_other_text(
    chat_model: Path, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    silent = [[{"role": "user", "content": f"question {number} without an answer"}] for number in range(40)]
    told = [made_up_conversation(seed) for seed in range(300)]
    lines = [json.dumps({"messages": messages}) for messages in [*silent, *told, told[0]]]
    (tmp_path / "chat.jsonl").write_text("\n".join(lines))
    target = chat(tmp_path / "chat.jsonl", validation_fraction=0.2)
    generic = SourceConfig("generic", "local", path=str(texts[0]))
    tokenizer = TokenizerConfig(str(chat_model))

    def prepared(*sources: SourceConfig, row_length: int, workers: int = 1) -> Any:
        more: dict[str, Any] = {"tokenizer": tokenizer, "validation_tokens": 1024, "row_length": row_length}
        return prepare_text(request(*sources, folder=tmp_path / f"store{workers}", **more), workers=workers)

    both = prepared(generic, target, row_length=64)
    counts = both.targets[0].counts
    assert counts["documents"] == 341 and counts["exact_duplicates_dropped"] == 1
    dropped = counts["conversations_without_response_dropped"] + counts["conversations_cut_before_response_dropped"]
    assert 20 < dropped < 45 and counts["packed_conversations"] + dropped == counts["train_documents"]
    assert both.targets[0].report.tokens % 64 == 0 and both.targets[0].report.packed
    assert prepared(target, row_length=64).generic.train == both.targets[0].train
    assert (
        prepared(generic, target, row_length=64, workers=2).targets[0].train.fingerprint
        == both.targets[0].train.fingerprint
    )
    longer = prepared(generic, target, row_length=128)
    assert longer.generic == both.generic
    assert longer.targets[0].train.fingerprint != both.targets[0].train.fingerprint
