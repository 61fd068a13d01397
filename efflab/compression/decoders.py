"""One model in several engines, run as it is served: a prompt, then one token at a time.

Each engine keeps the keys and values itself, runs on as many threads as torch, and gives logits.
OpenVINO's take any batch and length, and keep all tokens in layers with a window too. An encoder
has no cache: a text is read whole, for its hidden states.
"""

import logging
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from math import ceil, gcd
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from efflab import cost
from efflab.arguments import check_module
from efflab.base.privacy import load
from efflab.cache import Cache
from efflab.compression.engines import torch_dynamic_int8
from efflab.compression.openvino import cpu_hints, no_progress, openvino_model, quiet
from efflab.config import ModelConfig
from efflab.errors import require
from efflab.model import Transformer
from efflab.rules import Count, Size
from efflab.tensors import Ids

TORCH, OPENVINO = "torch", "OpenVINO"
FORMATS = {
    f"{TORCH} fp32": (32, 32, 4),
    f"{TORCH} bf16": (16, 16, 2),
    f"{TORCH} int8": (8, 32, 4),
    f"{OPENVINO} fp32": (32, 32, 4),
    f"{OPENVINO} bf16": (16, 16, 2),
    f"{OPENVINO} int8": (8, 8, 4),
    f"{OPENVINO} int4": (4, 8, 4),
}
"""Engine and format -> bits of a weight in the layers and in the token table, bytes of a cached
value. torch's own package has no int4 product for a CPU."""
Format = Annotated[str, tuple(FORMATS)]
GROUP, LEAST_GROUP, SCALE_BITS = 128, 16, 16
"""Weights with one int4 scale: at most, at least; bits of a scale."""
INPUT_GROUP = 32
"""Channels of an input that OpenVINO rounds to 8 bits with one scale, as it does by default where
weights have 8 or 4 bits."""


class Decoder:
    """A model in one engine, with its cache: `nbytes` of weights.

    `feed(ids, positions)` takes more ids (B,T) after those it has seen and gives the logits (B,P,V)
    at these positions (P,) among them; `reset(B, n)` begins anew, with n zeros cached in B texts.
    """

    def __init__(
        self, name: str, feed: Callable, reset: Callable, nbytes: int, config: ModelConfig
    ):
        self.name, self.nbytes, self.config = name, nbytes, config
        self._feed, self._reset = feed, reset

    def reset(self, n_texts: Size, n_tokens: Count = 0) -> None:
        """Begin anew, with `n_tokens` in the cache whose keys and values are zeros, to time it."""
        self._reset(n_texts, n_tokens)

    def start(self, ids: Ids) -> Tensor:
        """A prompt (B,T) from the beginning: logits (B,V) of what comes next."""
        self.reset(len(ids))
        return self.step(ids)

    def step(self, ids: Ids) -> Tensor:
        """More tokens (B,T), usually one: logits (B,V) of what comes next."""
        return self._feed(ids, torch.tensor([ids.shape[1] - 1]))[:, 0]

    def __call__(self, ids: Ids) -> Tensor:
        """Logits (B,T,V) of whole texts, as a Transformer gives them."""
        self.reset(len(ids))
        return self._feed(ids, torch.arange(ids.shape[1]))


