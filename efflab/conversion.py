"""Converts a model of `transformers`, or a decoder's weights, to our Transformer.

An option of the source that ours lacks must be at its default, so that nothing is dropped
silently; then one forward pass of both on random ids must agree. Names of options and of weights
are in `families.toml`.
"""

import logging
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from efflab.arguments import check_module
from efflab.base.privacy import load
from efflab.base.significant import significant
from efflab.errors import require, require_one_of
from efflab.families import Reading, family, read
from efflab.fields import HARMLESS, TABLES
from efflab.model import Transformer
from efflab.weights import Tensors, fill, some

PLAIN = ("bert", "gpt2")
"""Families of the plain Transformer, whose source is a base model."""
RUNS = TABLES["runs"].split()
"""Decoders that ours computes, by their `model_type`."""

FORMER = {"position_embedding_type": "absolute", "pruned_heads": {}}
"""Options that `transformers` no longer has, with the only value that ours supports."""

TOLERANCE = 1e-4
"""Largest allowed difference of a hidden state, relative to the largest value."""


@runtime_checkable
class PreTrainedModel(Protocol):
    """A model of `transformers`, under the library's own name."""

    base_model: Any
    config: Any

    def state_dict(self) -> dict:
        """Its weights by name."""


def transformers() -> ModuleType:
    """The library of that name, without torchao's long warnings that it finds no GPU."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return load("transformers")


def from_transformers(source: PreTrainedModel) -> Transformer:
    """Our Transformer with the weights of a `transformers` BERT, GPT-2 or decoder of today.

    Heads are left out, but for an output of a decoder's own. An option that ours has no counterpart
    for, or a source that computes something else, is a `ValueError`.
    """
    kind = source.base_model.config.model_type
    require_one_of("model_type", kind, [*PLAIN, *RUNS])
    return convert(source)


def convert(source: PreTrainedModel) -> Transformer:
    """`from_transformers` for every family whose modules are named in `families.toml`."""
    base, kind = source.base_model, source.base_model.config.model_type
    if kind not in RUNS:
        _require_plain(base.config)
    if kind == "gpt2":
        _require_tied(source, base.wte.weight)
    reading = read(base.config.to_dict())
    has_pooler = getattr(base, "pooler", None) is not None
    reading = reading._replace(config=replace(reading.config, pooler=has_pooler))
    own = source.state_dict() if kind in RUNS else base.state_dict()
    model = from_weights(reading, {name: t.float() for name, t in own.items()}).eval()
    require_same_outputs(base, model)
    return model


def _require_plain(config: Any) -> None:
    """Refuse an option that is neither taken over nor harmless, unless it is at its default."""
    known = options_of(config.model_type)
    defaults = transformers().AutoConfig.for_model(config.model_type).to_dict() | FORMER
    options = config.to_dict()
    for name in sorted(options.keys() - HARMLESS - known):
        if name.startswith("_"):  # the library's own notes
            continue
        require(name in defaults, name, options[name], "no such option: ours has no counterpart")
        allowed = f"{defaults[name]!r}: ours has no counterpart for anything else"
        require(options[name] == defaults[name], name, options[name], allowed)


def options_of(kind: str) -> set[str]:
    """Names of the options that our config takes over; a head of its own is none."""
    names = [theirs for ours, theirs in family(kind)["fields"].items() if ours != "tied"]
    return set(re.findall(r"\w+", str(names)))


def _require_tied(source: Any, table: Tensor) -> None:
    """A language model's head must be the token table, as ours is."""
    head = getattr(source, "get_output_embeddings", lambda: None)()
    same = head is None or (head.bias is None and torch.equal(head.weight, table))
    require(same, "lm_head", "weights of its own", "those of the token table")


@torch.no_grad()
def require_same_outputs(source: PreTrainedModel, model: Transformer) -> None:
    """Refuse a model whose hidden states for random ids differ from the source's.

    The inputs have padding and, if the model knows them, token types; fp32, no dropout.
    """
    c, rng = model.config, torch.Generator().manual_seed(0)
    ids = torch.randint(c.vocab_size, (2, min(c.max_len, 32)), generator=rng)
    mask = torch.ones_like(ids)
    mask[1, len(mask[1]) // 2 + 1 :] = 0
    inputs, types = dict(input_ids=ids, attention_mask=mask, return_dict=True), None
    if c.type_vocab:
        types = torch.randint(c.type_vocab, ids.shape, generator=rng)
        inputs["token_type_ids"] = types
    theirs, ours = _exact(source)(**inputs), model.encode(ids, mask, types)
    pairs = [("hidden states", ours[mask > 0], theirs.last_hidden_state[mask > 0])]
    if c.pooler:
        pairs.append(("pooled states", model.pool(ours), theirs.pooler_output))
    for what, mine, expected in pairs:
        gap, largest = (mine - expected).abs().max().item(), expected.abs().max().item()
        most = significant(TOLERANCE * largest, 2)
        allowed = f"the source's within {most}: ours computes something else"
        require(gap <= TOLERANCE * largest, what, f"off by {significant(gap, 2)}", allowed)


def _exact(source: Any) -> Any:
    """The source in fp32 on the CPU, without dropout, as our model is."""
    plain = source.dtype == torch.float32 and source.device.type == "cpu" and not source.training
    return source if plain else deepcopy(source).cpu().float().eval()


def from_weights(reading: Reading, tensors: Tensors) -> Transformer:
    """The model that a `config.json` describes, with these weights, named as its family does.

    A family that ours does not compute, or a weight that is missing or unknown, is a `ValueError`.
    """
    kind, config = reading.model_type, reading.config
    require_one_of("model_type", kind, [*PLAIN, "albert", *RUNS])
    table, own = family(kind), dict[str, Tensor]()
    known = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if config.tied:
        known.pop("lm_head.weight", None)
    for ours, theirs in _module_names(table, config.n_layer).items():
        for end in ("weight", "bias"):
            parts = [known.pop(f"{t}.{end}") for t in theirs if f"{t}.{end}" in known]
            if "norm" in ours:
                parts = [part.float() + table.get("norm_offset", 0) for part in parts]
            if ours.startswith("layers.") and table.get("transposed"):
                parts = [part.T if part.dim() == 2 else part for part in parts]
            own |= {f"{ours}.{end}": torch.cat(parts)} if parts else {}
    unknown = [name for name in known if not name.endswith("rotary_emb.inv_freq")]
    require(not unknown, "tensors", some(unknown), f"weights of {kind} alone")
    return fill(Transformer(config), own, reading.name)


def _module_names(table: Mapping, n_layer: int) -> dict[str, list[str]]:
    """Our name of each module -> theirs, of which several have their rows stacked."""
    names = {ours: [theirs] for ours, theirs in table["ends"].items()}
    for i in range(n_layer):
        prefix = table["layer"].format(i)
        for ours, theirs in table["weights"].items():
            names[f"layers.{i}.{ours}"] = [prefix + name for name in theirs.split()]
    return names


check_module(__name__)
