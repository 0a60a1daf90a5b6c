"""Text in one normal form, cut at paragraphs where a document is too long."""

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")


def normalise(text: str) -> str:
    """`text` in NFC with `\\n` line ends; no control characters, trailing spaces, or empty lines at its ends.

    Indentation is kept: it means something in code. Normalising twice changes nothing.
    """
    text = _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def _boundary(text: str, start: int, limit: int) -> int:
    """Where the piece that begins at `start` ends: a paragraph, else a line, else a word, else `limit` characters."""
    for separator in ("\n\n", "\n", " "):
        at = text.rfind(separator, start + limit // 4, start + limit + 1)
        if at > start:
            return at
    return start + limit


def cut(text: str, limit: int) -> list[str]:
    """Normalised `text` in pieces of at most `limit` characters that end at a paragraph where there is one."""
    pieces, start = [], 0
    while len(text) - start > limit:
        end = _boundary(text, start, limit)
        pieces.append(text[start:end])
        start = end
        while start < len(text) and text[start] == "\n":
            start += 1
    pieces.append(text[start:])
    return [piece for piece in map(normalise, pieces) if piece.strip()]
