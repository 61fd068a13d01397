"""What an explorer says when it refuses values: the message of an error, in the language in use."""

from efflab.errors import Refusal
from efflab.lab.text import chinese, tr


def refusal(error: Exception) -> str:
    """An error's message; one that is no refusal of a value keeps its type beside it.

    An unusual way to say what is allowed stays English.

    >>> refusal(ValueError("bits=1: expected an int of at least 2"))
    'bits=1: expected an int of at least 2'
    >>> refusal(KeyError("k"))
    "KeyError: 'k'"
    """
    if isinstance(error, Refusal):
        known = chinese(error.allowed) is not None
        allowed = tr(error.allowed, **error.fields) if known else error.words
        return tr(error.frame, name=error.name, value=error.value, allowed=allowed, **error.more())
    if not isinstance(error, ValueError | TypeError | ArithmeticError):
        return f"{type(error).__name__}: {error}"
    return str(error)
