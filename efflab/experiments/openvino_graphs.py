"""The parts of OpenVINO's file of a language model besides weights: the graph and windows' masks.

Neither depends on the model's width, so a narrow model with random weights predicts them before the
real one is built. Windows are unrolled block by block in the graph, which makes it large.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from efflab.bench import one_thread
from efflab.config import PRESETS
from efflab.experiments import case_study, lighten
from efflab.experiments import case_study_latency as timed
from efflab.experiments.record import run_cases
from efflab.model import Transformer

NAME = "openvino-graphs"
ENGINES = (timed.OPENVINO, timed.FP16, timed.INT8)
WIDTH = 4
"""Channels per head; the graph does not depend on it."""


def narrow(windows: tuple[int | None, ...], seed: int = 0) -> Transformer:
    """`stdlib-gpt`'s layers and heads at a small width, with these windows.

    No weight is 0 or 1, which OpenVINO would optimize away.
    """
    plain = PRESETS["stdlib-gpt"]
    width = WIDTH * plain.n_head
    config = replace(plain, n_layer=len(windows), d_model=width, d_ff=4 * width)
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 0.1, 0.05)
    return lighten.lighten(model, lighten.windows_alone(windows))


@one_thread()
def run_one(engine: str, windows: list[int | None], seed: int) -> dict[str, int]:
    """Bytes of the graph's text, and of what windows add to the constants: their masks."""

    def files(windows: list[int | None]) -> tuple[int, int]:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            timed.make_engine(engine, narrow(tuple(windows), seed), path, (1, case_study.SEQ_LEN))
            return path.stat().st_size, path.with_suffix(".bin").stat().st_size

    text, constants = files(windows)
    return dict(text=text, masks=constants - files([None] * len(windows))[1])


def cases() -> list[dict]:
    """Without windows and with those of the case study, in every engine that writes a file."""
    light = timed.read_recipe().windows
    both = ((None,) * len(light), light)
    return [dict(engine=e, windows=list(w), seed=0) for w in both for e in ENGINES]


def run(*, fresh: bool = False) -> dict:
    """Every graph of the case study, recorded as openvino-graphs."""
    settings = dict(seq_len=case_study.SEQ_LEN, width=WIDTH)
    packages = ("openvino", "nncf")
    return run_cases(NAME, cases(), run_one, settings=settings, versions_of=packages, fresh=fresh)
