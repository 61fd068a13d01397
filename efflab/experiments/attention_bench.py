"""Our sparse attention beside FlexAttention, full attention and a package, in one interleaved run.

`python -m efflab.experiments.attention_bench` (`make bench`) prints it; `--record` keeps it.
"""

import argparse
import json
import platform
from datetime import date
from importlib.metadata import version

import torch
import torch.nn.functional as F

from efflab.bench import cpu_name, interleaved, peak_bytes
from efflab.data import DATA_DIR
from efflab.errors import require_int
from efflab.structure.bigbird import bigbird_layout, block_sparse_attention
from efflab.structure.window import sliding_window_attention, visible_pairs

FILE = DATA_DIR / "experiments" / "attention_bench.json"
COMMAND = "python -m efflab.experiments.attention_bench --record"
N_HEAD, HEAD_DIM, WINDOW, BLOCK = 8, 64, 128, 64
LENGTHS = (2048, 4096, 8192, 16384)
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
    """The `local-attention` package with the same window: `exact_windowsize` hides the rest."""
    from local_attention import LocalAttention

    attend = LocalAttention(
        window_size=window_size,
        look_backward=1,
        look_forward=1,
        exact_windowsize=True,
        autopad=True,
        use_rotary_pos_emb=False,
    )
    return lambda: attend(q, k, v)


def contestants(seq_len: int) -> dict:
    """{name: (call, visible pairs of one head)}; all but full attention and BigBird agree."""
    q, k, v = heads(seq_len)
    layout = bigbird_layout(seq_len // BLOCK, n_global=2, n_window=3, n_random=3)
    window_pairs = visible_pairs(seq_len, WINDOW)
    return {
        OURS: (lambda: sliding_window_attention(q, k, v, WINDOW), window_pairs),
        FLEX: (flex(q, k, v), window_pairs),
        PACKAGE: (package(q, k, v), window_pairs),
        FULL: (lambda: F.scaled_dot_product_attention(q, k, v), seq_len**2),
        BIGBIRD: (
            lambda: block_sparse_attention(q, k, v, layout, BLOCK),
            int(layout.sum()) * BLOCK**2,
        ),
    }


@torch.no_grad()
def compare(seq_len: int, repeats: int = 7) -> list[dict]:
    """One row a contestant: milliseconds, ratios to FlexAttention and full attention, memory.

    `peak_share` is the useful work (4 D FLOPs a visible pair and head) over what a 1024-wide matrix
    product reaches here in the same run. Rounds are interleaved; all figures are medians.
    """
    require_int("seq_len", seq_len, 2 * BLOCK)
    entries = contestants(seq_len)
    expected = entries[OURS][0]()
    for name in (FLEX, PACKAGE):
        torch.testing.assert_close(entries[name][0](), expected, atol=1e-4, rtol=1e-4)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    calls = {name: call for name, (call, _) in entries.items()} | {PRODUCT: lambda: a @ b}
    times = interleaved(calls, warmup=1, repeats=repeats)
    rows = []
    for name, (call, pairs) in entries.items():
        flops = 4 * HEAD_DIM * N_HEAD * pairs
        rows.append(
            dict(
                seq_len=seq_len,
                name=name,
                milliseconds=1e3 * times[name].median,
                over_flex=times[name].ratio(times[FLEX]),
                over_full=times[name].ratio(times[FULL]),
                peak_share=flops / (2 * 1024**3) * times[PRODUCT].ratio(times[name]),
                mib=peak_bytes(call) / 2**20,
            )
        )
    return rows


def report(row: dict) -> str:
    """A row as a line of the printed table."""
    return (
        f"{row['seq_len']:>6}  {row['name']:<32}  {row['milliseconds']:>9.1f} ms"
        f"  {row['over_flex']:>6.2f} x flex  {row['over_full']:>7.3f} x full"
        f"  {100 * row['peak_share']:>5.1f} % of peak  {row['mib']:>7.1f} MiB"
    )


def provenance() -> dict:
    """Where and with what the rows were measured."""
    names = ("torch", "local-attention")
    return dict(
        command=COMMAND,
        date=date.today().isoformat(),
        machine=f"{cpu_name()}, {torch.get_num_threads()} threads",
        versions={"python": platform.python_version()} | {n: version(n) for n in names},
        setting=f"batch 1, {N_HEAD} heads of {HEAD_DIM}, {WINDOW} keys each side, fp32",
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table; `--record` writes data/experiments/attention_bench.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep the rows under data/")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    rows = []
    print(provenance()["setting"], "on", provenance()["machine"])
    for seq_len in options.lengths:
        for row in compare(seq_len, options.repeats):
            print(report(row), flush=True)
            rows.append(row)
    if options.record:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        rounded = [{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}
                   for row in rows]  # fmt: skip
        FILE.write_text(json.dumps(provenance() | {"rows": rounded}, indent=1) + "\n")


if __name__ == "__main__":
    main()
