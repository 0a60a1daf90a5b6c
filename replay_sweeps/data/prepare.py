"""A study's text made ready: cleaned, split, tokenised and stored; or found again by what shaped it.

Below the folder: `text/` (cleaned text), `sampled/` (what models wrote, before it is cleaned), `tokenizers/` and
`tokens/` (by content), `records/` (what was made of what).
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replay_sweeps.config import SourceConfig, TokenizerConfig
from replay_sweeps.data.chat_template import check_chat_template, no_template_line, prepare_template
from replay_sweeps.data.cleaning import text_key
from replay_sweeps.data.parallel import processors
from replay_sweeps.data.pipeline import VERSION, Preparation, recall, record_path, tokenizer_key
from replay_sweeps.data.prepared_text import PreparedText
from replay_sweeps.data.sources.documents import check_source
from replay_sweeps.data.tokenizers import (
    BPE,
    TEMPLATE_FILE,
    check_tokenizer,
    load_pretrained,
    own_template,
)
from replay_sweeps.errors import CannotGoOn, DamagedFile, UserError
from replay_sweeps.files import fingerprint, write_record

logger = logging.getLogger(__name__)


def find_prepared(
    generic: SourceConfig,
    targets: Sequence[SourceConfig],
    tokenizer: TokenizerConfig,
    folder: Path,
    validation_tokens: int,
    row_length: int = 0,
) -> PreparedText | None:
    """What `prepare_text` made earlier of the same input, or None: a look-up that reads a record and no text.

    A store's content is verified by `prepare_text`, and by `TokenStore.open`.
    """
    if check_tokenizer(tokenizer) or any(check_source(source) for source in (generic, *targets)):
        return None
    record = recall(folder, _study_key(generic, targets, tokenizer, validation_tokens, row_length))
    if record is None:
        return None
    prepared = PreparedText.from_record(record, folder)
    return prepared if prepared.exists() else None


def prepare_text(
    generic: SourceConfig,
    targets: Sequence[SourceConfig],
    tokenizer: TokenizerConfig,
    folder: Path,
    validation_tokens: int,
    row_length: int = 0,
    workers: int | None = None,
) -> PreparedText:
    """All the text of a study as verified token stores, each made only if it is not there yet.

    A training store depends on its own source and the tokenizer. Documents of a validation half that nearly repeat a
    training document of any of the sources are removed; each half is cut at `validation_tokens` tokens. Conversations
    are packed into rows of `row_length` tokens; other text does not depend on it. `workers`
    (default: the processors that there are) changes nothing in the result. Raises UserError, before anything is
    written where the input allows to know.
    """
    problems = [problem for source in (generic, *targets) for problem in check_source(source)]
    problems += check_tokenizer(tokenizer)
    chat = any(source.format == "chat" for source in (generic, *targets))
    if chat:
        problems += [f"tokenizer.{name}: {problem}" for name, problem in check_chat_template(tokenizer)]
    if problems:
        raise UserError(*problems)
    request = (generic, targets, tokenizer, folder, validation_tokens, row_length)
    prepared = _find_sound(*request)
    if prepared is not None:
        return prepared
    known = recall(folder, tokenizer_key(tokenizer, text_key(generic)))
    pretrained = None if tokenizer.path == BPE or known else load_pretrained(tokenizer)
    if chat and (template := own_template(tokenizer)) is not None:
        prepare_template(template, f"model.tokenizer.chat_template: {tokenizer.chat_template}")
    if chat and pretrained and TEMPLATE_FILE not in pretrained.files:
        raise UserError(no_template_line(tokenizer.path))
    with only_one(folder):
        prepared = _find_sound(*request)  # another process may have made it meanwhile
        if prepared is not None:
            return prepared
        prepared = Preparation(folder, workers or processors(), row_length).run(
            generic, targets, tokenizer, pretrained, validation_tokens
        )
        key = _study_key(generic, targets, tokenizer, validation_tokens, row_length)
        write_record(record_path(folder, key), prepared.to_record(folder))
        return prepared


def _find_sound(
    generic: SourceConfig,
    targets: Sequence[SourceConfig],
    tokenizer: TokenizerConfig,
    folder: Path,
    validation_tokens: int,
    row_length: int,
) -> PreparedText | None:
    """What was made earlier, if all of it is sound; the steps say what is not when they make it again."""
    prepared = find_prepared(generic, targets, tokenizer, folder, validation_tokens, row_length)
    try:
        if prepared is not None:
            prepared.verify()
    except DamagedFile:
        return None
    return prepared


def _study_key(
    generic: SourceConfig,
    targets: Sequence[SourceConfig],
    tokenizer: TokenizerConfig,
    validation_tokens: int,
    row_length: int,
) -> str:
    texts = [[source.name, text_key(source)] for source in (generic, *targets)]
    how: dict[str, Any] = {"tokenizer": tokenizer_key(tokenizer, texts[0][1]), "validation_tokens": validation_tokens}
    if any(source.format == "chat" for source in (generic, *targets)):
        how["row_length"] = row_length
    return fingerprint({"stage": "study", "version": VERSION, "texts": texts, **how})


@contextmanager
def only_one(folder: Path, wait: bool = True) -> Iterator[None]:
    """Let one process at a time prepare text in `folder` or remove some, and clear what a killed one left half made.

    Where the file system knows no locks, two processes may do the same work, which is harmless. Raises CannotGoOn where
    another process is at it and this one is not to `wait`.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotGoOn(f"text is being prepared in {folder}; try again when it is done") from error
        except OSError:
            yield
            return
        for left in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), *folder.glob("sampled/*/.*.tmp")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        yield
