"""Rows of a packed store have masks of what is learned, and damaged masks are noticed."""

from pathlib import Path

import numpy as np
import pytest

from replay_sweeps.data.token_rows import TokenRows
from replay_sweeps.data.token_store import BEGINS, FLAGS_FILE, LEARNED, PADDING, write_packed_store
from replay_sweeps.errors import DamagedFile


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
