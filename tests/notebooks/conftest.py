"""A room's tests use the room's notebook: its exercises and its own Chinese."""

from importlib import import_module

import pytest

import efflab_rooms
from efflab import lab
from efflab.publishing.catalog import sources

NAMES = {path.stem[3:]: path.stem for path in sources().values()}


@pytest.fixture(autouse=True)
def _notebook_of_the_room(request):
    room = request.path.stem.removeprefix("test_")
    if room in NAMES:
        exercises = import_module(f"efflab_rooms.{room}.exercises").EXERCISES
        lab.use_notebook(NAMES[room], exercises, efflab_rooms.texts(room))
    yield
    lab.text.use_texts({})
