"""Which arguments an annotation allows.

An int is not a bool and not an array of one element (numpy's scalars count as numbers), a float is
finite, a tensor holds floats and is not on "meta". `Infinite` and notes beside a tensor
(`Annotated[Tensor, "integers", "(B, T)"]`) allow more or less than that.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import islice
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from efflab.errors import (
    LARGEST,
    is_int,
    is_number,
    require,
    require_finite,
    require_int,
    wrong_type,
)

T = TypeVar("T")
Size = Annotated[int, 1]
Count = Annotated[int, 0]
"""An int of at least this value."""
Infinite = Annotated[float, "infinite"]
"""A float that may be infinite, never NaN."""
AnyFloat = Annotated[float, "any"]
"""A float, infinities and NaN too."""
Array = Annotated[Any, "array"]
"""Floats in an array of any library that has a dtype and a shape: torch's, jax's, numpy's."""

HOLDS: dict[str, Callable[[Any], bool]] = {
    "floats": lambda x: x.is_floating_point(),
    "indices": lambda x: str(x.dtype) in ("torch.int64", "torch.int32"),
    "integers": lambda x: not (x.is_floating_point() or x.is_complex() or _holds_booleans(x)),
    "booleans": lambda x: _holds_booleans(x),
    "numbers": lambda x: not x.is_complex(),
    "anything": lambda x: True,
}
"""Notes on what a tensor holds, and their checks; "numbers" are all but complex ones."""

ITEMS_CHECKED = 1000
"""Only the first items of a sequence or mapping are checked, so that a check stays cheap."""


class Rule(NamedTuple):
    """What an annotation allows: in words, by type, and by checking a value of that type (`look`).

    `at_once` accepts the usual values in one step: planners check millions of them.
    """

    allowed: str
    is_type: Callable[[Any], bool]
    look: Callable[[str, Any], None] | None = None
    at_once: Callable[[Any], bool] = lambda value: False

    def check(self, name: str, value) -> None:
        """A `TypeError` or `ValueError` that names the argument, unless it is allowed."""
        if self.is_type(value):
            if self.look is not None:
                self.look(name, value)
        elif not _is_traced():
            raise wrong_type(name, value, self.allowed)


def require_type(name: str, value: T, annotation) -> T:
    """`value`, which must be what the annotation allows: `require_type("rule", rule, str)`."""
    rule = rule_of(annotation)
    if rule is not None:
        rule.check(name, value)
    return value


def rule_of(annotation) -> Rule | None:
    """The rule of an annotation; None if it allows everything (`Any`, a type variable).

    >>> rule_of(int | None).allowed
    'an int or None'
    """
    origin, type_args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if type_args[0] is int:
            return _rule_of_int(type_args[1])
        special = {Infinite: _FLOAT_OR_INFINITE, AnyFloat: _ANY_FLOAT, Array: _ARRAY}
        return special.get(annotation) or _rule_of_tensor(*type_args)
    if origin in (Union, UnionType):
        return _rule_of_union([rule_of(a) for a in type_args])
    if origin is Literal:
        return Rule(
            "one of " + ", ".join(map(repr, type_args)), lambda value: _is_in(value, type_args)
        )
    if origin is tuple:
        return _rule_of_tuple(type_args)
    if origin is type:
        return Rule("a class", lambda value: isinstance(value, type))
    if annotation is Callable or origin is Callable:
        return Rule("a function", callable)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _rule_of_items(origin, [rule_of(a) for a in type_args])
    return _rule_of_class(annotation)


def _rule_of_class(kind) -> Rule | None:
    if kind in (Any, object, Hashable) or not isinstance(kind, type):
        return None
    if kind in _PLAIN:
        return _PLAIN[kind]
    if f"{kind.__module__}.{kind.__qualname__}" == "torch.Tensor":
        return _rule_of_tensor(kind)
    if issubclass(kind, Iterable) and kind.__module__ in ("builtins", "collections.abc"):
        return _rule_of_items(kind, [])
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    return _rule_of_instances(f"{article} {kind.__name__}", kind)


def _rule_of_instances(allowed: str, kind: type) -> Rule:
    def is_type(value) -> bool:
        return isinstance(value, kind)

    return Rule(allowed, is_type, at_once=is_type)


def _look_at_int(name: str, value) -> None:
    if not -LARGEST <= value <= LARGEST:
        require(False, name, value, "an int of at most {high}", high=LARGEST)


def _rule_of_int(minimum: int) -> Rule:
    def look(name: str, value) -> None:
        require_int(name, value, minimum)

    def at_once(value) -> bool:
        return type(value) is int and minimum <= value <= LARGEST

    return Rule("an int", is_int, look, at_once)


def _look_at_infinite(name: str, value) -> None:
    if value not in (float("inf"), -float("inf")):
        require_finite(name, value)


def _look_at_any(name: str, value) -> None:
    try:
        float(value)
    except OverflowError:
        require(False, name, value, "a number that a float can hold")


def _is_plain_int(value) -> bool:
    return type(value) is int and -LARGEST <= value <= LARGEST


def _is_plain_number(value) -> bool:
    return (type(value) is float or type(value) is int) and -1e300 < value < 1e300


def _is_bool(value) -> bool:
    return value is True or value is False or type(value).__name__ in ("bool", "bool_")  # numpy's


