"""Reads a released model's `config.json`: which of its fields cost what, in our terms.

`families.toml` has a table for each `model_type`. JSON alone is read, and nothing of a repository
is executed. No torch here.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache

# these answer False for a name that is too long, where Path's methods raise
from os.path import exists, expanduser, isdir, isfile
from pathlib import Path
from socket import getaddrinfo
from typing import Any, NamedTuple, get_type_hints
from urllib.parse import urlsplit

from efflab.arguments import check_module
from efflab.base.json_files import parse_json
from efflab.base.words import Words
from efflab.config import PARTS, PRESETS, ModelConfig, read_options
from efflab.errors import Refusal, quote, require, require_one_of
from efflab.fields import TABLES, Fields, dense_layers, rope, windows

FAMILIES = tuple(TABLES["family"])
"""Each `model_type` that is known."""
MOST_LAYERS = 10_000
MOST_BYTES = 10_000_000
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.gguf")
REQUIRED = ("n_layer", "n_head", "d_model", "d_ff", "vocab_size", "max_len")
LEFT_OUT = "a size, which this file leaves out"


class Reading(NamedTuple):
    """What a source says: the shape, the family that it was read as, and its name.

    `note` is empty, or one sentence on what was assumed.
    """

    config: ModelConfig
    model_type: str
    name: str
    note: str


def read(source: str | Path | Mapping) -> Reading:
    """The model of a `config.json`, its folder, its dict, or a model's name on the hub.

    Of a multimodal model the language model is read, an unknown `model_type` as the family of its
    `architectures`; `note` then says so. A field that is set and that the family does not know is
    a `ValueError`, and so is a value that our terms cannot say.
    """
    fields, name = load(source)
    kind, note, inner = fields.get("model_type"), "", fields.get("text_config")
    if kind not in FAMILIES and isinstance(inner, Mapping):
        words = (
            "the language model of {kind} alone (its text_config): no encoder of images or sound"
        )
        note = Words(words, kind=kind)
        shared = {key: fields[key] for key in ("tie_word_embeddings",) if key in fields}
        fields, kind = shared | dict(inner), inner.get("model_type")
    if kind not in FAMILIES and (other := _family_of(fields.get("architectures"))):
        words = "model_type={kind!r} is read as {other!r}, which its architectures name"
        note = Words(words, kind=kind, other=other)
        kind = other
    _require_known(kind, FAMILIES)
    return Reading(_config(Fields(fields, family(str(kind)))), str(kind), name, note)


def _require_known(kind: Any, known: Iterable[str]) -> None:
    kinds = list(known)
    near = ", ".join(map(repr, get_close_matches(str(kind), kinds, 5, cutoff=0)))
    allowed = "a source of one of {n} known types, among them {near}"
    is_known = isinstance(kind, str) and kind in kinds
    require(is_known, "model_type", kind, allowed, n=len(kinds), near=near)


def load(source: str | Path | Mapping) -> tuple[dict, str]:
    """The fields of a source, and its name; of the hub, `config.json` alone is downloaded."""
    if isinstance(source, Mapping):
        has_names = all(isinstance(key, str) for key in source)
        require(has_names, "source", source, "a dict whose keys are texts")
        return dict(source), str(source.get("_name_or_path") or source.get("model_type"))
    path = Path(expanduser(source))
    if not exists(path) and re.fullmatch(r"[\w.-]+(?<!\.json)", str(source)):
        require_one_of("source", str(source), (*PRESETS, "a path", "owner/name on the hub"))
    if not exists(path) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(?<!\.json)", str(source)):
        return _parse(_download(str(source))), str(source)
    if isdir(path):
        weights = [item.name for pattern in WEIGHTS for item in sorted(path.glob(pattern))]
        seen = f"; weights alone say nothing, and {weights[0]} is not opened" if weights else ""
        found = (path / "config.json").is_file()
        require(found, "source", str(path), "a folder with a config.json{seen}", seen=seen)
        return _parse(path / "config.json"), path.resolve().name
    require(isfile(path), "source", str(path), "a file that exists")
    return _parse(path), path.resolve().parent.name if path.name == "config.json" else path.stem


def _parse(path: Path) -> dict:
    require(path.stat().st_size <= MOST_BYTES, "source", str(path), "a file of at most 10 MB")
    try:
        return parse_json(path.read_bytes())
    except (ValueError, OSError) as error:
        allowed, reason = "one JSON object, as a config.json is ({reason})", str(error)[:100]
        raise Refusal("source", quote(str(path)), allowed, {"reason": reason}) from None


def _download(name: str) -> Path:
    """The hub's file, from its cache where it is; a hub that has no address is not asked twice."""
    from efflab.base import privacy

    hub = privacy.load("huggingface_hub")
    if cached := hub.try_to_load_from_cache(name, "config.json"):
        return Path(cached)
    try:
        getaddrinfo(urlsplit(hub.constants.ENDPOINT).hostname, 443)
        return Path(hub.hf_hub_download(name, "config.json"))
    except Exception as error:
        allowed = "a file, a folder, or a model on the hub that can be reached ({reason})"
        reason = {"reason": type(error).__name__}
        raise Refusal("source", quote(name), allowed, reason) from None


