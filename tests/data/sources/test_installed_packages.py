"""Installed packages give their documentation and sources without being imported."""

import sys

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.documents import documents
from replay_sweeps.data.sources.installed_packages import docstrings, python_files


def test_docstrings_are_found_dedented_and_in_order() -> None:
    filler = "word " * 20
    source = f'''"""Module {filler}"""
def f():
    """Function {filler}

    Indented.
    """
    class Inner:
        """Inner {filler}"""
add_newdoc("place", "name", """Attached {filler}""")
def short():
    """Too short."""
'''
    found = docstrings(source.encode())
    assert [text.split()[0] for text in found] == ["Module", "Function", "Inner", "Attached"]
    assert "\n\nIndented." in found[1]
    assert docstrings(b"not python (") == []


def test_installed_text_is_read_without_importing_it() -> None:
    before = set(sys.modules)
    assert len(python_files("sympy", tests=True)) > len(python_files("sympy", tests=False)) > 100
    assert not any(name.split(".")[0] == "sympy" for name in set(sys.modules) - before)
    assert next(iter(documents(SourceConfig("code", "standard_library"))))