_FLOAT_OR_INFINITE = Rule("a number", is_number, _look_at_infinite)
_ANY_FLOAT = Rule("a number", is_number, _look_at_any, lambda value: type(value) is float)
_PLAIN = {
    int: Rule("an int", is_int, _look_at_int, _is_plain_int),
    float: Rule("a number", is_number, require_finite, _is_plain_number),
    bool: Rule("True or False", _is_bool, at_once=_is_bool),
    str: _rule_of_instances("a text", str),
    bytes: _rule_of_instances("bytes", bytes),
    NoneType: _rule_of_instances("None", NoneType),
}


def _is_array(value) -> bool:
    """Floats, in at least one dimension, not empty, and not on "meta"."""
    is_floats = "float" in str(getattr(value, "dtype", "")) and not getattr(value, "is_meta", False)
    return is_floats and len(value.shape) > 0 and 0 not in value.shape


_ARRAY = Rule("an array of floats", _is_array, at_once=_is_array)


def _rule_of_tensor(kind: type, *notes: str) -> Rule:
    """`notes` may say what it holds ("integers") and its shape in words ("(B, T)")."""
    holds = next((note for note in notes if note in HOLDS), "floats")
    shape = next((note for note in notes if note.startswith("(")), None)
    holds_it, n_dims = HOLDS[holds], len(shape.split(", ")) if shape else 0

    def is_type(value) -> bool:
        return isinstance(value, kind)

    def has_memory(value: Any) -> bool:
        return holds == "anything" or not value.is_meta

    def has_shape(value: Any) -> bool:
        return shape is None or value.dim() == n_dims

    def look(name: str, value: Any) -> None:
        require(has_memory(value), f"{name}.device", str(value.device), "a device with a memory")
        require(holds_it(value), f"{name}.dtype", value.dtype, holds)
        dimensions = f"{_COUNTS[n_dims]} dimension{'s' if n_dims > 1 else ''} {shape}"
        require(has_shape(value), f"{name}.shape", tuple(value.shape), dimensions)

    def fits(value) -> bool:
        return is_type(value) and has_memory(value) and holds_it(value) and has_shape(value)

    return Rule(f"a tensor of {holds}", is_type, look, fits)


_COUNTS = ("no", "one", "two", "three", "four")


def _holds_booleans(tensor) -> bool:
    return str(tensor.dtype) == "torch.bool"


def _rule_of_union(rules: list[Rule | None]) -> Rule | None:
    """A value is checked by the first rule whose type it has."""
    checks = [rule for rule in rules if rule is not None]
    if len(checks) < len(rules):
        return None

    def look(name: str, value) -> None:
        next(rule for rule in checks if rule.is_type(value)).check(name, value)

    def is_type(value) -> bool:
        return any(rule.is_type(value) for rule in checks)

    *first, last = [word for rule in checks for word in rule.allowed.split(" or ")]
    words = f"{', '.join(first)} or {last}"
    return Rule(words, is_type, look, lambda value: any(rule.at_once(value) for rule in checks))


def _rule_of_tuple(type_args: tuple) -> Rule:
    """`tuple[int, ...]` or `tuple[int, int]`."""
    if type_args[1:] == (...,):
        return _rule_of_items(tuple, [rule_of(type_args[0])])
    rules = [rule_of(a) for a in type_args]

    def look(name: str, value) -> None:
        require(len(value) == len(rules), name, value, f"a tuple of {len(rules)} values")
        for i, (rule, item) in enumerate(zip(rules, value, strict=True)):
            if rule is not None:
                rule.check(f"{name}[{i}]", item)

    return Rule("a tuple", lambda value: isinstance(value, tuple), look)


def _rule_of_items(kind: type, rules: list[Rule | None]) -> Rule:
    """A sequence, mapping or other iterable; items are checked only where that consumes none."""

    def look(name: str, value) -> None:
        if isinstance(value, Mapping) and len(rules) == 2:
            for key, item in islice(value.items(), ITEMS_CHECKED):
                _check_all(rules, (f"a key of {name}", f"{name}[{key!r}]"), (key, item))
        elif isinstance(value, list | tuple) and rules:
            for i, item in enumerate(value[:ITEMS_CHECKED]):
                _check_all(rules, (f"{name}[{i}]",), (item,))

    def is_type(value) -> bool:
        """A str is no list of strs, a dict none of its keys; a 1-D array is a list of numbers."""
        if hasattr(value, "ndim"):
            of_numbers = not rules or rules[0] in (None, _PLAIN[int], _PLAIN[float])
            is_row = value.ndim == 1 and "complex" not in str(value.dtype)
            return kind in (Sequence, Iterable) and of_numbers and is_row
        return (
            isinstance(value, kind)
            and not isinstance(value, str | bytes)
            and (issubclass(kind, Mapping) or not isinstance(value, Mapping))
        )

    looks = any(rule is not None for rule in rules)
    return Rule(_container_name(kind), is_type, look if looks else None)


def _container_name(kind: type) -> str:
    plain: dict = {Mapping: "a dict", Sequence: "a list or tuple", Iterable: "an iterable"}
    return plain.get(kind, f"a {kind.__name__}")


def _check_all(rules: list[Rule | None], names: tuple, values: tuple) -> None:
    for rule, name, value in zip(rules, names, values, strict=True):
        if rule is not None:
            rule.check(name, value)


def _is_in(value, allowed: tuple) -> bool:
    return any(type(value) is type(a) and value == a for a in allowed)


def _is_traced() -> bool:
    """Whether torch.jit is tracing: sizes are then tensors instead of ints."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.jit.is_tracing()
