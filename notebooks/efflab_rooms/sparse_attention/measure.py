"""Notebook 03's numbers: growth with the length, Swin on images, and who recalls what."""

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from efflab import bench, pretrained, train
from efflab.config import ModelConfig
from efflab.data import digits, recall_batch
from efflab.errors import require
from efflab.estimate import Estimate
from efflab.experiments import attention_bench
from efflab.lab import tr
from efflab.model import Transformer, attention_written_out
from efflab.structure.bigbird import bigbird_layout, hops
from efflab.structure.swin import WindowAttention
from efflab.structure.window import sliding_window_attention

N_HEAD, HEAD_DIM = 4, 64
FULL, WINDOW, WRITTEN = "full attention (SDPA)", "sliding window", "scores written out"
SWIN, BIGBIRD = "Swin: windows of 16 x 16 pixels", "BigBird: all three"
SIDE = 16  # of a window that sees about as many keys as 128 tokens on each side

# --- Time and memory over the length ---------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """What each implementation took at one length, by name: times, and MiB beyond q, k, v."""

    seq_len: int
    times: dict[str, bench.Timing]
    mib: dict[str, float]


def heads(seq_len: int) -> list[Tensor]:
    """Random q, k, v, (1, 4, T, 64) each."""
    return [x[:, :N_HEAD] for x in attention_bench.heads(seq_len)]


