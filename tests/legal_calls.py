"""A legal call of every public function of the core and the chapters, found by introspection.

An argument's example goes by the function, `BY_FUNCTION`, by its name, `BY_NAME`, or else by its
annotation, `BY_TYPE`. What has a default keeps it.
"""

import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.stats  # noqa: F401  # no first import may be cut off by a time limit
import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo
from torch import nn

import efflab
from efflab import cache as cache_of_keys
from efflab import config, devices, estimate, evaluate, model, rules, tensors
from efflab.acceleration import block, graph, precision, recipes
from efflab.compression.decoders import make_decoder

CHAPTERS = ("structure", "acceleration", "compression", "distributed", "decoding")
PARTS = ("legal_compression", "legal_distributed", "legal_core", "legal_decoding")
OUTSIDE = {
    *("cli", "rank", "many_machines", "process"),
    *("arguments", "errors", "rules", "tensors", "fields"),
}
"""Commands and ends of pipes between processes; what the checks are made of; what reads a
`config.json` for `families`, by a table that no caller passes."""


@dataclass(frozen=True)
class Target:
    """A public function, constructor or method, and its name: "structure.window.window_mask"."""

    name: str
    fn: Callable
    owner: type | None = None

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Its arguments without `self`."""
        found = inspect.signature(self.fn).parameters
        return {name: p for name, p in found.items() if name not in ("self", "cls")}


def modules() -> Iterator[Any]:
    for found in pkgutil.walk_packages(efflab.__path__, "efflab."):
        path = found.name.split(".")[1:]
        is_ours = len(path) == 1 or path[0] in CHAPTERS
        if is_ours and not found.ispkg and not OUTSIDE & set(path):
            yield importlib.import_module(found.name)


def targets() -> Iterator[Target]:
    for module in modules():
        for name, item in list(vars(module).items()):
            if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
                continue
            qualified = f"{module.__name__.removeprefix('efflab.')}.{name}"
            if inspect.isfunction(item):
                yield Target(qualified, item)
            elif inspect.isclass(item) and is_made(item):
                yield from _of_class(qualified, item)


def is_made(owner: type) -> bool:
    """Whether a caller makes one: not of what only says what is expected, nor of named tuples."""
    return not issubclass(owner, tuple | Exception) and not getattr(owner, "_is_protocol", False)


def _of_class(qualified: str, owner: type) -> Iterator[Target]:
    if "__init__" in vars(owner):
        yield Target(qualified, owner)
    for name in list(vars(owner)):
        fn = getattr(owner, name)
        if not name.startswith("_") and (inspect.isfunction(fn) or inspect.ismethod(fn)):
            yield Target(f"{qualified}.{name}", fn, None if inspect.ismethod(fn) else owner)


def legal_arguments(target: Target) -> dict[str, Any]:
    """By name, fresh ones; a `KeyError` names an argument for which there is no example."""
    given = {}
    own = BY_FUNCTION.get(target.name, {})
    for name, p in target.parameters.items():
        if name in own:
            given[name] = own[name]()
        elif p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            given[name] = BY_NAME[name]() if name in BY_NAME else example(annotations(target)[name])
    return given


def annotations(target: Target) -> dict[str, Any]:
    fn = target.fn.__init__ if inspect.isclass(target.fn) else target.fn
    return typing.get_type_hints(fn, include_extras=True)


def example(annotation: Any) -> Any:
    """Of a class of ours, and of what holds values, made of examples of its parts."""
    if annotation in BY_TYPE:
        return BY_TYPE[annotation]()
    origin, within = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated and isinstance(within[1], tuple):
        return within[1][0]
    if type(None) in within:
        return None
    if origin is tuple:
        return tuple(example(a) for a in within if a is not ...)
    if origin in (dict, Mapping):
        return {example(within[0]): example(within[1])}
    if origin in (list, Sequence, Iterable):
        return [example(within[0])]
    if origin is Callable:
        return BY_TYPE[Callable]()
    if inspect.isclass(annotation) and annotation.__module__.startswith("efflab"):
        return instance(annotation)
    raise KeyError(annotation)


def call(target: Target, given: dict[str, Any]) -> Any:
    """Call it, and use up what it gives piece by piece."""
    found = [instance(target.owner)] if target.owner else []
    given = dict(given)
    for name, p in target.parameters.items():
        if p.kind is p.POSITIONAL_ONLY:
            found.append(given.pop(name))
        elif p.kind is p.VAR_POSITIONAL and name in given:
            found += [given.pop(n) for n in list(target.parameters) if n in given and n != name]
            found += given.pop(name)
    result = target.fn(*found, **given)
    if hasattr(result, "__enter__") and not isinstance(result, torch.Tensor):
        with result:
            return None
    return list(result) if inspect.isgenerator(result) else result


def instance(owner: type) -> Any:
    """One to call methods on."""
    name = f"{owner.__module__.removeprefix('efflab.')}.{owner.__name__}"
    return BY_OWNER.get(name, lambda: owner(**legal_arguments(Target(name, owner))))()


# --- Examples ------------------------------------------------------------------------------------

CONFIG = config.ModelConfig(2, 2, 8, 16, 20, 12, causal=True)
A100 = devices.DEVICES["A100 80GB SXM"]


@cache
def _model() -> model.Transformer:
    torch.manual_seed(0)
    return model.Transformer(CONFIG).eval()


def tensor(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(0))


def ids(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.ones(shape, dtype=torch.long)


def just(value: Any) -> Callable[[], Any]:
    return lambda: value


def make(path: str, **options: Any) -> Callable[[], Any]:
    """A maker of "structure.mixer.MixerConfig" with its examples, and these."""

    def made() -> Any:
        module, name = path.rsplit(".", 1)
        fn = getattr(importlib.import_module(f"efflab.{module}"), name)
        return fn(**legal_arguments(Target(path, fn)) | options)

    return made


BY_TYPE: dict[Any, Callable[[], Any]] = {
    int: just(2),
    float: just(0.5),
    bool: just(True),
    str: just("text"),
    bool | None: just(None),
    int | None: just(None),
    float | None: just(None),
    Any: just(None),
    torch.Tensor: tensor(4, 4),
    tensors.Ids: ids(1, 4),
    tensors.Mask: ids(1, 4),
    tensors.Heads: tensor(1, 2, 4, 4),
    tensors.Hidden: tensor(1, 4, 8),
    tensors.Images: tensor(1, 3, 8, 8),
    tensors.Maps: tensor(1, 4, 4, 8),
    tensors.NumberMaps: tensor(1, 4, 4, 8),
    tensors.Matrix: tensor(4, 4),
    tensors.IntegerMatrix: ids(4, 4),
    tensors.Vector: tensor(4),
    tensors.Integers: ids(4),
    tensors.Numbers: tensor(4),
    tensors.Layout: lambda: torch.eye(2, dtype=torch.bool),
    nn.Module: _model,
    nn.Linear: lambda: nn.Linear(4, 4),
    model.Transformer: _model,
    evaluate.LanguageModel: _model,
    config.ModelConfig: just(CONFIG),
    devices.Device: just(A100),
    rules.Size: just(2),
    rules.Count: just(1),
    graph.Op: just(graph.Op("sum", "add", {"x": 4}, 4)),
    graph.Kernel: just(graph.Kernel("kernel", "fusion", ("add",), ("x",), 8)),
    rules.Positive: just(0.5),
    rules.NonNegative: just(0.5),
    rules.Infinite: just(2.0),
    rules.Array: tensor(4, 4),
    estimate.Values: just([1.0, 2.0, 3.0]),
    list[float]: just([1.0]),
    Sequence[float]: just([0.25, 0.5]),
    Sequence: just([]),
    Sequence[int]: just([1, 2]),
    Sequence[int] | np.ndarray: just(np.arange(9)),
    Path: just(Path("nowhere")),
    Callable: just(len),
    Callable[[], object]: just(int),
    Hashable: just("name"),
    Mapping: just({}),
    dict: just({}),
    str | bytes: just("text"),
    list | Mapping: just([1, 2]),
    str | Path: just("nowhere"),
    type[nn.Module]: just(nn.BatchNorm1d),
    np.ndarray: just(np.arange(9)),
    str | bytes: just("text"),
    tensors.AnyTensor: tensor(4),
    nn.Embedding: lambda: nn.Embedding(4, 4),
}
SCHEDULE = just("gpipe")
BATCHES = just([(torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))])
ATTENTION = {"d_model": just(8), "n_head": just(2)}
ENCODER = config.ModelConfig(2, 2, 8, 16, 20, 12, pooler=True)


def encoder() -> model.Transformer:
    torch.manual_seed(0)
    return model.Transformer(ENCODER).eval()


def _images(kind: str) -> Callable[[], Any]:
    sizes = {"mixer.MLPMixer": (8, 4, 1, 8, 4, 8, 3), "vit.ViT": (8, 4, 1, 2, 8, 16, 3)}[kind]
    module, name = kind.split(".")
    return lambda: getattr(importlib.import_module(f"efflab.structure.{module}"), name)(*sizes)


def _layer_cache() -> cache_of_keys.LayerCache:
    cache = cache_of_keys.LayerCache()
    cache.extend(*(torch.ones(1, 2, 4, 4),) * 2)
    return cache


def _model_cache() -> cache_of_keys.Cache:
    cache = _model().new_cache()
    _model()(torch.ones(1, 4, dtype=torch.long), cache=cache)
    return cache


def _block_weights() -> dict:
    return block.weights(block.plain_layer(8, 4, 2)[0], 4)


BY_NAME: dict[str, Callable[[], Any]] = {
    "batches": BATCHES,
    "dataflow": just("ws"),
    "damp": just(0.01),
    "dtype": just("fp16"),
    "layout": just("csr"),
    "n_head": just(2),
    "recompute": just("none"),
    "schedule": SCHEDULE,
    "sources": just([Path(__file__)]),
    "split": just("train"),
    "types": just(("fp16",)),
    "value": just(3),
}
BY_FUNCTION: dict[str, dict[str, Callable[[], Any]]] = {
    "acceleration.block.block": {"x": tensor(1, 4, 8), "w": _block_weights},
    "acceleration.block.gelu": {"x": tensor(4, 4)},
    "acceleration.block.layer_norm": {"x": tensor(4, 4), "weight": tensor(4), "bias": tensor(4)},
    "acceleration.block.weights": {"layer": lambda: block.plain_layer(8, 4, 2)[0]},
    "acceleration.block.plain_layer": {"d_model": just(8), "n_head": just(2)},
    "acceleration.block.softmax": {"scores": tensor(4, 4)},
    "acceleration.block_formats.quantize": {"x": tensor(2, 32)},
    "acceleration.fpga.simulate": {
        "a": just(np.ones((2, 2), np.int8)),
        "b": just(np.ones((2, 2), np.int8)),
    },
    "acceleration.fusion.call_seconds": {"calls": just({"one": int})},
    "acceleration.fusion.chain": {"x": tensor(4)},
    "acceleration.fusion.attention_bytes": {"fused": just("none")},
    "acceleration.precision.every_value": {"name": just("bf16")},
    "bench.saved_bytes": {"inputs": just([torch.ones(1, 4, dtype=torch.long)])},
    "bench.peak_bytes": {"device": just("cpu")},
    "cost.crossing_length": {"against": just("ffn")},
    "cost.weight_bytes": {"format": just("bf16")},
    "base.published.read_published": {"name": just("devices")},
    "data.recall_batch": {"seq_len": just(8)},
    "estimate.Estimate.widened": {"mean": just(1.0), "low": just(0.0), "high": just(2.0)},
    "model.Transformer.generate": {"n_new": just(1)},
    "structure.linformer.linformer_attention": {"E": tensor(1, 2, 4), "F": tensor(1, 2, 4)},
    "grouped.GatedFeedForward": {"d_model": just(8), "act": nn.GELU},
    "grouped.GatedFeedForward.forward": {"x": tensor(1, 4, 8)},
    "rope.turn": {"by": tensor(2, 4, 2)},
    "model.activation_fn": {"activation": just("gelu")},
    "model.Attention": ATTENTION,
    "model.FeedForward": {"d_model": just(8)},
    "model.FeedForward.forward": {"x": tensor(1, 4, 8)},
    "model.SubBlock": {"body": nn.Identity},
    "model.SubBlock.forward": {"x": tensor(1, 4, 8)},
    "embedding.Embedding.logits": {"x": tensor(1, 4, 8)},
    "embedding.Embedding.lookup": {"table": lambda: nn.Embedding(4, 4)},
    "structure.adaptive_span.AdaptiveSpanAttention": ATTENTION | {"max_span": just(4)},
    "structure.adaptive_span.AdaptiveSpanAttention.find_spans": {"x": tensor(1, 4, 8)},
    "structure.adaptive_span.learned_spans": {
        "model": make("structure.adaptive_span.AdaptiveSpanAttention")
    },
    "structure.adaptive_span.from_attention": {
        "attention": lambda: model.Attention(8, 2, causal=True)
    },
    "structure.bigbird.bigbird_layout": {"n_window": just(1)},
    "structure.swin.swin_counts": {
        "channels": just(96),
        "depths": just((2, 2)),
        "window_size": just(7),
        "image": just(224),
    },
    "structure.bigbird.block_sparse_attention": {"layout": BY_TYPE[tensors.Layout]},
    "structure.bigbird.token_mask": {"layout": BY_TYPE[tensors.Layout]},
    "structure.bigbird.hops": {"layout": BY_TYPE[tensors.Layout]},
    "structure.bigbird.pieces": {"layout": BY_TYPE[tensors.Layout]},
    "train.language_model_loss": {"model": _model},
    "structure.dynamic_conv.band_matrix": {"kernels": tensor(4, 3)},
    "structure.dynamic_conv.convolve": {"x": tensor(1, 4, 8), "kernels": tensor(1, 1, 2, 3)},
    "structure.dynamic_conv.DynamicConv": {"d_model": just(8)},
    "structure.dynamic_conv.LightweightConv": {"d_model": just(8)},
    "structure.dynamic_conv.DynamicConv.kernels": {"values": tensor(1, 4, 8)},
    "structure.dynamic_conv.replace_attention": {"make": just(lambda attention: attention)},
    "structure.linformer.LinformerAttention": ATTENTION | {"max_len": just(4)},
    "structure.linformer.LinformerAttention.forward": {"x": tensor(1, 4, 8)},
    "structure.linformer.linformer": {"model": encoder, "max_len": just(12)},
    "structure.mixer.PatchEmbedding": {"channels": just(3)},
    "structure.mixer.MixerLayer": {"n_patches": just(4), "d_model": just(8)},
    "structure.mixer.MLPMixer": {"sizes": just([8, 4, 1, 8, 4, 8, 3])},
    "structure.vit.ViT": {"sizes": just([8, 4, 1, 2, 8, 16, 3])},
    "structure.mixer.enlarge": {"mixer": _images("mixer.MLPMixer"), "factor": just(2)},
    "structure.sharing.share_layers": {"what": just("ffn")},
    "structure.swin.from_windows": {
        "windows": tensor(1, 4, 4, 8),
        "height": just(4),
        "width": just(4),
    },
    "structure.swin.WindowAttention": {"d_model": just(8)},
    "structure.swin.WindowAttention.forward": {"x": tensor(1, 4, 4, 8)},
    "structure.window.SlidingAttention": {"attention": lambda: model.Attention(8, 2)},
    # parsed once, in seconds, before calls are cut off
    "data.documented_functions": {"methods": just(True)},
    "evaluate.half_window_nats": {"model": _model},
    "train.token_loss": {"logits": tensor(4, 4)},
    "train.classification_loss": {"model": lambda: nn.Linear(4, 4), "inputs": tensor(4, 4)},
    "train.Muon": {"parameters": lambda: [nn.Parameter(torch.ones(2, 2))]},
}
BY_OWNER: dict[str, Callable[[], Any]] = {
    "acceleration.block.Namespace": lambda: block.torch_namespace(),
    "acceleration.precision.FloatFormat": lambda: precision.FORMATS["fp8_e4m3fn"],
    "acceleration.recipes.Recipe": lambda: recipes.RECIPES["fp32"],
    "cache.LayerCache": _layer_cache,
    "compression.decoders.Decoder": lambda: make_decoder(_model(), "torch fp32"),
    "cache.Cache": lambda: _model_cache(),
    "model.Transformer": _model,
    "devices.Device": just(A100),
    "model.Layer": lambda: _model().layers[0],
    "structure.mixer.MLPMixer": _images("mixer.MLPMixer"),
    "structure.vit.ViT": _images("vit.ViT"),
}

# --- Only refused --------------------------------------------------------------------------------

NOT_CALLED = re.compile(
    r"""on_rank|\brank\b|launch|parallelize|ParallelLinear|distributed.*_ranks$|\bring|onnx
    |openvino|torchao|language_file|compile_openvino|convert_language
    |calibration.calibration|xla|inductor|synth|netlist|plan_fit
    |points|load_encoder|load_minilm|privacy.load|replacing|stages|zero\.
    |distributed.*train|train\.(token|class|Muon|fit|grad)|corpus|stdlib|learned_spans
    |alone|average_grad|log_mask|call_seconds|load_renamed
    |map_on_threads|Transformer.pool|bench.calibrate|window_bits|bits_
    |profile.profiler_table|layer_norm""",
    re.VERBOSE,
)
"""What needs ranks, a compiler, files or seconds: its bad arguments are thrown, no legal one."""

for part in map(importlib.import_module, PARTS):
    BY_TYPE |= part.BY_TYPE
    BY_NAME |= part.BY_NAME
    BY_FUNCTION |= part.BY_FUNCTION
    BY_OWNER |= part.BY_OWNER
