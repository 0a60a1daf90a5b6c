"""Prepare a study's text: clean, split, tokenise and store it, or find what was prepared of the same request.

Below the folder: `text/` (cleaned text), `sampled/` (what models wrote, before it is cleaned), `tokenizers/` and
`tokens/` (by content), `records/` (what was made of what).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from replay_sweeps.data.chat_template import check_chat_template, no_template_line, prepare_template
from replay_sweeps.data.pipeline import CLEAN, RECORDS, SAMPLED, TOKENIZERS, TOKENS, Preparation, recall, record_path
from replay_sweeps.data.prepared_text import PreparedText
from replay_sweeps.data.sources.documents import check_source
from replay_sweeps.data.text_keys import TextRequest, study_key, text_key, tokenizer_key
from replay_sweeps.data.tokenizers import (
    BPE,
    TEMPLATE_FILE,
    LoadedTokenizer,
    check_tokenizer,
    load_pretrained,
    own_template,
)
from replay_sweeps.errors import CannotGoOn, DamagedFile, UserError
from replay_sweeps.files import is_real_folder, put_aside, remove, usable_folder, write_record, writer_still_runs
from replay_sweeps.parallel import processors

logger = logging.getLogger(__name__)


def find_prepared(request: TextRequest) -> PreparedText | None:
    """What `prepare_text` made earlier of the same request, or None. This reads one record and no text.

    A store's content is verified by `prepare_text`, and by `TokenStore.open`.
    """
    if check_tokenizer(request.tokenizer) or any(map(check_source, request.sources)):
        return None
    record = recall(request.folder, study_key(request))
    if record is None:
        return None
    try:
        prepared = PreparedText.from_record(record, request.folder)
    except DamagedFile as error:
        logger.warning("a record is damaged and is made again: %s", error)
        return None
    return prepared if prepared.exists() else None


def prepare_text(request: TextRequest, *, workers: int | None = None) -> PreparedText:
    """All the text of a study as verified token stores, each made only if it is not there yet.

    A training store depends on its own source and the tokenizer. Documents of a validation half that nearly repeat a
    training document of any of the sources are removed; each half is cut at `validation_tokens` tokens. Conversations
    are packed into rows of `row_length` tokens; other text does not depend on it. `workers`
    (default: the processors that there are) changes nothing in the result. Raises UserError, before anything is
    written where the input allows to know.
    """
    if problems := _problems(request):
        raise UserError(*problems)
    prepared = _find_sound(request)
    if prepared is not None:
        return prepared
    pretrained = _load_tokenizer_early(request)
    with only_one(request.folder):
        prepared = _find_sound(request)  # another process may have made it meanwhile
        if prepared is None:
            prepared = Preparation(request, workers or processors()).run(pretrained)
            write_record(record_path(request.folder, study_key(request)), prepared.to_record(request.folder))
    return prepared


def _problems(request: TextRequest) -> list[str]:
    """What is wrong with a request as far as can be seen without reading text, one line each."""
    problems = [problem for source in request.sources for problem in check_source(source)]
    problems += check_tokenizer(request.tokenizer)
    if request.has_conversations:
        problems += [f"tokenizer.{name}: {problem}" for name, problem in check_chat_template(request.tokenizer)]
    return problems


def _load_tokenizer_early(request: TextRequest) -> LoadedTokenizer | None:
    """A pretrained tokenizer that is not stored yet, so that a wrong one is refused before any text is read.

    Raises UserError, also for a chat template that cannot be used.
    """
    config = request.tokenizer
    is_stored = recall(request.folder, tokenizer_key(config, text_key(request.generic))) is not None
    pretrained = None if config.path == BPE or is_stored else load_pretrained(config)
    if request.has_conversations:
        if (template := own_template(config)) is not None:
            prepare_template(template, f"model.tokenizer.chat_template: {config.chat_template}")
        if pretrained and TEMPLATE_FILE not in pretrained.files:
            raise UserError(no_template_line(config.path))
    return pretrained


def _find_sound(request: TextRequest) -> PreparedText | None:
    """What was made earlier, if all of it is sound. A step that makes a part again says which one was damaged."""
    prepared = find_prepared(request)
    try:
        if prepared is not None:
            prepared.verify()
    except DamagedFile:
        return None
    return prepared


@contextmanager
def only_one(folder: Path, wait: bool = True) -> Iterator[None]:
    """Let one process at a time prepare or remove text in `folder`, and delete the half-made files of a killed one.

    Where the file system knows no locks, two processes may do the same work, which is harmless. Raises CannotGoOn where
    another process holds the lock and this one is not to `wait`.
    """
    import fcntl

    usable_folder(folder).mkdir(parents=True, exist_ok=True)
    with _opened_lock(folder / "lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotGoOn(f"text is being prepared in {folder}; try again when it is done") from error
        except OSError:
            yield
            return
        for kind in (CLEAN, SAMPLED, TOKENS, TOKENIZERS, RECORDS):
            usable_folder(folder / kind)
        for partial in _half_made(folder):
            remove(partial)
        yield


def _half_made(folder: Path) -> Iterator[Path]:
    """What killed processes left half made below a folder of text; links are not followed."""
    inside = [path for path in sorted(folder.iterdir()) if is_real_folder(path)]
    sampled = [path for path in sorted((folder / SAMPLED).glob("*")) if folder / SAMPLED in inside]
    for parent in (folder, *inside, *filter(is_real_folder, sampled)):
        yield from (path for path in parent.glob(".*.tmp") if not writer_still_runs(path))


def _opened_lock(file: Path) -> IO[bytes]:
    """The lock's file; what is no file in its place is put aside, since a pipe would be waited for."""
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        put_aside(file)
    return file.open("ab")
