"""Converts a model of `transformers`, or a decoder's weights, to our Transformer.

An option of the source that ours lacks must be at its default, so that nothing is dropped
silently; then one forward pass of both on random ids must agree. Names of decoders' weights are in
`families.toml`.
"""

import logging
from collections.abc import Iterable
from copy import deepcopy
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from efflab.arguments import check_module, unchecked
from efflab.base.privacy import load
from efflab.base.significant import significant
from efflab.config import ModelConfig
from efflab.errors import require, require_one_of
from efflab.families import Reading, family, read
from efflab.fields import HARMLESS, TABLES
from efflab.model import Transformer
from efflab.rules import Size
from efflab.weights import Tensors, fill, some

BERT = dict(
    n_layer="num_hidden_layers",
    n_head="num_attention_heads",
    d_model="hidden_size",
    d_ff="intermediate_size",
    vocab_size="vocab_size",
    max_len="max_position_embeddings",
    type_vocab="type_vocab_size",
    activation="hidden_act",
    norm_eps="layer_norm_eps",
)
ALBERT = BERT | dict(d_embed="embedding_size")
GPT2 = dict(
    n_layer="n_layer",
    n_head="n_head",
    d_model="n_embd",
    d_ff="n_inner",
    vocab_size="vocab_size",
    max_len="n_positions",
    activation="activation_function",
    norm_eps="layer_norm_epsilon",
)
"""Our name of an option -> theirs."""

ACTIVATIONS = dict(gelu="gelu", gelu_new="gelu_tanh", gelu_pytorch_tanh="gelu_tanh", relu="relu")
"""Their name of an activation -> ours."""

ENDS = {"embedding.token": "embed_tokens", "embedding.head": "lm_head", "final_norm": "norm"}
"""Our name of a decoder's module -> theirs; the layers' stand in `families.toml`."""
RUNS = TABLES["runs"].split()
"""Decoders that ours computes, by their `model_type`."""

FORMER = {"position_embedding_type": "absolute", "pruned_heads": {}}
"""Options that `transformers` no longer has, with the only value that ours supports."""

TOLERANCE = 1e-4
"""Largest allowed difference of a hidden state, relative to the largest value."""


@runtime_checkable
class PreTrainedConfig(Protocol):
    """A config of `transformers`, under the library's own name."""

    model_type: str

    def to_dict(self) -> dict:
        """Its options by name."""


@runtime_checkable
class PreTrainedModel(Protocol):
    """A model of `transformers`, under the library's own name."""

    base_model: Any
    config: PreTrainedConfig

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
    base, kind = source.base_model, source.base_model.config.model_type
    layouts = {"bert": _from_bert, "gpt2": _from_gpt2}
    require_one_of("model_type", kind, [*layouts, *RUNS])
    if kind in RUNS:
        reading, own = read(base.config.to_dict()), dict(source.state_dict())
        model = decoder(reading, {name: t.float() for name, t in own.items()}).eval()
    else:
        model = layouts[kind](base).eval()
    if kind == "gpt2":
        _require_tied(source, base.wte.weight)
    require_same_outputs(base, model)
    return model


def config_like(theirs: PreTrainedConfig, names: dict[str, str], **ours: Any) -> ModelConfig:
    """Our config from `theirs`: `names` maps our options to theirs, `ours` override them."""
    _require_plain(theirs, names.values())
    options = {name: getattr(theirs, their_name) for name, their_name in names.items()}
    require_one_of("activation", options["activation"], ACTIVATIONS)
    options["activation"] = ACTIVATIONS[options["activation"]]
    return ModelConfig(**(options | ours))


def _require_plain(config: PreTrainedConfig, known: Iterable[str]) -> None:
    """Refuse an option that is neither `known` nor harmless, unless it is at its default."""
    defaults = transformers().AutoConfig.for_model(config.model_type).to_dict() | FORMER
    options = config.to_dict()
    for name in sorted(options.keys() - HARMLESS - set(known)):
        if name.startswith("_"):  # the library's own notes
            continue
        require(name in defaults, name, options[name], "no such option: ours has no counterpart")
        allowed = f"{defaults[name]!r}: ours has no counterpart for anything else"
        require(options[name] == defaults[name], name, options[name], allowed)


def _require_tied(source: Any, table: Tensor) -> None:
    """A language model's head must be the token table, as ours is."""
    getter = getattr(source, "get_output_embeddings", lambda: None)
    head = getter()
    same = head is None or (head.bias is None and torch.equal(head.weight, table))
    require(same, "lm_head", "weights of its own", "those of the token table")


