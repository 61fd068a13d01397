"""What the playground's page runs: `stdlib-gpt` as a graph with its weights as inputs, and texts.

`run` and `surprise` are the reference: the page shows what they give for its settings. The first
page's strip shows some of it: how surprised the model is with fewer and fewer bits.
"""

import inspect
import json
import logging
import shlex
import statistics
import textwrap
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from math import ceil, log, prod
from pathlib import Path

import torch
from torch import Tensor, nn

from efflab import data, evaluate, points
from efflab.base.cache import get_or_make, key
from efflab.base.files import write_atomically
from efflab.base.json_files import parse_json
from efflab.base.places import DATA_DIR, ROOT
from efflab.compression import packed, pruning
from efflab.compression.openvino import quiet
from efflab.publishing.site.assets import Assets, npm_file
from efflab.publishing.site.templates import page_modules
from efflab.structure.window import window_mask
from efflab_rooms.pruning.measure import importance

GROUP = 64
SCALES: dict[str, dict] = {"tensor": {}, "row": {"axis": 0}, "group": {"group_size": GROUP}}
"""Which values share a scale: arguments of `affine.quantize`."""
MOST_TOKENS = 256
"""Tokens of a text that are scored."""
SOURCES = data.STDLIB_GPT, data.TOKENIZER_FILE, Path(__file__)
"""What is kept in build/ depends on these files."""
CHALLENGE = DATA_DIR / "playground.json"
ENGINE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
STRIP_BITS = (0, 8, 6, 5, 4, 3, 2)
"""Bits of a weight in each state of the strip; 0: as it was trained, in 32."""
SAMPLES = shlex.quote, statistics.median, textwrap.indent
"""Functions of held-out modules: the page's texts."""


@dataclass(frozen=True)
class Settings:
    """One position of the sliders; 0 is off."""

    bits: int = 0
    scale: str = "row"
    prune: float = 0.0
    heads: int = 0
    window: int = 0
    sinks: int = 0


# --- The model -------------------------------------------------------------------------------


class Graph(nn.Module):
    """`Transformer` written out: ids (1,T), visible pairs (T,T) -> logits, layers' attention."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, visible: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.model.embedding(ids), []
        for layer in self.model.layers:
            block = layer.attention
            q, k, v = block.body.heads(block.norm(x))
            scores = q @ k.mT * block.body.head_dim**-0.5
            maps.append(scores.masked_fill(~visible, -torch.inf).softmax(-1))
            x = layer.ffn(x + block.body.out((maps[-1] @ v).transpose(1, 2).flatten(2)))
        return self.model.embedding.logits(self.model.final_norm(x)), *maps


def removed_heads(n: int) -> dict[int, list[int]]:
    """The n least important heads, {layer: heads}; the best one of each layer stays."""
    return pruning.least_important(importance("heads"), n / importance("heads").numel())


def head_order() -> list[tuple[int, int]]:
    """(layer, head) in the order in which `removed_heads` takes them."""
    pairs = [{(i, h) for i, heads in removed_heads(n).items() for h in heads} for n in range(37)]
    return [pair for few, more in pairwise(pairs) for pair in more - few]


def lighten(settings: Settings) -> nn.Module:
    """`stdlib-gpt` without the heads, then pruned, then rounded, as the settings say."""
    model = points.language_model()
    model = pruning.prune_heads(model, removed_heads(settings.heads))
    prune = partial(pruning.magnitude_mask, ratio=settings.prune)
    model = pruning.apply_masks(model, pruning.weight_masks(model, prune))
    bits, grid = settings.bits, SCALES[settings.scale]
    codes = packed.quantize_weights(model, bits, embeddings=False, **grid) if bits else {}
    return packed.with_weights(model, codes)


def stored_bytes(model: nn.Module, settings: Settings) -> int:
    """Bytes of a model of `lighten`: packed codes and scales, all else in 32 bits.

    A pruned matrix is stored as what stays and one bit for each place, where that is smaller.
    """
    total = points.weight_bytes(model)
    for shape in (w.shape for w in packed.weight_matrices(model, embeddings=False).values()):
        n, width = prod(shape), settings.bits or 32
        n_scales = {"tensor": 1, "row": shape[0], "group": shape[0] * ceil(shape[1] / GROUP)}
        scales = 4 * n_scales[settings.scale] if settings.bits else 0
        dense, some = ceil(n * width / 8), ceil((n - round(settings.prune * n)) * width / 8)
        total += min(dense, ceil(n / 8) + some) + scales - 4 * n
    return total


def visible_pairs(n: int, settings: Settings) -> Tensor:
    """Which token (row) sees which (n,n): itself, `window` before it, and the first `sinks`."""
    near = window_mask(n, settings.window or n, causal=True)
    return (near | (torch.arange(n) < settings.sinks)) & window_mask(n, n, causal=True)


# --- The reference ---------------------------------------------------------------------------


@torch.no_grad()
def run(model: nn.Module, settings: Settings, text: str) -> tuple[Tensor, Tensor]:
    """(logits (T,V), ids that they should give (T,)) of a text's first `MOST_TOKENS` tokens."""
    ids = torch.from_numpy(data.tokens_of([text]))[: MOST_TOKENS + 1]
    logits, *_ = Graph(model)(ids[None, :-1], visible_pairs(len(ids) - 1, settings))
    return logits[0], ids[1:]


