"""Checks arguments against their annotations, so that an invalid one is refused before work starts.

`check_arguments` decorates public functions and classes. The annotation decides what is allowed
(see `efflab.rules`), and nothing is converted. What a type cannot say (positive, a divisor of
another) the function checks itself with `require`.
"""

import sys
from collections.abc import Callable
from functools import cache, partial, wraps
from inspect import Parameter, isfunction, signature
from typing import Any, NamedTuple, TypeVar, get_type_hints

from efflab.rules import ANYTHING, Rule, rule_of

T = TypeVar("T", bound=Callable)


def check_arguments(target: T) -> T:
    """The function, or the class's `__init__` and public methods, with its arguments checked."""
    if not isinstance(target, type):
        return _check_function(target)
    for name, member in list(vars(target).items()):
        is_public = name in ("__init__", "__call__") or not name.startswith("_")
        if is_public and isfunction(member) and member.__code__.co_argcount != 1:
            setattr(target, name, _check_function(member))
        elif is_public and isinstance(member, classmethod | staticmethod):
            setattr(target, name, type(member)(_check_function(member.__func__)))
    return target


def check_module(name: str) -> None:
    """Check the arguments of a module's public functions and classes, as `check_arguments` does.

    Its last line, so that what is added later is checked too: `check_module(__name__)`.
    """
    for key, member in list(vars(sys.modules[name]).items()):
        if key.startswith("_") or getattr(member, "__module__", None) != name:
            continue
        if isfunction(member) or hasattr(member, "cache_clear") or _is_made(member):
            setattr(sys.modules[name], key, check_arguments(member))


def _is_made(member) -> bool:
    """Whether it is a class that callers make instances of: no named tuple, error or protocol."""
    is_class = isinstance(member, type) and not issubclass(member, tuple | Exception)
    return is_class and not getattr(member, "_is_protocol", False)


def unchecked(fn: T) -> T:
    """The function without its check, for loops that call it with values already checked."""
    return getattr(fn, "__wrapped__", fn)


def _check_function(fn):
    if getattr(fn, "is_checked", False):
        return fn
    # at the first call: annotations may name classes that are defined further down in the file
    rules = cache(partial(_rules_of, fn))

    @wraps(fn)
    def with_check(*args, **kwargs):
        if not _is_compiled():
            _check(rules(), args, kwargs)
        return fn(*args, **kwargs)

    with_check.is_checked = True  # type: ignore[attr-defined]
    if hasattr(fn, "cache_clear"):  # a function under lru_cache
        with_check.cache_clear = fn.cache_clear  # type: ignore[attr-defined]
    return with_check


class _Rules(NamedTuple):
    """The rules of a function's arguments: by position, by name, and of those that are left."""

    positional: list[tuple[str, Rule]]
    by_name: dict[str, Rule]
    more: tuple[str, Rule]  # of `*args`
    options: tuple[str, Rule]  # of `**kwargs`


def _rules_of(fn: Callable) -> _Rules:
    hints = get_type_hints(fn, include_extras=True)
    parameters = signature(fn).parameters.values()
    by_name = {p.name: rule_of(hints.get(p.name, Any)) for p in parameters}
    kinds = {p.kind: (p.name, by_name[p.name]) for p in parameters}
    return _Rules(
        [(p.name, by_name[p.name]) for p in parameters if p.kind < Parameter.VAR_POSITIONAL],
        by_name,
        kinds.get(Parameter.VAR_POSITIONAL, ("", ANYTHING)),
        kinds.get(Parameter.VAR_KEYWORD, ("", ANYTHING)),
    )


def _check(rules: _Rules, args: tuple, kwargs: dict) -> None:
    for (name, rule), value in zip(rules.positional, args, strict=False):
        rule.check(name, value)
    name, rule = rules.more
    for i, value in enumerate(args[len(rules.positional) :]):
        rule.check(f"{name}[{i}]", value)
    for name, value in kwargs.items():
        rules.by_name.get(name, rules.options[1]).check(name, value)


def _is_compiled() -> bool:
    """Whether torch.compile or torch.export is tracing: checks would become part of the graph.

    The core works without torch, so only a torch that is already imported is asked.
    """
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()
