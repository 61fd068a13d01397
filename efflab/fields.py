"""The fields of a `config.json` as its class would have them, and what they say layer by layer.

Which layers have a window, and which a feed-forward in place of experts; `efflab.families` has the
rest. No torch here.
"""

import operator
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from efflab.errors import require, require_int, require_one_of
from efflab.rules import Count, Size, require_type

TABLES = tomllib.loads(Path(__file__).with_name("families.toml").read_text("utf-8"))
"""What the families' files say, in our terms."""
HARMLESS = frozenset(TABLES["harmless"].split())
"""Options that change no hidden state of a model that is not being trained."""
_FREE = HARMLESS | frozenset(TABLES["free"].split())
_FREE_ENDINGS = re.compile(TABLES["free_endings"])
_OPERATORS = {"+": operator.add, "*": operator.mul, "//": operator.floordiv}


class Fields:
    """A file's fields with the defaults of its family; remembers which were asked for."""

    def __init__(self, fields: Mapping, table: Mapping):
        self.table, self.defaults = table, table.get("defaults", {})
        self.fields, self.asked = dict(fields), set[str]()
        for outer in table.get("nested", []):
            inner = require_type(outer, self.fields.pop(outer, None) or {}, Mapping)
            self.fields |= {f"{outer}.{key}": value for key, value in inner.items()}

    def get(self, name: str, annotation: Any = Any) -> Any:
        """The field's value; of equal numbers, one per layer, the number."""
        self.asked.add(name)
        value = self.fields.get(name, self.defaults.get(name))
        is_list = isinstance(value, list) and annotation not in (list, list | None)
        if is_list and value and all(item == value[0] for item in value):
            value = value[0]
        return require_type(name, value, annotation)

    def amount(self, expression: str, annotation: Any) -> Any:
        """A field, or two of fields and numbers with +, * or // between; None where one is None.

        "a if b" is a where b holds, else None.
        """
        expression, _, condition = expression.partition(" if ")
        parts = expression.split()
        if len(parts) == 1:
            value = self.get(expression, annotation | None)
            return value if not condition or self.holds(condition) else None
        a, b = (int(part) if part.isdigit() else self.get(part, Size | None) for part in parts[::2])
        return None if a is None or b is None else _OPERATORS[parts[1]](a, b)

    def holds(self, condition: str) -> bool:
        """Whether all terms with & between hold: a field, "not" a field, or a field == number."""
        return all(self._holds(term.strip()) for term in condition.split("&"))

    def _holds(self, term: str) -> bool:
        name, _, number = term.removeprefix("not ").partition(" == ")
        if number:
            return self.get(name, Count | None) == int(number)
        return bool(self.get(name, bool | None)) != term.startswith("not ")

    def by_layer(self, name: str, n_layer: int, allowed: Mapping) -> list | None:
        """What `allowed` says of each layer's item, or None without such a list."""
        items = self.get(name, list | None)
        if items is None:
            return None
        require(len(items) == n_layer, name, items, "{n} items, one per layer", n=n_layer)
        for item in items:
            require_one_of(name, item, allowed)
        return [allowed[item] for item in items]

    def layers(self, name: str, n_layer: int) -> list | None:
        """A list of layers' numbers."""
        numbers = self.get(name, list | None)
        for number in numbers or []:
            require_int(name, number, 0, n_layer - 1)
        return numbers

    def require_known(self) -> None:
        """Refuse a field that is set, was not asked for and may cost something."""
        free = _FREE | frozenset(self.table.get("free", "").split())
        for name in sorted(self.fields.keys() - self.asked - free):
            value, default = self.fields[name], self.defaults.get(name)
            inner = name.rpartition(".")[2]
            if inner.startswith("_") or inner in free or _FREE_ENDINGS.search(inner):
                continue
            allowed = "{usual}: what else would cost is not known of this family"
            usual = "null or false" if default is None else repr(default)
            unset = value is None or value == default or (default is None and not value)
            require(unset, name, value, allowed, usual=usual)


