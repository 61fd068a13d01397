"""Legal arguments of compression: see `legal_calls`."""

from collections.abc import Callable
from typing import Any

BY_TYPE: dict[Any, Callable[[], Any]] = {}
BY_NAME: dict[str, Callable[[], Any]] = {}
BY_FUNCTION: dict[str, dict[str, Callable[[], Any]]] = {}
BY_OWNER: dict[str, Callable[[], Any]] = {}
