"""The page on faults says what the tests do, and every mutation still fits the code."""

from tests.faults.document import FILE, document
from tests.mutants.__main__ import misfits


def test_the_page_on_faults_is_that_of_the_lists() -> None:
    assert FILE.read_text() == document(), "write it anew: python -m tests.faults.document"


def test_every_mutation_fits_the_code() -> None:
    assert list(misfits()) == []
