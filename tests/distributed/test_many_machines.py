"""The training that torchrun starts: two nodes, here both on this machine."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from efflab.config import PRESETS
from efflab.data import random_windows, stdlib_tokens
from efflab.distributed import many_machines
from efflab.distributed.data_parallel import new_model
from efflab.train import language_model_loss

STEPS = ("--stage", "3", "--steps", "3", "--seq-len", "16", "--rows", "4")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def node(port, out):
    """One of two nodes with two ranks each, as docs/many-machines.md starts it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    command += ["--rdzv-endpoint", f"127.0.0.1:{port}", "-m", "efflab.distributed.many_machines"]
    return subprocess.Popen(
        [*command, *STEPS, "--out", str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.release
def test_two_nodes_train_as_one_process(tmp_path):
    port = free_port()
    nodes = [node(port, tmp_path / f"{i}.json") for i in range(2)]
    texts = [n.communicate(timeout=300)[0] for n in nodes]
    assert [n.returncode for n in nodes] == [0, 0], texts
    (written,) = tmp_path.glob("*.json")  # by the one rank 0
    found = json.loads(written.read_text())
    assert (found["world_size"], found["stage"]) == (4, 3)
    assert any("4 ranks, stage 3" in text for text in texts)

    windows = random_windows(stdlib_tokens("train"), 4, 16, seed=0)
    model = new_model(PRESETS["stdlib-gpt"])
    with torch.no_grad():
        expected = language_model_loss(model, *windows).item()
    assert found["losses"][0] == pytest.approx(expected, abs=1e-4)
    assert found["losses"][-1] < expected - 0.3
    whole = 16 * sum(p.numel() for p in model.parameters())
    assert found["state_bytes"] == pytest.approx([whole / 4] * 4, rel=0.01)


def test_alone_it_says_how_to_start_it():
    with pytest.raises(ValueError, match=r"launcher=.*torchrun"):
        many_machines.main(["--steps", "1"])
