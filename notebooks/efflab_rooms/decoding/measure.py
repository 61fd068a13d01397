"""What notebook 16 counts, runs and times: caches, formats, drafts, batches."""

import logging
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from efflab import bench, cost, evaluate, inference, points
from efflab.base.privacy import load
from efflab.bench import Timing
from efflab.compression.openvino import no_progress, quiet
from efflab.config import PRESETS, Attention, Latent, ModelConfig, Norms, from_hf
from efflab.conversion import transformers
from efflab.decoding.latent import LatentAttention
from efflab.devices import Device
from efflab.errors import require_int
from efflab.families import family
from efflab.model import Layer, Transformer

NOISE = 1e-3
"""Differences of logits below this are those of fp32's order of additions."""

Cache = dict[str, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v (B,H,T,D) of a text -> (B,H,T,D)."""
CachedAttend = Callable[[Tensor, Tensor, Tensor, Cache], Tensor]
"""q, k, v (B,H,1,D) of the newest token and its layer's cache -> (B,H,1,D)."""

# --- One token at a time ---------------------------------------------------------------------


def prompt_ids(n_tokens: int, n_texts: int = 1) -> Tensor:
    """(n_texts, n_tokens) of held-out source, from places spread evenly over it."""
    require_int("n_tokens", n_tokens, 1, 512)
    return torch.from_numpy(evaluate.held_out_windows(n_texts, 512))[:, :n_tokens]


def run_layer(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
    """A layer of x (B,T,C) whose attention is `attend(q, k, v)`, (B,H,T,D) each."""
    attention = layer.attention.body
    y = attend(*attention.heads(layer.attention.norm(x)))
    return layer.ffn(x + attention.out(y.transpose(1, 2).flatten(2)))


def step(token: Tensor, t: int, caches: list[Cache], attend: CachedAttend) -> Tensor:
    """`stdlib-gpt`'s logits (B,V) after one more token (B,) at position t; a cache per layer."""
    model = points.language_model()
    x = model.embedding.token(token)[:, None] + model.embedding.position.weight[t]
    for layer, cache in zip(model.layers, caches, strict=True):
        x = run_layer(layer, x, partial(attend, cache=cache))
    return model.embedding.logits(model.final_norm(x))[:, 0]


@torch.no_grad()
def decode(ids: Tensor, attend: CachedAttend) -> Tensor:
    """Logits (T,V) of ids (1,T), one token at a time."""
    caches: list[Cache] = [{} for _ in points.language_model().layers]
    return torch.cat([step(ids[:, t], t, caches, attend) for t in range(ids.shape[1])])


class Changed:
    """`stdlib-gpt` over whole texts with another attention, to be judged."""

    def __init__(self, attend: Attend):
        self.attend, self.config = attend, points.language_model().config

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        model = points.language_model()
        x = model.embedding(ids)
        for layer in model.layers:
            x = run_layer(layer, x, self.attend)
        return model.embedding.logits(model.final_norm(x))


def attend_alone(q: Tensor, k: Tensor, v: Tensor, cache: Cache) -> Tensor:
    """Without a cache: a token that sees only itself."""
    return v


def differences(ids: Tensor, attend: CachedAttend) -> Tensor:
    """(T,): the largest difference between a token's logits and those of the whole text at once."""
    with torch.no_grad():
        whole = points.language_model()(ids)[0]
    return (decode(ids, attend) - whole).abs().amax(-1)


@torch.no_grad()
def time_tokens(
    attend: CachedAttend, lengths: Iterable[int], repeats: int = 7
) -> dict[int, dict[str, Timing]]:
    """{length: {"whole text", "cached": Timing}} of the token after so many."""
    model, times = points.language_model(), {}
    for n in lengths:
        ids = prompt_ids(n)
        shape = (1, model.config.n_head, n - 1, model.config.d_model // model.config.n_head)
        full = [dict(k=torch.randn(shape), v=torch.randn(shape)) for _ in model.layers]
        calls = {
            "whole text": lambda ids=ids: model.embedding.logits(model.encode(ids)[:, -1:]),
            "cached": lambda ids=ids, n=n, full=full: step(
                ids[:, -1], n - 1, [dict(cache) for cache in full], attend
            ),
        }
        times[n] = bench.time_interleaved(calls, repeats=repeats)
    return times


# --- The same by libraries ---------------------------------------------------------------------


def compare_twins(ours: Tensor, twins: Mapping[str, Tensor]) -> list[dict]:
    """Rows: how far a library's output is from ours where they differ most; beyond rounding is an
    `AssertionError`."""
    apart = {name: (ours - theirs).abs().max().item() for name, theirs in twins.items()}
    assert max(apart.values()) < NOISE, apart
    return [{"library": name, "largest difference": far} for name, far in apart.items()]


def as_gpt2(model: Transformer):
    """A model like `stdlib-gpt` as `transformers`' GPT-2, whose linear maps are transposed."""
    library, c, weights = transformers(), model.config, {}
    library.logging.set_verbosity_error()
    sizes = dict(n_positions=c.max_len, n_embd=c.d_model, n_layer=c.n_layer, n_head=c.n_head)
    options = dict(activation_function=c.activation, bos_token_id=None, eos_token_id=None)
    config = library.GPT2Config(vocab_size=c.vocab_size, **sizes, **options)
    theirs = library.GPT2LMHeadModel(config).eval()
    table = family("gpt2")
    renames = {"layers.": "h."} | table["ends"] | table["weights"]
    for name, weight in model.state_dict().items():
        for ours, other in renames.items():
            name = name.replace(ours, other)
        weights[name] = weight.T if ".c_" in name and weight.ndim == 2 else weight
    theirs.transformer.load_state_dict(weights)
    return theirs


@torch.no_grad()
def latent_outputs(attend: Callable[..., Tensor], n_tokens: int = 40):
    """What the newest token gets in a DeepSeek-V3 layer of random weights, and {library: the same}.

    `attend(q, q_turned, c, k_turned, k_up, v_up)` is to attend; no position turns anything.
    """
    library, sizes = transformers(), dict(kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8)
    sizes |= dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=4, v_head_dim=16)
    options = library.DeepseekV3Config(**sizes, q_lora_rank=None, attn_implementation="eager")
    deepseek = load("transformers.models.deepseek_v3.modeling_deepseek_v3")
    theirs = deepseek.DeepseekV3Attention(options, 0).eval()
    shape = dict(attention=Attention(bias="none", latent=Latent(16, 16, 8, 16)), norm_eps=1e-6)
    config = ModelConfig(1, 4, 64, 64, 64, 64, causal=True, norms=Norms("rms", False), **shape)
    ours = LatentAttention(config, absorbed=False)
    ours.radians = [0.0] * len(ours.radians)
    names = dict(q_up="q_proj", kv_down="kv_a_proj_with_mqa", kv_norm="kv_a_layernorm")
    for own, other in (names | dict(kv_up="kv_b_proj", out="o_proj")).items():
        getattr(ours, own).load_state_dict(getattr(theirs, other).state_dict())
    x, turned = torch.randn(1, n_tokens, 64), torch.zeros(1, n_tokens, 8)
    mask = torch.full((n_tokens, n_tokens), -torch.inf).triu(1)[None, None]
    whole = {"efflab.decoding.latent": ours(x)}
    whole["transformers' DeepseekV3Attention"] = theirs(x, (turned + 1, turned), mask)[0]
    q = ours.q_up(x[:, -1:]).unflatten(-1, (4, -1)).transpose(1, 2).split([16, 8], -1)
    c, k_turned = ours.kv_down(x)[:, None].split([16, 8], -1)
    up = ours.kv_up.weight.unflatten(0, (4, -1)).split([16, 16], 1)
    y = ours.out(attend(*q, ours.kv_norm(c), k_turned, *up).transpose(1, 2).flatten(2))
    return y, {name: output[:, -1:] for name, output in whole.items()}


# --- Formats ---------------------------------------------------------------------------------

WIDTH, N_BLOCKS = 1280, 8
FORMAT_BITS = {"torch fp32": 32, "torch bf16": 16, "OpenVINO fp32": 32, "INT8": 8}
FORMAT_BITS |= {"INT4": cost.FORMATS["int4"]}


class Stack(nn.Module):
    """A decoder's linear layers, of random weights: (B,C) -> (B,C)."""

    def __init__(self, width: int = WIDTH, n_blocks: int = N_BLOCKS):
        super().__init__()
        pair = lambda: [nn.Linear(width, 4 * width, False), nn.Linear(4 * width, width, False)]  # noqa: E731
        self.layers = nn.ModuleList(layer for _ in range(n_blocks) for layer in pair())

    def forward(self, x: Tensor) -> Tensor:
        for up, down in zip(self.layers[::2], self.layers[1::2], strict=True):
            x = x + down(up(x).relu())
        return x


@torch.no_grad()
def engines(stack: Stack, x: Tensor) -> dict[str, Callable[[Tensor], object]]:
    """The stack by name of engine and format; OpenVINO compresses weights and rounds inputs."""
    nncf, openvino = load("nncf"), load("openvino")
    nncf.set_log_level(logging.ERROR)
    half = deepcopy(stack).bfloat16()
    found = {"torch fp32": stack, "torch bf16": lambda x: half(x.bfloat16())}
    mode = nncf.CompressWeightsMode
    ways = {"INT8": dict(mode=mode.INT8_SYM)}
    ways |= {"INT4": dict(mode=mode.INT4_SYM, group_size=128, ratio=1.0, all_layers=True)}
    with quiet(), no_progress():
        for name in ("OpenVINO fp32", *ways):
            model = openvino.convert_model(stack, example_input=x)
            if name in ways:
                model = nncf.compress_weights(model, **ways[name])
            options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            options |= {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
            compiled = openvino.Core().compile_model(model, "CPU", options)
            found[name] = lambda x, compiled=compiled: compiled(x.numpy())
    return found


@torch.no_grad()
def time_steps(
    calls: Mapping[str, Callable], sizes: Iterable[int] = (1,), repeats: int = 9
) -> dict[int, dict[str, Timing]]:
    """{texts: {engine: Timing}} of a step of so many texts side by side."""
    times = {}
    for n in sizes:
        x = torch.randn(n, WIDTH)
        own = {name: lambda call=call, x=x: call(x) for name, call in calls.items()}
        times[n] = bench.time_interleaved(own, repeats=repeats)
    return times


# --- Drafts ----------------------------------------------------------------------------------


@torch.no_grad()
def acceptance(draft: Callable[[Tensor], Tensor], n_windows: int = 4) -> float:
    """Mean over held-out tokens of the sum of min(p, q): the share of a draft's tokens accepted.

    (Leviathan et al. 2023, corollary 3.6.)
    """
    ids = torch.from_numpy(evaluate.held_out_windows(n_windows, 512))[:, :-1]
    p, q = (f(ids)[:, 256:].softmax(-1) for f in (points.language_model(), draft))
    return torch.minimum(p, q).sum(-1).mean().item()


def tokens_per_pass(accepted: float, n_draft: int) -> float:
    """Tokens that a pass of the target yields on average (Leviathan et al. 2023, equation 1)."""
    require_int("n_draft", n_draft, 1, 64)
    if accepted == 1:
        return n_draft + 1.0
    return (1 - accepted ** (n_draft + 1)) / (1 - accepted)


# --- Batches and serving ---------------------------------------------------------------------


def find_config(model: str) -> ModelConfig:
    """A preset, or what the path of a config.json says."""
    return PRESETS[model] if model in PRESETS else from_hf(model)


class Serving(NamedTuple):
    """A step of decoding at best: `batch` texts with `context` tokens of cache each."""

    weights: int
    cache: int
    read: int
    seconds: float
    fits: bool


def serve(config: ModelConfig, device: Device, context: int, batch: int, format: str) -> Serving:
    """Bytes that lie there and are read, and the least time: that of bytes or that of FLOPs."""
    weights = cost.weight_bytes(config, format)
    cache = cost.kv_cache_bytes(config, context, batch)
    read = inference.decode_bytes(config, context, batch, format=format)
    flops = inference.decode_flops(config, context, batch)
    # weights in fewer bits are multiplied in 16
    dtype = next(name for name in ("bf16", "fp16", "fp32") if name in device.peak_flops)
    seconds = cost.roofline_seconds(flops, read, device, dtype)
    room = device.memory_bytes or float("inf")
    return Serving(weights, cache, read, seconds, weights + cache <= room)
