"""The steps whose times were predicted and frozen in a commit first, measured afterwards.

`efflab predict` freezes `data/predicted/decoder-N.json` (`efflab.advice.step_times`); the last one
is measured here. Models of random weights, of shapes that nothing was fitted to.
"""

import random
from functools import partial
from pathlib import Path

from efflab.base.json_files import read_json
from efflab.base.places import DATA_DIR
from efflab.bench import one_thread
from efflab.compression.decoders import FORMATS
from efflab.config import PRESETS, ModelConfig
from efflab.errors import require, require_one_of
from efflab.experiments import decoder_steps as timed
from efflab.experiments.decoder_steps import DECODE, PREFILL, Step, llama
from efflab.experiments.record import run_cases

NAME, N_CASES = "decoder-cases", 40
FROZEN = DATA_DIR / "predicted"
SHAPES = {
    "stdlib-gpt": PRESETS["stdlib-gpt"],
    "gpt2": PRESETS["gpt2"],
    "SmolLM2-135M": llama(30, 9, 3, 576, 1536, 49152),
    "llama-42M": llama(8, 8, 8, 512, 1376, 32000),
    "stories15M": llama(6, 6, 6, 288, 768, 32000),
    "stories110M": llama(12, 12, 12, 768, 2048, 32000),
    "plain-70M": ModelConfig(6, 8, 512, 2048, 50304, 2048, causal=True, tied=False),
    "qwen-10": llama(10, 14, 2, 896, 4864, 32000),
}
"""The shipped shape, released ones, and ten layers of Qwen2.5-0.5B; weights are random."""
NEW = {1: list(SHAPES)[:4], 2: list(SHAPES)[4:]}
"""The models of each freeze: those that its constants were not fitted to."""
STEPS = [Step(PREFILL, n, b) for n in (48, 200) for b in (1, 3)]
STEPS += [Step(DECODE, n, b) for n in (100, 400) for b in (1, 2, 6)]


def draw_cases(number: int) -> list[dict]:
    """40 of all steps in all formats of a freeze's new models, which `NEW` names."""
    require_one_of("number", number, NEW)
    every = timed.cases(NEW[number], FORMATS, STEPS)
    drawn = random.Random(number).sample(every, N_CASES)
    # by model and format, so that each is made once
    return sorted(drawn, key=lambda case: (case["model"], case["format"]))


def frozen(folder: Path = FROZEN) -> list[Path]:
    """The frozen predictions, oldest first."""
    return sorted(folder.glob("decoder-*.json"), key=lambda path: int(path.stem.split("-")[1]))


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Time the cases of the last freeze; recorded as data/experiments/decoder-cases."""
    paths = frozen()
    require(bool(paths), "predictions", None, "frozen before: `efflab predict`")
    cases = read_json(paths[-1])["cases"]
    # the freeze's number, so that no time measured before it counts
    each = [{key: case[key] for key in timed.CASE} | dict(seed=len(paths)) for case in cases]
    options = dict(settings=dict(repeats=timed.REPEATS), versions_of=timed.PACKAGES)
    return run_cases(NAME, each, partial(timed.run_one, shapes=SHAPES), fresh=fresh, **options)
