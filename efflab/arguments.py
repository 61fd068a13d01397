"""Checks arguments against their annotations, so that an invalid one is refused before work starts.

`check_arguments` decorates public functions and classes. The annotation decides what is allowed
(see `efflab.rules`), and nothing is converted. What a type cannot say (positive, a divisor of
another) the function checks itself with `require`.
"""

import sys
from collections.abc import Callable
from functools import cached_property, wraps
from inspect import Parameter, isfunction, signature
from typing import Any, TypeVar, get_type_hints

from efflab.rules import Rule, rule_of

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


def unchecked(fn: T) -> T:
    """The function without its check, for loops that call it with values already checked."""
    return getattr(fn, "__wrapped__", fn)


def _check_function(fn):
    arguments = _Arguments(fn)

    @wraps(fn)
    def with_check(*args, **kwargs):
        if not _is_compiled():
            arguments.check(args, kwargs)
        return fn(*args, **kwargs)

    if hasattr(fn, "cache_clear"):  # a function under lru_cache
        with_check.cache_clear = fn.cache_clear  # type: ignore[attr-defined]
    return with_check


class _Arguments:
    """The rules of a function's arguments, resolved at its first call.

    Annotations may name classes that are defined further down in the file.
    """

    def __init__(self, fn: Callable):
        self.fn = fn

    @cached_property
    def rules(self) -> tuple[list, dict, tuple | None, Rule | None]:
        """(name, rule) by position, rule by name, (name, rule) of `*args`, rule of `**kwargs`."""
        hints = get_type_hints(self.fn, include_extras=True)
        parameters = signature(self.fn).parameters.values()
        named = [(p, rule_of(hints.get(p.name, Any))) for p in parameters]
        by_position = [
            (p.name, rule)
            for p, rule in named
            if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        ]
        kinds = {p.kind: (p.name, rule) for p, rule in named}
        more, options = kinds.get(Parameter.VAR_POSITIONAL), kinds.get(Parameter.VAR_KEYWORD)
        by_name = {p.name: rule for p, rule in named if p.kind < Parameter.VAR_KEYWORD}
        return by_position, by_name, more, options[1] if options else None

    def check(self, args: tuple, kwargs: dict) -> None:
        by_position, by_name, more, options = self.rules
        for (name, rule), value in zip(by_position, args, strict=False):
            if rule is not None and not rule.at_once(value):
                rule.check(name, value)
        if more is not None and more[1] is not None:
            for i, value in enumerate(args[len(by_position) :]):
                more[1].check(f"{more[0]}[{i}]", value)
        for name, value in kwargs.items():
            rule = by_name.get(name, options)
            if rule is not None and not rule.at_once(value):
                rule.check(name, value)


def _is_compiled() -> bool:
    """Whether torch.compile or torch.export is tracing: checks would become part of the graph.

    The core works without torch, so only a torch that is already imported is asked.
    """
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()
