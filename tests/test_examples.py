"""Every example in a docstring comes out as it is printed."""

import doctest
from importlib import import_module

import pytest
from code_files import FOLDERS, code_files


def module_name(name: str) -> str:
    """A file's module; a room's lies in `efflab_rooms`."""
    parts = name.removesuffix(".py").removesuffix("/__init__").split("/")
    package = next(f.name for f in FOLDERS if (f / name).exists())
    return ".".join([package, *parts])


EXAMPLES = {
    module_name(name): n
    for name, path in code_files().items()
    if (n := path.read_text("utf-8").count("  >>> "))
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_come_out_as_printed(name):
    result = doctest.testmod(import_module(name))
    assert (result.failed, result.attempted) == (0, EXAMPLES[name])
