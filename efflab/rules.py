"""Which arguments an annotation allows.

An int is not a bool and not an array of one element (numpy's scalars count as numbers), a float is
finite, a tensor holds floats and is not on "meta". `Infinite` and notes beside a tensor
(`Annotated[Tensor, "integers", "(B, T)"]`) allow more or less than that.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from efflab.errors import (
    LARGEST,
    is_int,
    is_number,
    require,
    require_finite,
    require_int,
    require_number,
    require_one_of,
    require_positive,
    wrong_type,
)

T = TypeVar("T")
Size = Annotated[int, 1]
Count = Annotated[int, 0]
"""An int of at least this value."""
Positive = Annotated[float, "above 0"]
NonNegative = Annotated[float, "at least 0"]
"""A finite float in these limits."""
Infinite = Annotated[float, "infinite"]
"""A float that may be infinite, never NaN."""
AnyFloat = Annotated[float, "any"]
"""A float, infinities and NaN too."""
Array = Annotated[Any, "array"]
"""Floats in an array of any library that has a dtype and a shape: torch's, jax's, numpy's."""

HOLDS: dict[str, Callable[[Any], bool]] = {
    "floats": lambda x: x.is_floating_point(),
    "indices": lambda x: str(x.dtype) in ("torch.int64", "torch.int32"),
    "integers": lambda x: "int" in str(x.dtype),
    "booleans": lambda x: str(x.dtype) == "torch.bool",
    "numbers": lambda x: not x.is_complex(),
    "anything": lambda x: True,
}
"""Notes on what a tensor holds, and their checks; "numbers" are all but complex ones."""

ITEMS_CHECKED = 1000
"""Only the first items of a sequence or mapping are checked, so that a check stays cheap."""


class Rule(NamedTuple):
    """What an annotation allows: in words, by type, and by a look at a value of that type."""

    allowed: str
    is_type: Callable[[Any], bool]
    look: Callable[[str, Any], None] | None = None

    def check(self, name: str, value) -> None:
        """A `TypeError` or `ValueError` that names the argument, unless it is allowed."""
        if self.is_type(value):
            if self.look is not None:
                self.look(name, value)
        elif not _is_traced():
            raise wrong_type(name, value, self.allowed)


ANYTHING = Rule("anything", lambda value: True)


def require_type(name: str, value: T, annotation) -> T:
    """`value`, which must be what the annotation allows: `require_type("rule", rule, str)`."""
    rule_of(annotation).check(name, value)
    return value


def rule_of(annotation) -> Rule:
    """The rule of an annotation; `ANYTHING` for `Any` or a type variable.

    >>> rule_of(int | None).allowed
    'an int or None'
    """
    origin, type_args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if isinstance(type_args[1], tuple):
            return _rule_of_choices(*type_args)
        if type_args[0] is int:
            return _rule_of_int(type_args[1])
        return _SPECIAL.get(annotation) or _rule_of_tensor(*type_args)
    if origin in (Union, UnionType):
        return _rule_of_union([rule_of(a) for a in type_args])
    if origin is tuple:
        return _rule_of_tuple(type_args)
    if origin is type:
        return Rule("a class", lambda value: isinstance(value, type))
    if annotation is Callable or origin is Callable:
        return Rule("a function", callable)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _rule_of_items(origin, [rule_of(a) for a in type_args])
    return _rule_of_class(annotation)


def _rule_of_class(kind) -> Rule:
    if kind in (Any, object, Hashable) or not isinstance(kind, type):
        return ANYTHING
    if kind in _PLAIN:
        return _PLAIN[kind]
    if f"{kind.__module__}.{kind.__qualname__}" == "torch.Tensor":
        return _rule_of_tensor(kind)
    if issubclass(kind, Iterable) and kind.__module__ in ("builtins", "collections.abc"):
        return _rule_of_items(kind, [])
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    return _rule_of_instances(f"{article} {kind.__name__}", kind)


def _rule_of_instances(allowed: str, kind: type) -> Rule:
    return Rule(allowed, lambda value: isinstance(value, kind))


def _rule_of_int(minimum: int) -> Rule:
    return Rule("an int", is_int, lambda name, value: require_int(name, value, minimum))


def _rule_of_choices(kind: type, choices: tuple) -> Rule:
    """One of the tuple beside the type: `Annotated[str, ("none", "all")]`."""
    return rule_of(kind)._replace(look=lambda name, value: require_one_of(name, value, choices))


def _look_at_infinite(name: str, value) -> None:
    if value not in (float("inf"), -float("inf")):
        require_finite(name, value)


def _look_at_any(name: str, value) -> None:
    try:
        float(value)
    except OverflowError:
        require(False, name, value, "a number that a float can hold")


