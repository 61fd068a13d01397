"""Our sparse attention, FlexAttention, full attention and a package, timed interleaved.

`make bench` prints the times; `efflab experiment attention-bench` also records them.
"""

import torch
import torch.nn.functional as F

from efflab.bench import peak_bytes, time_interleaved
from efflab.errors import require_int
from efflab.experiments.record import run_cases
from efflab.structure.bigbird import bigbird_layout, block_sparse_attention
from efflab.structure.window import sliding_window_attention, visible_pairs

NAME = "attention-bench"
N_HEAD, HEAD_DIM, WINDOW, BLOCK = 8, 64, 128, 64
LENGTHS = (2048, 4096, 8192, 16384)
REPEATS = 15
FLEX, FULL, PACKAGE = "FlexAttention, compiled", "full attention (SDPA)", "local-attention package"
OURS, BIGBIRD = "sliding_window_attention", "block_sparse_attention (BigBird)"
PRODUCT = "matrix product 1024 x 1024"


def heads(seq_len: int, seed: int = 0) -> list[torch.Tensor]:
    """q, k, v of the benchmark, (1, 8, T, 64) each."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(1, N_HEAD, seq_len, HEAD_DIM, generator=rng) for _ in range(3)]


def flex(q, k, v, window_size: int = WINDOW):
    """PyTorch's FlexAttention with the same window, compiled (which takes a C++ compiler)."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    T = q.shape[2]
    mask = create_block_mask(
        lambda b, h, i, j: (i - j).abs() <= window_size, None, None, T, T, device="cpu"
    )
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask)


def package(q, k, v, window_size: int = WINDOW):
    """The `local-attention` package with the same window (`exact_windowsize` masks the rest)."""
    from local_attention import LocalAttention

    reach = dict(window_size=window_size, exact_windowsize=True, look_backward=1, look_forward=1)
    attend = LocalAttention(**reach, autopad=True, use_rotary_pos_emb=False)
    return lambda: attend(q, k, v)


def contestants(seq_len: int, seed: int = 0) -> dict:
    """{name: (call, visible pairs of one head)}; all but full attention and BigBird are equal."""
    q, k, v = heads(seq_len, seed)
    layout = bigbird_layout(seq_len // BLOCK, n_global=2, n_window=3, n_random=3)
    window_pairs, block_pairs = visible_pairs(seq_len, WINDOW), int(layout.sum()) * BLOCK**2
    return {
        OURS: (lambda: sliding_window_attention(q, k, v, WINDOW), window_pairs),
        FLEX: (flex(q, k, v), window_pairs),
        PACKAGE: (package(q, k, v), window_pairs),
        FULL: (lambda: F.scaled_dot_product_attention(q, k, v), seq_len**2),
        BIGBIRD: (lambda: block_sparse_attention(q, k, v, layout, BLOCK), block_pairs),
    }


@torch.no_grad()
def measure(seq_len: int, seed: int = 0) -> dict:
    """One row per contestant, printed: milliseconds, ratios to FlexAttention and full attention.

    `peak_share` is the useful work (4 D FLOPs a visible pair and head) over what a 1024-wide matrix
    product reaches here in the same run. Rounds are interleaved; all figures are medians, with four
    significant digits.
    """
    require_int("seq_len", seq_len, 2 * BLOCK)
    entries = contestants(seq_len, seed)
    expected = entries[OURS][0]()
    for name in (FLEX, PACKAGE):
        torch.testing.assert_close(entries[name][0](), expected, atol=1e-4, rtol=1e-4)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    calls = {name: call for name, (call, _) in entries.items()} | {PRODUCT: lambda: a @ b}
    times = time_interleaved(calls, warmup=1, repeats=REPEATS)
    rows = []
    for name, (call, pairs) in entries.items():
        flops = 4 * HEAD_DIM * N_HEAD * pairs
        row = dict(
            milliseconds=1e3 * times[name].median,
            over_flex=times[name].ratio(times[FLEX]),
            over_full=times[name].ratio(times[FULL]),
            peak_share=flops / (2 * 1024**3) * times[PRODUCT].ratio(times[name]),
            mib=peak_bytes(call) / 2**20,
        )
        row = {key: float(f"{value:.4g}") for key, value in row.items()}
        rows.append(dict(seq_len=seq_len, name=name) | row)
        print(report(rows[-1]), flush=True)
    return dict(rows=rows)


def report(row: dict) -> str:
    """A row as a line of the printed table."""
    return (
        f"{row['seq_len']:>6}  {row['name']:<32}  {row['milliseconds']:>9.1f} ms"
        f"  {row['over_flex']:>6.2f} x flex  {row['over_full']:>7.3f} x full"
        f"  {100 * row['peak_share']:>5.1f} % of peak  {row['mib']:>7.1f} MiB"
    )


def run(*, fresh: bool = False) -> dict:
    """Measure, and record in data/experiments/attention-bench.json; only ratios are portable."""
    settings = dict(n_head=N_HEAD, head_dim=HEAD_DIM, window_size=WINDOW, repeats=REPEATS)
    cases = [dict(seq_len=n, seed=0) for n in LENGTHS]
    packages = ("local-attention",)
    return run_cases(NAME, cases, measure, settings=settings, versions_of=packages, fresh=fresh)


def rows_of(experiment: dict) -> list[dict]:
    """Every recorded row, length by length."""
    return [row for run in experiment["runs"] for row in run["rows"]]


if __name__ == "__main__":
    print(f"batch 1, {N_HEAD} heads of {HEAD_DIM}, {WINDOW} keys each side, fp32")
    for length in LENGTHS:
        measure(length)
