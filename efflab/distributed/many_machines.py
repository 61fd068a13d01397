"""The notebooks' training on ranks that torchrun started, on one or many machines.

    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \\
        -m efflab.distributed.many_machines --stage 3 --steps 20

docs/many-machines.md says more. Rank 0 draws the batch, since machines may have different versions
of the standard library; every rank takes its rows. Rank 0 prints the mean loss of each step and the
bytes that a rank holds, and with `--out` writes both as JSON.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist

from efflab.base.files import write_atomically
from efflab.config import PRESETS
from efflab.data import random_windows, stdlib_tokens
from efflab.distributed import zero
from efflab.errors import require


def main(argv: list[str] | None = None) -> None:
    """Train on the group that torchrun describes in the environment."""
    args = _parser().parse_args(argv)
    require(dist.is_torchelastic_launched(), "launcher", "none", "torchrun; see this file's head")
    dist.init_process_group("gloo")
    torch.set_num_threads(1)  # ranks of one machine share its cores
    try:
        report(args, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def report(args: argparse.Namespace, rank: int, world_size: int) -> None:
    """Train; rank 0 prints and writes the results."""
    batch = torch.empty(2, args.rows, args.seq_len, dtype=torch.long)
    if rank == 0:
        windows = random_windows(stdlib_tokens("train"), args.rows, args.seq_len, seed=0)
        batch = torch.stack(windows)
    dist.broadcast(batch, 0)
    job = zero.Job(PRESETS[args.model], batch[0], batch[1], args.stage, args.steps)
    state = zero.on_rank(rank, world_size, job)
    everyone: list = [None] * world_size
    dist.all_gather_object(everyone, state)
    if rank:
        return
    losses = [sum(step) / world_size for step in zip(*(h.losses for h in everyone), strict=True)]
    sizes = [h.state for h in everyone]
    result = dict(world_size=world_size, stage=args.stage, losses=losses, state_bytes=sizes)
    for step, loss in enumerate(losses):
        print(f"step {step}: {loss:.4f} nats")
    print(f"{world_size} ranks, stage {args.stage}: {max(sizes) / 1e6:.1f} MB per rank")
    if args.out:
        write_atomically(args.out, json.dumps(result, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a preset on the ranks that torchrun starts")
    parser.add_argument("--model", default="stdlib-gpt", choices=sorted(PRESETS))
    parser.add_argument("--stage", type=int, default=0, choices=zero.STAGES, help="0: plain DDP")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=8, help="of the whole batch")
    parser.add_argument("--seq-len", type=int, default=128)
    parser.add_argument("--out", type=Path, help="a JSON file for rank 0's report")
    return parser


if __name__ == "__main__":
    main()