def _is_bool(value) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # numpy's too


_PLAIN = {
    int: _rule_of_int(-LARGEST),
    float: Rule("a number", is_number, require_finite),
    bool: Rule("True or False", _is_bool),
    str: _rule_of_instances("a text", str),
    bytes: _rule_of_instances("bytes", bytes),
    NoneType: _rule_of_instances("None", NoneType),
}


def _is_array(value) -> bool:
    """Floats, in at least one dimension, not empty, and not on "meta"."""
    is_floats = "float" in str(getattr(value, "dtype", "")) and not getattr(value, "is_meta", False)
    return is_floats and len(value.shape) > 0 and 0 not in value.shape


_SPECIAL = {
    Positive: Rule("a number", is_number, require_positive),
    NonNegative: Rule("a number", is_number, require_number),
    Infinite: Rule("a number", is_number, _look_at_infinite),
    AnyFloat: Rule("a number", is_number, _look_at_any),
    Array: Rule("an array of floats", _is_array),
}


def _rule_of_tensor(kind: type, *notes: str) -> Rule:
    """`notes` may say what it holds ("integers") and its shape in words ("(B, T)")."""
    holds = next((note for note in notes if note in HOLDS), "floats")
    shape = next((note for note in notes if note.startswith("(")), None)
    n_dims = len(shape.split(", ")) if shape else 0

    def look(name: str, value: Any) -> None:
        if value.is_meta and holds != "anything":
            require(False, f"{name}.device", str(value.device), "a device with a memory")
        if not HOLDS[holds](value):
            require(False, f"{name}.dtype", value.dtype, holds)
        if shape and value.dim() != n_dims:
            dimensions = f"{_COUNTS[n_dims]} dimension{'s' if n_dims > 1 else ''} {shape}"
            require(False, f"{name}.shape", tuple(value.shape), dimensions)

    return Rule(f"a tensor of {holds}", lambda value: isinstance(value, kind), look)


_COUNTS = ("no", "one", "two", "three", "four")


def _rule_of_union(rules: list[Rule]) -> Rule:
    """A value is checked by the first rule whose type it has."""
    if ANYTHING in rules:
        return ANYTHING

    def look(name: str, value) -> None:
        next(rule for rule in rules if rule.is_type(value)).check(name, value)

    *first, last = [word for rule in rules for word in rule.allowed.split(" or ")]
    words = f"{', '.join(first)} or {last}"
    return Rule(words, lambda value: any(rule.is_type(value) for rule in rules), look)


def _rule_of_tuple(type_args: tuple) -> Rule:
    """`tuple[int, ...]` or `tuple[int, int]`."""
    if type_args[1:] == (...,):
        return _rule_of_items(tuple, [rule_of(type_args[0])])
    rules = [rule_of(a) for a in type_args]

    def look(name: str, value) -> None:
        require(len(value) == len(rules), name, value, f"a tuple of {len(rules)} values")
        for i, (rule, item) in enumerate(zip(rules, value, strict=True)):
            rule.check(f"{name}[{i}]", item)

    return Rule("a tuple", lambda value: isinstance(value, tuple), look)


def _rule_of_items(kind: type, rules: list[Rule]) -> Rule:
    """A sequence, mapping or other iterable; items are checked only where that consumes none."""

    def look(name: str, value) -> None:
        if isinstance(value, Mapping) and len(rules) == 2:
            for key, item in islice(value.items(), ITEMS_CHECKED):
                rules[0].check(f"a key of {name}", key)
                rules[1].check(f"{name}[{key!r}]", item)
        elif isinstance(value, list | tuple) and rules:
            for i, item in enumerate(value[:ITEMS_CHECKED]):
                rules[0].check(f"{name}[{i}]", item)

    others = str | bytes if issubclass(kind, Mapping) else str | bytes | Mapping

    def is_type(value) -> bool:
        """A str is no list of strs, a dict none of its keys; a 1-D array is a list of numbers."""
        if hasattr(value, "ndim"):
            of_numbers = not rules or rules[0] in (ANYTHING, _PLAIN[int], _PLAIN[float])
            is_row = value.ndim == 1 and "complex" not in str(value.dtype)
            return kind in (Sequence, Iterable) and of_numbers and is_row
        return isinstance(value, kind) and not isinstance(value, others)

    looks = any(rule is not ANYTHING for rule in rules)
    names: dict = {Mapping: "a dict", Sequence: "a list or tuple", Iterable: "an iterable"}
    allowed = names.get(kind, f"a {kind.__name__}")
    return Rule(allowed, is_type, look if looks else None)


def _is_traced() -> bool:
    """Whether torch.jit is tracing: sizes are then tensors instead of ints."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.jit.is_tracing()
