"""A document from one row of a table: a text, or a conversation as canonical JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.normal_text import normalise
from replay_sweeps.errors import UserError
from replay_sweeps.files import canonical_json

ROLES = ("system", "developer", "user", "assistant", "tool")
RESPONSE = "assistant"
EXPECTED = 'a list of messages, each {"role": ..., "content": ...}'


def _column_value(row: Any, column: str, place: str) -> Any:
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected a JSON object with a column {column!r}, found {type(row).__name__}")
    if column not in row:
        raise UserError(f"{place}: no column {column!r}; there are: {', '.join(row) or 'none'}")
    return row[column]


def _column_text(row: Any, column: str, place: str) -> str | None:
    text = _column_value(row, column, place)
    if text is not None and not isinstance(text, str):
        raise UserError(f"{place}: column {column!r} holds {type(text).__name__}, not text")
    return text


@dataclass(frozen=True)
class TextColumn:
    """Reads a text from one column."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def document(self, row: Any, place: str) -> str | None:
        """The row's text, or None where it is empty. Raises UserError, which names the place, for a bad row."""
        return _column_text(row, self.column, place) or None


@dataclass(frozen=True)
class ConversationColumns:
    """Reads a conversation from a column of messages, or from a prompt and its response."""

    messages: str
    prompt: str | None = None
    response: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.prompt, self.response) if self.prompt and self.response else (self.messages,)

    def document(self, row: Any, place: str) -> str | None:
        """The row's conversation as canonical JSON, or None where it is empty. Raises UserError for a bad row."""
        if self.prompt and self.response:
            prompt, response = (_column_text(row, column, place) for column in (self.prompt, self.response))
            if not prompt or not response:
                return None
            messages: Any = [{"role": "user", "content": prompt}, {"role": RESPONSE, "content": response}]
        else:
            messages = _column_value(row, self.messages, place)
            if isinstance(messages, str):
                messages = _parse_messages(messages, self.messages, place)
        if not messages:
            return None
        if not isinstance(messages, list):
            raise UserError(f"{place}: column {self.messages!r} holds {type(messages).__name__}, not {EXPECTED}")
        cleaned = [_clean_message(message, f"{place}, message {number}") for number, message in enumerate(messages, 1)]
        return json.dumps(cleaned, ensure_ascii=False, separators=(",", ":"))


TableReader = TextColumn | ConversationColumns


def table_reader(source: SourceConfig) -> TableReader:
    """Reads documents from the rows of a source."""
    if source.format == "chat":
        return ConversationColumns(source.messages_column, source.prompt_column, source.response_column)
    return TextColumn(source.text_column)


def conversation(document: str) -> list[dict[str, Any]]:
    """The messages of a conversation's canonical JSON."""
    messages: list[dict[str, Any]] = json.loads(document)
    return messages


def conversation_text(document: str) -> str:
    """All text of a conversation, without roles: what is compared when duplicates are looked for."""
    return "\n\n".join(part for message in conversation(document) for part in _message_texts(message))


def _message_texts(message: dict[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        if name != "role":
            yield value if isinstance(value, str) else canonical_json(value)


def _parse_messages(text: str, column: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: column {column!r} holds a text that is not JSON; expected {EXPECTED}") from error


def _clean_message(message: Any, place: str) -> dict[str, Any]:
    """A message in one form: its texts normalised, null values dropped."""
    if not isinstance(message, dict) or "role" not in message:
        what = f"the keys {', '.join(map(str, message))}" if isinstance(message, dict) else type(message).__name__
        raise UserError(f'{place}: expected {{"role": ..., "content": ...}}, found {what}')
    if message["role"] not in ROLES:
        raise UserError(f"{place}: unknown role {message['role']!r}; there are: {', '.join(ROLES)}")
    cleaned = {name: _normalise_texts(value) for name, value in message.items() if value is not None}
    content = cleaned.get("content")
    if isinstance(content, list):
        content = cleaned["content"] = _join_parts(content, place)
    if content is None and not cleaned.get("tool_calls"):
        raise UserError(f"{place}: no content (role {message['role']})")
    if content is not None and not isinstance(content, str):
        raise UserError(f"{place}: content holds {type(content).__name__}, not text")
    return cleaned


def _join_parts(parts: list[Any], place: str) -> str:
    """The text of a content that is given in parts."""
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise UserError(f"{place}: content has a part of type {kind!r}; only text can be learned")
    return "\n".join(part["text"] for part in parts)


def _normalise_texts(value: Any) -> Any:
    if isinstance(value, str):
        return normalise(value)
    if isinstance(value, dict):
        return {name: _normalise_texts(inner) for name, inner in value.items() if inner is not None}
    return [_normalise_texts(inner) for inner in value] if isinstance(value, list) else value
