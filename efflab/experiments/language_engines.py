"""An engine's speed on a language model, estimated from other models with the same layers.

Times do not depend on the values of weights, so random ones suffice, and the real model need not be
built: two models of other widths, one below and one above, bracket its time. With and without the
windows of the case study, since an engine may run windows faster or slower than their FLOPs.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from efflab.bench import one_thread
from efflab.config import PRESETS
from efflab.estimate import Estimate
from efflab.experiments import case_study, lighten
from efflab.experiments import case_study_latency as timed
from efflab.experiments.record import run_cases
from efflab.model import Transformer

NAME = "language-engines"
WIDTHS = (160, 224)
"""Channels: the nearest below and above `stdlib-gpt`'s 192 with heads of 32 channels, as there."""
PLAIN, WINDOWS = "full attention", "windows"
REPEATS = 21


def other(width: int, windows: list[int | None], seed: int = 0) -> Transformer:
    """`stdlib-gpt`'s layers at another width, with random weights and these windows."""
    plain = PRESETS["stdlib-gpt"]
    n_head = width * plain.n_head // plain.d_model
    config = replace(plain, n_layer=len(windows), n_head=n_head, d_model=width, d_ff=4 * width)
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    return lighten.lighten(model, lighten.windows_alone(tuple(windows)))


@one_thread()
def times(
    width: int, windows: list, seed: int, repeats: int, seven_bits: bool | None = None
) -> dict:
    """Times of every engine on a text of 512 tokens, with full attention and with the windows."""
    shapes = {PLAIN: [None] * len(windows), WINDOWS: windows}
    models = {name: other(width, each, seed) for name, each in shapes.items()}
    return timed.side_by_side(models, 1, repeats, seven_bits)


def run_one(width: int, isa: str | None, seed: int) -> dict:
    """Run one width in a separate process; `isa`: one of `case_study_latency.limits()`."""
    windows = list(timed.read_recipe().windows)
    task = dict(width=width, windows=windows, seed=seed, repeats=REPEATS)
    return timed.run_limited(f"{__name__}:times", task, isa)


def cases() -> list[dict]:
    """Each width under each set of instructions."""
    return [dict(width=w, isa=isa, seed=0) for isa in timed.limits() for w in WIDTHS]


def run(*, fresh: bool = False) -> dict:
    """Measure, and record in data/experiments/language-engines.json; ratios are portable."""
    settings = dict(seq_len=case_study.SEQ_LEN, repeats=REPEATS)
    settings |= dict(windows=timed.read_recipe().windows)
    packages = ("openvino", "nncf")
    return run_cases(NAME, cases(), run_one, settings=settings, versions_of=packages, fresh=fresh)


def factors(experiment: Mapping, isa: str | None = None) -> dict[tuple[str, str], list[Estimate]]:
    """(`PLAIN` or `WINDOWS`, engine) -> time per FLOP over torch's in fp32, one per width."""
    estimates: dict[tuple[str, str], list[Estimate]] = {}
    for run in experiment["runs"]:
        if run["isa"] == isa:
            base = run["rows"][0]["flops"]
            for row in run["rows"]:
                ends = (row[key] * base / row["flops"] for key in ("ratio", "low", "high"))
                estimates.setdefault((row["stage"], row["engine"]), []).append(Estimate(*ends))
    return estimates