def surprise(logits: Tensor, ids: Tensor) -> tuple[Tensor, float]:
    """Bits that each of the ids (T,) costs by logits (T,V), and all of them per byte."""
    bits = nn.functional.cross_entropy(logits, ids, reduction="none") / log(2)
    return bits, bits.sum().item() / evaluate.token_bytes()[ids].sum()


# --- The page's files ------------------------------------------------------------------------


def export() -> bytes:
    """The graph (ONNX): inputs ids, visible and each weight; logits and each layer's attention."""
    graph = Graph(points.language_model())
    names, weights = zip(*graph.named_parameters(), strict=True)

    class Inputs(nn.Module):
        def forward(self, ids, visible, *values):
            parameters = dict(zip(names, values, strict=True))
            return torch.func.functional_call(graph, parameters, (ids, visible))

    n, ids = torch.export.Dim.DYNAMIC, torch.zeros(1, MOST_TOKENS, dtype=torch.int32)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of torchvision, which is not needed
    with quiet():
        program = torch.onnx.export(
            Inputs().eval(),
            (ids, visible_pairs(MOST_TOKENS, Settings()), *(w.detach() for w in weights)),
            dynamo=True,
            verbose=False,
            input_names=["ids", "visible", *names],
            output_names=["logits", *(f"attention.{i}" for i in range(len(graph.model.layers)))],
            dynamic_shapes=({1: n}, {0: n, 1: n}, tuple({} for _ in names)),
        )
    return program.model_proto.SerializeToString()


def describe() -> bytes:
    """JSON: each weight's name, shape and whether it is linear; heads' order; the tokenizer."""
    model = points.language_model()
    linear = packed.weight_matrices(model, embeddings=False)
    bpe = parse_json(data.TOKENIZER_FILE.read_bytes())["model"]
    description = dict(
        parameters=[(name, list(p.shape), name in linear) for name, p in model.named_parameters()],
        order=head_order(),
        config=asdict(model.config),
        vocabulary=sorted(bpe["vocab"], key=bpe["vocab"].__getitem__),
        merges=[" ".join(pair) for pair in bpe["merges"]],
    )
    return json.dumps(description).encode()


def model_files() -> dict[str, bytes]:
    """{name: content} of the graph, of the weights in 16 bits, and of what describes them.

    All low bytes of the weights come before all high ones: so they compress better. Graph and
    description are kept in build/ for this checkpoint.
    """
    files = {}
    stamp = key(SOURCES)
    for name, make in {"graph.onnx": export, "model.json": describe}.items():
        path = ROOT / "build" / "playground" / f"{stamp}-{name}"
        if not path.exists():
            write_atomically(path, make())
        files[name] = path.read_bytes()
    halves = torch.cat([p.detach().half().flatten() for p in points.language_model().parameters()])
    return files | {"weights.bin": halves.view(torch.uint8).view(-1, 2).T.numpy().tobytes()}


def page_values(assets: Assets) -> dict | None:
    """What the page's template needs, with its files added; None where `make setup` had no npm."""
    engine, wasm = (npm_file("onnxruntime-web", f"dist/{name}") for name in ENGINE)
    if engine is None or wasm is None:
        return None
    code = page_modules("playground") | {"ort.mjs": engine}
    files = {
        name.split(".")[0]: assets.add(name, content, packed=True)
        for name, content in (model_files() | {"engine.wasm": wasm}).items()
    }
    page_data = dict(
        files=files,
        packedBytes=sum((assets.target / place).stat().st_size for place in files.values()),
        texts=[
            dict(name=f"{f.__module__}.{f.__name__}", text=inspect.getsource(f)) for f in SAMPLES
        ],
        mostTokens=MOST_TOKENS,
        challenge=parse_json(CHALLENGE.read_bytes()),
    )
    return dict(code=assets.add_folder("playground", code), page_data=page_data)


# --- The first page's strip ------------------------------------------------------------------


def read_strip() -> dict:
    """As `make_strip` gives it, computed once for this checkpoint."""
    return get_or_make(ROOT / "build", "strip", SOURCES, make_strip)


def make_strip() -> dict:
    """{"tokens", "states": [{"bits", "score" (bits per byte), "bytes", "surprise" (bits)}]}."""
    text = inspect.getsource(SAMPLES[0])
    decode = data.tokenizer().decode
    tokens = [decode([int(i)]) for i in data.tokens_of([text])[1:]]
    return dict(tokens=tokens, states=[_state(Settings(bits=bits), text) for bits in STRIP_BITS])


def _state(settings: Settings, text: str) -> dict:
    model = lighten(settings)
    bits, score = surprise(*run(model, settings, text))
    size, rounded = stored_bytes(model, settings), [round(b, 1) for b in bits.tolist()]
    return dict(bits=settings.bits, score=score, bytes=size, surprise=rounded)