class _Step(nn.Module):
    """A model with its cache as inputs and outputs, for exporters: ids (B,T), positions (P,), then
    keys and values (B,G,S,D) of each layer -> logits (B,P,V), all keys and values."""

    def __init__(self, model: Transformer):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, positions: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        # None: what a window hides is masked, so that its tokens need not be counted apart
        cache = Cache([None] * (len(past) // 2))
        for layer, keys, values in zip(cache.layers, past[::2], past[1::2], strict=True):
            layer.keys, layer.values, layer.n_seen = keys, values, keys.shape[2]
        hidden = self.model.encode(ids, cache=cache).index_select(1, positions)
        present = [t for layer in cache.layers for t in (layer.keys, layer.values)]
        return self.model.embedding.logits(hidden), *present


def make_decoder(model: Transformer, name: Format) -> Decoder:
    """The model in one of `FORMATS`; of an encoder `feed` gives hidden states (B,P,C)."""
    latent = model.config.attention.latent
    require(latent is None, "attention.latent", latent, "None: keys and values of one width")
    engine, format = name.split()
    weights = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model = deepcopy(model, weights).eval()  # modules of its own, the same weights
    return (_in_torch if engine == TORCH else _in_openvino)(model, name, format)


def weight_bytes(config: ModelConfig, name: Format) -> int:
    """Bytes that a token reads of the weights in one of `FORMATS`, by formula; a table that is
    looked up alone is left out, an output counts as the table does."""
    of_layers, of_table = map(float, FORMATS[name][:2])
    if not config.tied and name == f"{TORCH} int8":
        of_table = of_layers  # an output of its own is a linear layer like the others
    if of_layers == 4:
        of_layers += SCALE_BITS / group_size(config)
    table = config.vocab_size * config.embed_dim
    if not config.causal:
        of_table = 0.0  # no logits: rows too few to count
    looked_up = table if config.causal and not config.tied else 0
    if config.positions == "learned":
        looked_up += config.max_len * config.embed_dim
    rest = cost.active_params(config) - table - looked_up
    return ceil((rest * of_layers + table * of_table) / 8)


def group_size(config: ModelConfig) -> int:
    """Weights with one int4 scale: the most up to 128 that divide every row of the layers."""
    size = gcd(GROUP, config.d_model, config.d_ff, config.n_head * config.head_dim)
    widths = f"widths that {LEAST_GROUP} divides, for groups of int4"
    require(size >= LEAST_GROUP, "d_model", config.d_model, widths)
    return size


# --- torch -----------------------------------------------------------------------------------


@torch.no_grad()
def _in_torch(model: Transformer, name: str, format: str) -> Decoder:
    own: dict[str, Callable] = {"fp32": lambda m: m, "bf16": lambda m: deepcopy(m).bfloat16()}
    own["int8"] = partial(torch_dynamic_int8, per_channel=True)
    run, c = own[format](model), model.config
    cache = run.new_cache() if c.causal else None

    def reset(n_texts: int, n_tokens: int) -> None:
        for layer in cache.layers if cache else ():
            n_kept = min(n_tokens, layer.window or n_tokens)
            shape = n_texts, c.n_kv_head, n_kept, c.head_dim
            layer.keys = layer.values = torch.zeros(shape, dtype=run.embedding.token.weight.dtype)
            layer.n_seen = n_tokens

    @torch.no_grad()
    def feed(ids: Tensor, positions: Tensor) -> Tensor:
        hidden = run.encode(ids, cache=cache)[:, positions]
        return (run.embedding.logits(hidden) if c.causal else hidden).float()

    return Decoder(name, feed, reset, weight_bytes(model.config, name), model.config)


# --- OpenVINO --------------------------------------------------------------------------------


def _in_openvino(model: Transformer, name: str, format: str) -> Decoder:
    with quiet(), no_progress():
        converted = _convert(model) if model.config.causal else openvino_model(model)
        converted = _compress(converted, format, model.config)
    request = _compile(converted, format).create_infer_request()
    is_causal = model.config.causal
    heads = [tuple(state.state.data.shape)[1::2] for state in request.query_state()]

    def reset(n_texts: int, n_tokens: int) -> None:
        tensor = load("openvino").Tensor
        for state, (n_head, width) in zip(request.query_state(), heads, strict=True):
            state.state = tensor(torch.zeros(n_texts, n_head, n_tokens, width).numpy())

    def feed(ids: Tensor, positions: Tensor) -> Tensor:
        mask = torch.ones_like(ids)
        result = request.infer([t.numpy() for t in (ids, positions if is_causal else mask)])[0]
        # copied, since the next call writes into the same memory
        result = torch.from_numpy(result.copy())
        return result if is_causal else result[:, positions]

    return Decoder(name, feed, reset, _constant_bytes(converted), model.config)


def _convert(model: Transformer) -> Any:
    """The model as an OpenVINO model that keeps its keys and values as its state."""
    ov, passes = load("openvino"), load("openvino.passes")
    ids, names = torch.zeros(2, 3, dtype=torch.int64), []
    cache = Cache([None] * model.config.n_layer)
    with torch.no_grad():
        model.encode(ids, cache=cache)
    past = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    inputs = (ids, torch.tensor([1, 2]), *past)
    # nothing may depend on the example's batch and lengths
    traced = torch.jit.trace(_Step(model).eval(), inputs, check_trace=False)
    converted = ov.convert_model(traced, example_input=inputs)
    shapes: dict[int, Any] = {0: ov.PartialShape([-1, -1]), 1: ov.PartialShape([-1])}
    for i, tensor in enumerate(past):
        _, n_head, _, width = tensor.shape
        shapes[2 + i] = ov.PartialShape([-1, n_head, -1, width])
        names.append((f"past.{i}", f"present.{i}"))
        converted.inputs[2 + i].get_tensor().set_names({names[i][0]})
        converted.outputs[1 + i].get_tensor().set_names({names[i][1]})
    converted.reshape(shapes)
    manager = passes.Manager()
    manager.register_pass(passes.MakeStateful(dict(names)))
    manager.run_passes(converted)
    return converted


def _compress(converted: Any, format: str, config: ModelConfig) -> Any:
    """Weights in 8 bits, or in 4 with the token table in 8 (NNCF); else as they are."""
    nncf = load("nncf")
    nncf.set_log_level(logging.ERROR)
    mode = nncf.CompressWeightsMode
    if format == "int8":
        return nncf.compress_weights(converted, mode=mode.INT8_SYM)
    if format == "int4":
        options = dict(group_size=group_size(config), ratio=1.0)
        return nncf.compress_weights(converted, mode=mode.INT4_SYM, **options)
    return converted


def _compile(converted: Any, format: str) -> Any:
    precision = "bf16" if format == "bf16" else "f32"
    hints = cpu_hints(precision) | {
        "KV_CACHE_PRECISION": precision,  # by default 8 bits
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": INPUT_GROUP if format.startswith("int") else 0,
    }
    return load("openvino").Core().compile_model(converted, "CPU", hints)


def _constant_bytes(converted: Any) -> int:
    """Bytes of an OpenVINO model's weights, scales included."""
    constants = (op for op in converted.get_ops() if op.get_type_name() == "Constant")
    return sum(op.get_byte_size() for op in constants)


check_module(__name__)
