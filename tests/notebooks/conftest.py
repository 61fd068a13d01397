"""A room's tests use the room's notebook: its exercises and its own Chinese."""

from importlib import import_module

import pytest

from efflab import lab
from efflab.publishing.catalog import sources

NAMES = {path.stem[3:]: path.stem for path in sources().values()}


@pytest.fixture(autouse=True)
def _notebook_of_the_room(request):
    room = request.path.stem.removeprefix("test_")
    if room in NAMES:
        package = f"efflab.notebooks.{room}"
        exercises = import_module(f"{package}.exercises").EXERCISES
        lab.use_notebook(NAMES[room], exercises, import_module(package).TEXTS)
    yield
    lab.text.use_texts({})
