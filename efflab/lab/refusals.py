"""An explorer's message for values that its function refuses, in the current language."""

from efflab.errors import Refusal
from efflab.lab.text import chinese, tr


def refusal(error: Exception) -> str:
    """An error's message in the current language; other than value errors keep their type.

    A text of what is allowed that has no translation stays English.

    >>> refusal(ValueError("bits=1: expected an int of at least 2"))
    'bits=1: expected an int of at least 2'
    >>> refusal(KeyError("k"))
    "KeyError: 'k'"
    """
    if isinstance(error, Refusal):
        known = chinese(error.allowed) is not None
        allowed = tr(error.allowed, **error.fields) if known else error.words
        return tr(error.frame, name=error.name, value=error.value, allowed=allowed, **error.fields)
    if not isinstance(error, ValueError | TypeError | ArithmeticError):
        return f"{type(error).__name__}: {error}"
    return str(error)
