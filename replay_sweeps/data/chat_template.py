"""Conversations to tokens by the tokenizer's chat template, and which of them are learned: those of the responses."""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay_sweeps.config import TokenizerConfig
from replay_sweeps.data.packing import Example
from replay_sweeps.data.prepared_text import PreparedTokenizer
from replay_sweeps.data.sources.table_rows import RESPONSE, conversation
from replay_sweeps.data.token_store import dtype_for
from replay_sweeps.data.tokenizers import BATCH_CHARACTERS, BPE, TEMPLATE_FILE, TOKENIZER_FILE, one_thread_a_batch
from replay_sweeps.errors import UserError, one_line
from replay_sweeps.parallel import batched, ordered_map

Spans = list[tuple[int, int]]  # from and to, in characters

_MARKS_RESPONSES = re.compile(r"{%-?\s*generation\s*-?%}")  # as `transformers` looks for it
TODAY = datetime(2024, 7, 26)  # for templates that write the date; Llama's templates fall back to this day
_GIVE_ONE = "give one as a Jinja file in model.tokenizer.chat_template"


def check_chat_template(config: TokenizerConfig) -> list[tuple[str, str]]:
    """What is wrong with the chat template that conversations need, as far as can be seen without loading it.

    Each problem is the name of a setting of the tokenizer and what is wrong with it.
    """
    folder = Path(config.path).expanduser()
    if config.chat_template is not None:
        return []
    if config.path == BPE:
        return [("path", f"a tokenizer that is trained here has no chat template; {_GIVE_ONE}")]
    if folder.is_dir() and not _has_template(folder):
        return [("path", f"its tokenizer has no chat template, which conversations need; {_GIVE_ONE}")]
    return []


def _has_template(folder: Path) -> bool:
    if (folder / TEMPLATE_FILE).is_file() or (folder / "additional_chat_templates").is_dir():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_bytes()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


def no_template_line(name: str) -> str:
    """The message for a loaded tokenizer without a chat template."""
    return f"model.tokenizer.path: {name!r} has no chat template, which conversations need; {_GIVE_ONE}"


def prepare_template(template: str, name: str) -> None:
    """Raise UserError unless the chat template is sound Jinja. From then on, its date of today is always TODAY."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        # The library caches what it compiles: it will render this very object.
        _compile_jinja_template(template).globals["strftime_now"] = TODAY.strftime
    except (TemplateError, RecursionError, MemoryError, OverflowError) as error:
        raise UserError(f"{name}: the chat template can't be read: {one_line(error)}{_line_of(error)}") from error


def _line_of(error: BaseException) -> str:
    """Where in a template an error came about: " (line 3)", "" where that is unknown."""
    line, step = getattr(error, "lineno", None), error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
            line = step.tb_lineno
        step = step.tb_next
    return f" (line {line})" if line else ""


class ChatTemplate:
    """A tokenizer's chat template.

    Where a template marks the responses with `{% generation %}`, these marks are used. Otherwise a response is what
    follows the text of the messages before it and its prompt (`add_generation_prompt`), up to and with its end-of-turn
    token. Raises UserError where there is no template, or where it can't tell responses from the rest.
    """

    def __init__(self, stored: PreparedTokenizer, name: str) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoTokenizer

        pretrained = AutoTokenizer.from_pretrained(str(stored.path), trust_remote_code=False, local_files_only=True)
        if pretrained.chat_template is None:
            raise UserError(no_template_line(name))
        self.name = name
        self.template: str = pretrained.get_chat_template()
        prepare_template(self.template, name)
        self.marked = bool(_MARKS_RESPONSES.search(self.template))
        self.special: dict[str, str] = dict(pretrained.special_tokens_map)
        self.control = tuple(str(token) for token in pretrained.added_tokens_decoder.values() if str(token).strip())
        self.dtype = dtype_for(stored.vocab_size)
        self.tokenizer = Tokenizer.from_str((stored.path / TOKENIZER_FILE).read_text())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def text(self, messages: list[dict[str, Any]]) -> tuple[str, Spans]:
        """The text of a conversation and where its responses are in it. Raises UserError."""
        if self.marked:
            return self._render(messages)
        text, spans = self._render(messages)[0], []
        for number, message in enumerate(messages):
            if message["role"] != RESPONSE or number == 0:  # a first message answers nothing
                continue
            prompt = self._render(messages[:number], prompt=True)[0]
            until = self._render(messages[: number + 1])[0]
            if not text.startswith(until) or not until.startswith(prompt):
                raise UserError(
                    f"model.tokenizer.path: the chat template of {self.name!r} writes messages otherwise once others "
                    "follow, so that responses can't be told from the rest; give a Jinja file that marks them with "
                    "{% generation %} in model.tokenizer.chat_template"
                )
            spans.append((len(prompt), len(self._without_space(until))))
        return text, spans

    def _without_space(self, text: str) -> str:
        """The text up to its last control token, where only white space follows that."""
        stripped = text.rstrip()
        return stripped if stripped.endswith(self.control) else text

    def _render(self, messages: list[dict[str, Any]], prompt: bool = False) -> tuple[str, Spans]:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                [messages],
                chat_template=self.template,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=self.marked,
                **self.special,
            )
        except Exception as error:  # a template computes as it likes: it may recurse, overflow or divide by zero
            beginning = str(messages[0].get("content", ""))[:60]
            raise UserError(
                f"model.tokenizer.path: the chat template of {self.name!r} refuses the conversation that begins "
                f"{beginning!r}: {one_line(error)}{_line_of(error)}"
            ) from error
        return texts[0], spans[0] if self.marked else []

    def examples(self, documents: Iterable[str], workers: int, title: str) -> Iterator[Example]:
        """Each conversation as tokens and whether each is learned; the same for any number of workers."""
        from tqdm import tqdm

        batches = batched(documents, BATCH_CHARACTERS)
        rendered = ([self.text(conversation(document)) for document in batch] for batch in batches)
        with (
            one_thread_a_batch(),
            ThreadPoolExecutor(workers) as pool,
            tqdm(desc=title, unit=" conversations", unit_scale=True, disable=None, leave=False) as bar,
        ):
            for examples in ordered_map(pool if workers > 1 else None, self._encode_batch, rendered, ahead=2 * workers):
                bar.update(len(examples))
                yield from examples

    def _encode_batch(self, batch: list[tuple[str, Spans]]) -> list[Example]:
        encodings = self.tokenizer.encode_batch([text for text, _ in batch], add_special_tokens=False)
        examples = []
        for (_, spans), encoding in zip(batch, encodings, strict=True):
            begin: NDArray[np.int64] = np.array([begin for begin, _ in encoding.offsets], dtype=np.int64)
            learned = np.zeros(len(begin), dtype=np.bool_)
            for start, stop in spans:
                learned |= (begin >= start) & (begin < stop)
            learned[:1] = False  # nothing comes before it that it could be predicted from
            examples.append(Example(np.array(encoding.ids, dtype=self.dtype), learned))
        return examples