def lengths_up_to(max_len: int, per_doubling: int = 1) -> list[int]:
    """From max_len / 8 to itself, three doublings, in whole windows of 16 x 16 pixels."""
    require(max_len >= 2048, "max_len", max_len, "at least 2,048 tokens")
    lengths = [max_len * 2 ** (i / per_doubling - 3) for i in range(3 * per_doubling + 1)]
    return sorted({int(n) // SIDE**2 * SIDE**2 for n in lengths})


@torch.no_grad()
def growth(implementations: dict, lengths: list[int], repeats: int = 7) -> list[Costs]:
    """Interleaved times and memory of `{name: attend(q, k, v)}` at each length, 4 heads of 64."""
    results = []
    for n in lengths:
        qkv = heads(n)
        calls = {name: partial(attend, *qkv) for name, attend in implementations.items()}
        times = bench.time_interleaved(calls, warmup=1, repeats=repeats)
        mib = {name: bench.peak_bytes(call) / 2**20 for name, call in calls.items()}
        results.append(Costs(n, times, mib))
    return results


@torch.no_grad()
def written_out_mib(seq_len: int) -> float:
    """MiB of attention with its scores in memory.

    Measured up to 4,096 tokens; beyond, two n x n matrices a head at once, by arithmetic.
    """
    if seq_len > 4096:
        return 2 * 4 * N_HEAD * seq_len**2 / 2**20
    return bench.peak_bytes(partial(attention_written_out, *heads(seq_len))) / 2**20


@lru_cache(maxsize=8)
def long_layout(seq_len: int) -> Tensor:
    """BigBird's layout for a long text: 2 global, 3 window and 3 random blocks of 64 tokens."""
    return bigbird_layout(seq_len // attention_bench.BLOCK, n_global=2, n_window=3, n_random=3)


def image_shape(seq_len: int) -> tuple[int, int]:
    """Height and width, in whole windows, of the squarest image of `seq_len` pixels."""
    n_windows = seq_len // SIDE**2
    require(seq_len == n_windows * SIDE**2 > 0, "seq_len", seq_len, f"a multiple of {SIDE**2}")
    rows = next(n for n in range(math.isqrt(n_windows), 0, -1) if n_windows % n == 0)
    return SIDE * rows, SIDE * (n_windows // rows)


def exponent(lengths: list[int], values: list[float]) -> Estimate:
    """p of the power law n^p through `values`, by least squares in logarithms.

    The interval is the fit's own (Student's t): wide where few lengths scatter. Two lengths lie on
    a line whatever they are, and would seem certain.
    """
    from scipy import stats

    require(len(lengths) >= 3, "lengths", lengths, "three lengths or more")
    fit = stats.linregress([math.log(n) for n in lengths], [math.log(v) for v in values])
    half = float(stats.t.ppf(0.975, len(lengths) - 2)) * float(fit.stderr)
    return Estimate(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)


def time_exponent(costs: list[Costs], name: str) -> Estimate:
    """The exponent of an implementation's median time over the length."""
    return exponent([c.seq_len for c in costs], [c.times[name].median for c in costs])


@torch.no_grad()
def time_over_flex(seq_len: int = 4096, repeats: int = 5) -> float | None:
    """Our window's time over compiled FlexAttention's, measured here.

    None where FlexAttention cannot be compiled, which takes a C++ compiler.
    """
    qkv = attention_bench.heads(seq_len)
    flex = attention_bench.flex(*qkv)
    ours = partial(sliding_window_attention, *qkv, attention_bench.WINDOW)
    try:
        torch.testing.assert_close(flex(), ours(), atol=1e-4, rtol=1e-4)
        times = bench.time_interleaved({"ours": ours, "flex": flex}, warmup=1, repeats=repeats)
        return times["ours"].ratio(times["flex"])
    except RuntimeError as error:  # torch's own message names what it misses
        print(tr("FlexAttention cannot be compiled here: {why}", why=str(error).splitlines()[0]))
        return None


# --- Swin: windows over an image -------------------------------------------------------------

IMAGE_WINDOW = 4  # two by two windows on an 8 x 8 digit
PIXEL = (1, 1)  # the one that changes, in the top-left window


def transformers_gap(height: int = 8, width: int = 20, shift: int = 2) -> dict[str, float]:
    """Largest difference to `transformers`' Swin layer with the same weights, on a wide image.

    Of the layer's output, of the gradient of its input, and of that of its bias table.
    """
    config = pretrained.transformers().SwinConfig(window_size=IMAGE_WINDOW, drop_path_rate=0.0)
    from transformers.models.swin.modeling_swin import SwinLayer

    torch.manual_seed(0)
    C, n_head = 24, 3
    config._attn_implementation = "eager"
    theirs = SwinLayer(config, C, (height, width), n_head, shift_size=shift)
    table = theirs.attention.relative_position_bias.relative_position_bias_table
    nn.init.normal_(table)
    ours = WindowAttention(C, n_head, IMAGE_WINDOW, shift)
    projections = [getattr(theirs.attention, f"{name}_proj") for name in "qkv"]
    ours.qkv.weight.data = torch.cat([p.weight.data for p in projections])
    ours.qkv.bias.data = torch.cat([p.bias.data for p in projections])
    ours.out.load_state_dict(theirs.attention.o_proj.state_dict())
    ours.bias_table.data = table.data.clone()
    x = torch.randn(2, height * width, C, requires_grad=True)
    expected, _ = theirs(x, (height, width))
    y = x + ours(theirs.layernorm_before(x).view(2, height, width, C)).flatten(1, 2)
    y = y + theirs.mlp(theirs.layernorm_after(y))
    weight = torch.randn_like(y)
    their_grads = torch.autograd.grad((expected * weight).sum(), (x, table))
    our_grads = torch.autograd.grad((y * weight).sum(), (x, ours.bias_table))
    names = ("output", "gradient of the input", "gradient of the bias table")
    pairs = zip(names, (y, *our_grads), (expected, *their_grads), strict=True)
    return {name: (a - b).abs().max().item() for name, a, b in pairs}


@torch.no_grad()
def pixel_changes(shifts: tuple[int, ...], d_model: int = 16) -> Tensor:
    """How much each pixel of a digit changes after window layers when `PIXEL` does: (8,8).

    Residual layers of these shifts with random weights; 0 means that no information arrived.
    """
    torch.manual_seed(0)
    layers = [WindowAttention(d_model, 2, IMAGE_WINDOW, shift) for shift in shifts]
    images = digits()[0][:1].repeat(2, 1, 1)
    images[1][PIXEL] = 1 - images[1][PIXEL]
    x = images[..., None] * torch.linspace(-1, 1, d_model)  # (2,8,8,C)
    for layer in layers:
        x = x + layer(F.layer_norm(x, (d_model,)))
    return (x[0] - x[1]).norm(dim=-1)


class CornerReader(nn.Module):
    """Reads a digit off its top-left window alone after the layers: (B,8,8) -> (B,10)."""

    def __init__(self, shifts: tuple[int, ...], d_model: int = 32):
        super().__init__()
        self.lift = nn.Linear(1, d_model)
        self.position = nn.Parameter(torch.randn(8, 8, d_model) / 2)
        self.layers = nn.ModuleList(WindowAttention(d_model, 4, IMAGE_WINDOW, s) for s in shifts)
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in shifts)
        self.head = nn.Linear(d_model * IMAGE_WINDOW**2, 10)

    def forward(self, images):
        x = self.lift(images[..., None]) + self.position
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + F.gelu(layer(norm(x)))
        return self.head(x[:, :IMAGE_WINDOW, :IMAGE_WINDOW].flatten(1))


@bench.one_thread()
def corner_accuracy(shifts: tuple[int, ...], n_steps: int = 120, seed: int = 0) -> float:
    """Test accuracy of a `CornerReader` after `n_steps` batches of 32 digits."""
    images, labels, test_images, test_labels = digits()
    torch.manual_seed(seed)
    model = CornerReader(shifts)

    def batch(step: int) -> train.Batch:
        rng = torch.Generator().manual_seed(seed * 10**6 + step)
        rows = torch.randint(len(images), (32,), generator=rng)
        return images[rows], labels[rows]

    train.fit(model, batch, n_steps, lr=5e-3, loss_fn=train.classification_loss)
    return accuracy(model, test_images, test_labels)


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of the inputs whose largest logit is the label's."""
    return (model(inputs).argmax(-1) == labels).float().mean().item()


# --- Recall: 48 tokens in 12 blocks of 4, three layers ---------------------------------------

SEQ_LEN, BLOCK, N_LAYER, DISTANCE, N_SYMBOLS = 48, 4, 3, 40, 8
DISTANCES = (4, 8, 12, 16, 20, 24, 25, 28, 32, DISTANCE)
N_TEXTS, N_SEEDS = 512, 3
LAYOUTS = {
    "full": (12, 1, 0),
    "window": (0, 3, 0),
    "global": (1, 1, 0),
    "random": (0, 1, 3),
    "window + global": (1, 3, 0),
    "window + random": (0, 3, 3),
    BIGBIRD: (1, 3, 2),
}
"""(global, window, random) blocks; a window of 1 is a block's own."""
NO_MISTAKE = math.log(2) / 32
"""A batch of 32 whose mean loss is below this gave every right answer more than even odds."""


def layout_of(name: str, seed: int = 0) -> Tensor:
    """The (12,12) layout of an entry of `LAYOUTS`."""
    counts = zip(("n_global", "n_window", "n_random"), LAYOUTS[name], strict=True)
    return bigbird_layout(SEQ_LEN // BLOCK, **dict(counts), seed=seed)


def hops_needed(layout: Tensor, distance: int = DISTANCE) -> int:
    """Layers that the answer's block needs to reach the question's; -1 when none suffice."""
    return int(hops(layout)[-1, (SEQ_LEN - 1 - distance) // BLOCK])


def expected_accuracy(layout: Tensor, distances=DISTANCES) -> float:
    """Mean accuracy that a (12,12) layout allows: 1 where `N_LAYER` hops suffice, else chance."""
    arrives = [0 <= hops_needed(layout, d) <= N_LAYER for d in distances]
    return sum(1 if arrived else 1 / N_SYMBOLS for arrived in arrives) / len(arrives)


class Recaller(Transformer):
    """A small one under any (T,T) mask; logits of the last token, (B, 2 symbols + 1)."""

    def __init__(self, mask: Tensor, seed: int = 0, d_model: int = 24):
        torch.manual_seed(seed)
        shape = (N_LAYER, 1, d_model, 2 * d_model, 2 * N_SYMBOLS + 1, len(mask))
        super().__init__(ModelConfig(*shape, norm_first=True))
        for weight in self.parameters():
            if weight.dim() == 2:  # a model this narrow learns faster from larger weights
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        self.mask = mask[None, None]

    def forward(self, ids):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, self.mask)
        return self.embedding.logits(self.final_norm(x)[:, -1])


@bench.one_thread()
def recall(mask: Tensor, distances=DISTANCES, *, n_steps: int = 500, seed: int = 0) -> dict:
    """{distance: accuracy on fresh texts} after training under a (T,T) mask; chance is 1/8.

    Every training text draws its own distance, so that near ones teach the relay to far ones. At
    most `n_steps` batches of 32, fewer once 20 in a row are without a mistake.
    """
    model = Recaller(mask, seed)
    train.fit(
        model,
        lambda step: recall_batch(32, len(mask), seed=seed * 10**6 + step),
        n_steps,
        until=lambda losses: len(losses) >= 20 and max(losses[-20:]) < NO_MISTAKE,
        lr=1e-2,
        loss_fn=train.classification_loss,
    )
    fresh = {d: recall_batch(N_TEXTS, len(mask), d, seed=10**9 + seed) for d in distances}
    return {d: accuracy(model, *texts) for d, texts in fresh.items()}