def windows(file: Fields, n_layer: int) -> tuple[int | None, ...]:
    """Each layer's window: by `layer_types`, else by the pattern of its family."""
    spec = file.table["windows"]
    size = file.get(spec["size"], Count | None) or None
    if size is not None and spec.get("both_sides"):
        size = 2 * (size // 2) + 1
    is_on = "switch" not in spec or file.holds(spec["switch"])
    local = file.by_layer("layer_types", n_layer, TABLES["layer_types"])
    period = file.get(spec["period"]) if "period" in spec else None
    if size is None or not is_on:
        return (None,)
    if local is None:
        local = [_PATTERNS[spec["pattern"]](file, period, layer) for layer in range(n_layer)]
    return tuple(size if is_local else None for is_local in local)


def _all_but_last(file: Fields, period: Any, layer: int) -> bool:
    """The last of each period sees everything; a period may be spelled, as in LLLG."""
    if isinstance(period, str) and period:
        return period[layer % len(period)] == "L"
    return (layer + 1) % _period(file, period, Size) != 0


def _period(file: Fields, period: Any, annotation: Any) -> int:
    return require_type(file.table["windows"]["period"], period, annotation)


def _has_no_positions(file: Fields, period: Any, layer: int) -> bool:
    """Layers without rotary positions, by a list of 0 and 1 or by an interval."""
    flags = file.get("no_rope_layers", list | None)
    if flags:
        return layer < len(flags) and not flags[layer]
    return (layer + 1) % file.get("no_rope_layer_interval", Size) == 0


def _by_blocks(file: Fields, period: Any, layer: int) -> bool:
    """GPT-Neo's attention_types: [[["global", "local"], 12]] is that pair 12 times."""
    name = "attention_types"
    blocks = [
        require_type(name, block, tuple[list, Size]) for block in map(tuple, file.get(name, list))
    ]
    kinds = [kind for names, n in blocks for kind in names * n]
    require(len(kinds) > 0, name, file.get(name), "at least one layer's kind")
    return kinds[layer % len(kinds)] == "local"


_PATTERNS = {
    "every": lambda file, period, layer: True,
    "all but last": _all_but_last,
    "all but first": lambda file, period, layer: layer % _period(file, period, Size) != 0,
    "from": lambda file, period, layer: layer >= _period(file, period, Count),
    "even before": lambda file, period, layer: layer % 2 == 0 and layer < period,
    "without positions": _has_no_positions,
    "with positions": lambda *arguments: not _has_no_positions(*arguments),
    "blocks": _by_blocks,
}


def rope(file: Fields) -> dict:
    """Bases and scaling of rotary positions: of `rope_parameters`, or as files said it before."""
    inner = file.get("rope_parameters", Mapping | None) or {}
    for kind in ("full_attention", "sliding_attention"):
        require_type(f"rope_parameters.{kind}", inner.get(kind), Mapping | None)
    whole, local = inner.get("full_attention") or inner, inner.get("sliding_attention") or {}
    scaling = whole if inner else file.get("rope_scaling", Mapping | None) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    values = {
        "base": whole.get("rope_theta") or file.get("rope_theta"),
        "local_base": local.get("rope_theta") or file.get("rope_local_base_freq"),
        "scaling": None if kind == "default" else kind,
        "factor": scaling.get("factor"),
        "low_turns": scaling.get("low_freq_factor"),
        "high_turns": scaling.get("high_freq_factor"),
        "original_len": scaling.get("original_max_position_embeddings"),
    }
    names = {"base": "rope_theta", "local_base": "rope_local_base_freq"}
    for name, value in values.items():
        allowed = "a number or a name"
        require(not isinstance(value, Mapping | list), names.get(name, name), value, allowed)
    return {f"rope.{name}": value for name, value in values.items() if value is not None}


def dense_layers(file: Fields, n_layer: int) -> tuple[int, ...]:
    """The layers that have a feed-forward in place of experts."""
    sparse = _LAYOUTS[file.table["dense"]](file, n_layer)
    return tuple(layer for layer in range(n_layer) if layer not in sparse)


def _after_first(file: Fields, n_layer: int) -> set[int]:
    first, step = file.get("first_k_dense_replace", Count), file.get("moe_layer_freq", Size | None)
    return {layer for layer in range(first, n_layer) if layer % (step or 1) == 0}


def _by_type(file: Fields, n_layer: int) -> set[int]:
    flags = file.by_layer("mlp_layer_types", n_layer, {"dense": False, "sparse": True})
    after = _after_first(file, n_layer)
    return after if flags is None else {layer for layer in range(n_layer) if flags[layer]}


def _by_step(file: Fields, n_layer: int) -> set[int]:
    dense = file.layers("mlp_only_layers", n_layer) or []
    step = file.get("decoder_sparse_step", Size)
    return {layer for layer in range(n_layer) if layer not in dense and (layer + 1) % step == 0}


def _by_range(file: Fields, n_layer: int) -> set[int]:
    first, last = file.get("moe_layer_start_index", Count), file.get("moe_layer_end_index", int)
    step, end = file.get("moe_layer_interval", Size), n_layer if last == -1 else last + 1
    return {layer for layer in range(first, min(end, n_layer)) if (layer + 1) % step == 0}


def _by_interleaving(file: Fields, n_layer: int) -> set[int]:
    listed = file.layers("moe_layers", n_layer)
    step = file.get("interleave_moe_layer_step", Size)
    return set(range(step - 1, n_layer, step) if listed is None else listed)


_LAYOUTS = {
    "after first": _after_first,
    "types": _by_type,
    "step": _by_step,
    "range": _by_range,
    "interleaved": _by_interleaving,
}