@torch.no_grad()
def require_same_outputs(source: PreTrainedModel, model: Transformer) -> None:
    """Refuse a model whose hidden states for random ids differ from the source's.

    The inputs have padding and, if the model knows them, token types; fp32, no dropout.
    """
    exact = _exact(source)
    c, rng = model.config, torch.Generator().manual_seed(0)
    ids = torch.randint(c.vocab_size, (2, min(c.max_len, 32)), generator=rng)
    mask = torch.ones_like(ids)
    mask[1, len(mask[1]) // 2 + 1 :] = 0
    inputs, types = dict(input_ids=ids, attention_mask=mask, return_dict=True), None
    if c.type_vocab:
        types = torch.randint(c.type_vocab, ids.shape, generator=rng)
        inputs["token_type_ids"] = types
    theirs, ours = exact(**inputs), model.encode(ids, mask, types)
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


def load_renamed(
    model: Transformer,
    source: nn.Module,
    modules: dict[str, str],
    layer: dict[str, str],
    prefix: str,
    transposed: bool = False,
) -> None:
    """Give the model the source's weights, whose modules have other names (`module_names`).

    `transposed`: the layers' matrices are stored as (in, out), as GPT-2's Conv1D does.
    """
    names = unchecked(module_names)(model.config.n_layer, modules, layer, prefix)
    tensors: dict[str, Tensor] = {}
    known = source.state_dict()
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            parts = [known[f"{t}.{kind}"] for t in theirs if f"{t}.{kind}" in known]
            if transposed and ours.startswith("layers."):
                parts = [part.T if part.dim() == 2 else part for part in parts]
            tensors |= {f"{ours}.{kind}": torch.cat(parts)} if parts else {}
    model.load_state_dict(tensors)


def module_names(
    n_layer: Size, modules: dict[str, str], layer: dict[str, str], prefix: str
) -> dict[str, list[str]]:
    """Our name of each module -> theirs, of which several have their rows stacked.

    `modules`: ours -> theirs; `layer`: the same within each layer, theirs below `prefix`, where
    several are apart by spaces (queries, keys and values become `qkv`).
    """
    names = {ours: [theirs] for ours, theirs in modules.items()}
    for i in range(n_layer):
        places = ((ours, theirs.split()) for ours, theirs in layer.items())
        names |= {f"layers.{i}.{ours}": [prefix.format(i) + t for t in ts] for ours, ts in places}
    return names


def decoder(reading: Reading, tensors: Tensors) -> Transformer:
    """The model that a `config.json` describes, with these weights, named as its family does.

    A family that ours does not compute, or a weight that is missing or unknown, is a `ValueError`.
    """
    kind, config = reading.model_type, reading.config
    require_one_of("model_type", kind, RUNS)
    table, own = family(kind), dict[str, Tensor]()
    known = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if config.tied:
        known.pop("lm_head.weight", None)
    names = module_names(config.n_layer, ENDS, table["weights"], "layers.{}.")
    for ours, theirs in names.items():
        for end in ("weight", "bias"):
            parts = [known.pop(f"{t}.{end}") for t in theirs if f"{t}.{end}" in known]
            if parts and "norm" in ours:
                parts = [part.float() + table.get("norm_offset", 0) for part in parts]
            own |= {f"{ours}.{end}": torch.cat(parts)} if parts else {}
    unknown = [name for name in known if not name.endswith("rotary_emb.inv_freq")]
    require(not unknown, "tensors", some(unknown), f"weights of {kind} alone")
    return fill(Transformer(config), own, reading.name)


def _from_bert(source: Any) -> Transformer:
    model = Transformer(config_like(source.config, BERT, pooler=source.pooler is not None))
    modules = {
        "embedding.token": "embeddings.word_embeddings",
        "embedding.position": "embeddings.position_embeddings",
        "embedding.segment": "embeddings.token_type_embeddings",
        "embedding.norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
    }
    layer = {
        "attention.body.qkv": "attention.self.query attention.self.key attention.self.value",
        "attention.body.out": "attention.output.dense",
        "attention.norm": "attention.output.LayerNorm",
        "ffn.body.up": "intermediate.dense",
        "ffn.body.down": "output.dense",
        "ffn.norm": "output.LayerNorm",
    }
    load_renamed(model, source, modules, layer, "encoder.layer.{}.")
    return model


def _from_gpt2(source: Any) -> Transformer:
    c = source.config
    d_ff = 4 * c.n_embd if c.n_inner is None else c.n_inner
    model = Transformer(config_like(c, GPT2, d_ff=d_ff, causal=True))
    modules = {"embedding.token": "wte", "embedding.position": "wpe", "final_norm": "ln_f"}
    layer = {
        "attention.body.qkv": "attn.c_attn",
        "attention.body.out": "attn.c_proj",
        "attention.norm": "ln_1",
        "ffn.body.up": "mlp.c_fc",
        "ffn.body.down": "mlp.c_proj",
        "ffn.norm": "ln_2",
    }
    load_renamed(model, source, modules, layer, "h.{}.", transposed=True)
    return model


check_module(__name__)