def count_on_meta(source: str | Path | Mapping) -> int:
    """Parameters of any `model_type` that `transformers` has, counted by it on the meta device.

    Tied ones count once; encoders are base models, decoders have their head, encoder-decoders too.
    It imports torch.
    """
    from torch import device

    from efflab.conversion import transformers

    fields, library = load(source)[0], transformers()
    unused = ("auto_map", "quantization_config", "dtype", "torch_dtype", "model_type")
    options = {k: v for k, v in fields.items() if not k.startswith("_") and k not in unused}
    kind = fields.get("model_type")
    _require_known(kind, library.CONFIG_MAPPING)
    try:
        config = library.AutoConfig.for_model(kind, **options)
        with device("meta"):
            model = getattr(library, _auto_class(fields)).from_config(config)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        allowed = "a config that transformers builds a model of ({reason})"
        raise Refusal("source", quote(kind), allowed, {"reason": reason}) from None
    return sum(parameter.numel() for parameter in model.parameters())


def _auto_class(fields: Mapping) -> str:
    """The class that has a head where the model writes text."""
    kind, classes = fields.get("model_type"), fields.get("architectures") or [""]
    if fields.get("is_encoder_decoder"):
        return "AutoModelForSeq2SeqLM"
    writes = classes[0].endswith(("ForCausalLM", "LMHeadModel"))
    if kind in FAMILIES:
        writes = family(kind)["fixed"].get("causal", False)
    return "AutoModelForCausalLM" if writes else "AutoModel"


def _family_of(architectures: Any) -> str | None:
    """The family that a class such as LlamaForCausalLM is one of."""
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    heads = r"(Model|LMHeadModel|For[A-Z]\w+|Discriminator|Encoder)"
    for kind, table in TABLES["family"].items():
        if isinstance(first, str) and re.fullmatch(table["prefix"] + heads, first):
            return kind
    return None


@cache
def family(kind: str) -> dict:
    """A family's table, with what it takes over from its parent."""
    require(kind in FAMILIES, "kind", kind, "one of efflab.families.FAMILIES")
    own = TABLES["family"][kind]
    if "parent" not in own:
        return own
    whole, without = dict(family(own["parent"])), own.get("without", [])
    for table in ("fields", "when", "defaults"):
        whole[table] = {k: v for k, v in whole.get(table, {}).items() if k not in without}
    for key, value in own.items():
        whole[key] = whole.get(key, {}) | value if isinstance(value, dict) else value
    return whole


def _config(file: Fields) -> ModelConfig:
    table, theirs = file.table, {}
    values = dict(table["fixed"])
    kinds = {"": ModelConfig, **PARTS}
    hints = {part: get_type_hints(kind, include_extras=True) for part, kind in kinds.items()}
    for path, names in table["fields"].items():
        part, _, own = path.rpartition(".")
        names = [names] if isinstance(names, str) else names
        theirs[own] = names[0].split()[0]
        amounts = [file.amount(name, hints[part][own]) for name in names]
        if any(amount is not None for amount in amounts):
            values[path] = next(amount for amount in amounts if amount is not None)
    for own in REQUIRED:
        require(own in values, theirs[own], None, LEFT_OUT)
    allowed, n_layer = "at most {most} layers", values["n_layer"]
    require(n_layer <= MOST_LAYERS, theirs["n_layer"], n_layer, allowed, most=MOST_LAYERS)
    for condition, more in table.get("when", {}).items():
        values |= more if file.holds(condition) else {}
    values |= _by_layer(file, values)
    file.require_known()
    try:
        return _build(values, theirs)
    except Refusal as refusal:
        name = theirs.get(refusal.name, refusal.name)
        raise Refusal(name, refusal.value, refusal.allowed, refusal.fields) from None


def _by_layer(file: Fields, values: dict) -> dict:
    """What depends on a layer's number or on several fields."""
    more: dict[str, Any] = rope(file) if file.table.get("rope") else {}
    if "windows" in file.table:
        more["attention.windows"] = windows(file, values["n_layer"])
    if "dense" in file.table and values.get("experts.n_expert"):
        more["experts.dense_layers"] = dense_layers(file, values["n_layer"])
    if "relative" in file.table and file.get("relative_attention", bool | None):
        more |= _relative(file, values["max_len"])
    return more


def _relative(file: Fields, max_len: int) -> dict:
    """DeBERTa's table of distances, which its layers' own queries and keys are applied to."""
    for name, value in file.table["relative"].items():
        require(file.get(name) == value, name, file.get(name), "{only}", only=repr(value))
    names = ("position_buckets", "max_relative_positions")
    sizes = [file.get(name, int | None) or 0 for name in names]
    rows = next((size for size in sizes if size > 0), max_len)
    return {"positions": "relative", "position_rows": 2 * rows}


def _build(values: dict, theirs: dict) -> ModelConfig:
    parts: dict[str, dict] = defaultdict(dict)
    for path, value in values.items():
        part, _, name = path.rpartition(".")
        parts[part][name] = value
    if "activation" in theirs:
        activation = parts[""].get("activation")
        require_one_of(theirs["activation"], activation, TABLES["activations"])
        parts[""]["activation"] = TABLES["activations"][activation]
    if not parts["experts"].get("n_expert"):
        del parts["experts"]
    for part in parts.keys() & {"experts", "latent"}:
        kind: Any = PARTS[part]
        for item in dataclasses.fields(kind):
            is_there = item.name in parts[part] or item.default is not dataclasses.MISSING
            require(is_there, theirs.get(item.name, item.name), None, LEFT_OUT)
    whole = parts.pop("")
    if "latent" in parts:
        parts["attention"]["latent"] = parts.pop("latent")
    return ModelConfig(**whole, **read_options(parts))


check_module(__name__)
