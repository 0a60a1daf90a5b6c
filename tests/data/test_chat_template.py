"""Conversations become tokens by a chat template, of which all of each response and nothing else is learned."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from replay_sweeps.data.chat_template import ChatTemplate
from replay_sweeps.data.prepared_text import PreparedTokenizer
from replay_sweeps.errors import UserError
from tests.fixtures.conversations import CHATML, MARKED, Conversation

QUESTION: Conversation = [{"role": "user", "content": "two and two?"}, {"role": "assistant", "content": "four"}]


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


RECURSES = "{% macro again() %}{{ again() }}{% endmacro %}\n\n{{ again() }}"


@pytest.mark.parametrize("text", [RECURSES, "\n\n{{ 1 / 0 }}", "\n\n{% for i in range(10 ** 12) %}{% endfor %}"])
def test_a_template_that_recurses_or_overflows_is_told_in_one_line_with_its_place(
    text: str, template: Callable[[str], ChatTemplate]
) -> None:
    with pytest.raises(
        UserError, match=r"refuses the conversation that begins 'two and two.': .* \(line [13]\)"
    ) as caught:
        learned_texts(template(text), QUESTION)
    assert len(caught.value.problems) == 1


def test_a_template_that_is_nested_too_deeply_is_told_in_one_line(template: Callable[[str], ChatTemplate]) -> None:
    with pytest.raises(UserError, match="the chat template can't be read"):
        template("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")
