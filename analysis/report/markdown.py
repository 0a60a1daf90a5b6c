"""Texts with names from the data as markdown: none of it becomes HTML, a link, or a column of its own."""

import re
from collections.abc import Iterable
from typing import Any


class Markdown(str):
    """Text that is markdown already."""

    __slots__ = ()


def markdown_text(value: Any) -> Any:
    """A value as markdown on one line that shows it as it is: tags, entities and links in it are none."""
    if isinstance(value, Markdown) or not isinstance(value, str):
        return value
    line = re.sub(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*", " ", value)
    line = re.sub(r"&(?=#?\w+;)", "&amp;", line).replace("<", "&lt;")
    return Markdown(line.replace("](", "]\\("))


def markdown_row(values: Iterable[Any]) -> Markdown:
    """Values as a row of a table."""
    cells = (str(markdown_text(str(value))).replace("|", "\\|") for value in values)
    return Markdown(f"| {' | '.join(cells)} |")


def code_block(text: str) -> Markdown:
    """A text as a block of code, whatever rows of backticks are in it."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}\n{text}\n{fence}")
