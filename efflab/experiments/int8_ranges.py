"""MiniLM with INT8 linear layers and ten ways to choose their ranges, and one without any.

The loss in cosine to fp32's embeddings and in retrieval, over all documented functions of the
standard library except those used for calibration. Fewer would not be enough: over 300 functions
the MRR's paired difference is uncertain by 0.01, more than the 1 % in question.
"""

from functools import lru_cache

from torch import Tensor, nn

from efflab import data, points
from efflab.compression import engines, int8
from efflab.compression.engines import Batch
from efflab.compression.openvino import smooth_model
from efflab.compression.vectorwise import ByToken, OutliersApart
from efflab.errors import require_one_of
from efflab.experiments import int8_engines
from efflab.experiments.int8_engines import N_CALIBRATION, calibration, compare_vectors
from efflab.experiments.record import round_floats, run_cases

NAME = "int8-ranges"
CONTROL = "never calibrated, scale 1"
DYNAMIC, ONE_SCALE, SEVEN = "dynamic", "dynamic, weights per tensor", "dynamic, 7-bit inputs"
BY_TOKEN, APART = "dynamic, scales by token", "dynamic, outliers apart"
MINMAX, SMOOTHED = "static, min and max", "static, smoothed"
CUT = {
    "static, 99.9th percentile": 1e-3,
    "static, 99.99th percentile": 1e-4,
    "static, 99.999th percentile": 1e-5,
}
"""Share of the values that is clipped at either end of each batch."""
FORMS = (CONTROL, DYNAMIC, ONE_SCALE, SEVEN, BY_TOKEN, APART, MINMAX, *CUT, SMOOTHED)
UNADJUSTED = (-128.0, 127.0)
"""Codes of scale 1, as an observer without data gives, but with the zero point in the middle."""


def static(model: nn.Module, ranges: int8.Ranges) -> nn.Module:
    """Static INT8 for calibrated layers; the pooler, which embeddings do not use, stays."""
    make = lambda n, m: int8.Int8Linear(m, ranges[n]) if n in ranges else m  # noqa: E731
    return int8.replace_linears(model, make)


def make_encoder(form: str, model: nn.Module, batches: list[Batch]) -> nn.Module:
    """The encoder in one of the `FORMS`; `batches` calibrate the static ones."""
    require_one_of("form", form, FORMS)

    def ranges(m: nn.Module, **options) -> int8.Ranges:
        return int8.calibrate(lambda batch: m.encode(*batch), m, batches, **options)

    def smoothed() -> nn.Module:
        smooth = smooth_model(model, batches)
        return static(smooth, ranges(smooth))

    makers = {
        CONTROL: lambda: static(model, dict.fromkeys(ranges(model), UNADJUSTED)),
        DYNAMIC: lambda: int8.dynamic_int8(model),
        ONE_SCALE: lambda: int8.dynamic_int8(model, per_channel=False),
        SEVEN: lambda: int8.dynamic_int8(model, bits=7),
        BY_TOKEN: lambda: int8.replace_linears(model, lambda _, m: ByToken(m)),
        APART: lambda: int8.replace_linears(model, lambda _, m: OutliersApart(m)),
        MINMAX: lambda: static(model, ranges(model)),
        SMOOTHED: smoothed,
    }
    if form in CUT:
        return static(model, ranges(model, observer="percentile", cut=CUT[form]))
    return makers[form]()


@lru_cache(maxsize=1)
def held_out_functions() -> list:
    """Every documented function that is not used for calibration."""
    seen = {f.query for f in int8_engines.functions()[0]}
    return [f for f in data.documented_functions() if f.query not in seen]


def vectors(model: nn.Module, functions: list | None = None) -> tuple[Tensor, Tensor]:
    """Embeddings of the functions' docstrings and of their code; by default of those held out."""
    engine = engines.torch_engine("", model)
    functions = functions or held_out_functions()
    texts = [f.query for f in functions], [f.code for f in functions]
    return tuple(int8_engines.embeddings(engine, points.encoder()[1], t) for t in texts)


@lru_cache(maxsize=1)
def exact() -> tuple[Tensor, Tensor]:
    """fp32's embeddings of both."""
    return vectors(points.encoder()[0])


def run_one(form: str, seed: int) -> dict:
    """One form's cosines to fp32 and MRR minus fp32's, with intervals over the texts."""
    model, tokenizer = points.encoder()
    ours = vectors(make_encoder(form, model, calibration(tokenizer)))
    return round_floats(compare_vectors(ours, exact()))


def run(*, fresh: bool = False) -> dict:
    """Every form, recorded as data/experiments/int8-ranges.json."""
    settings = dict(n_calibration=N_CALIBRATION, n_test=len(held_out_functions()))
    cases = [dict(form=form, seed=0) for form in FORMS]
    options = dict(models={"MiniLM-L6": data.MINILM_SHA256}, versions_of=("transformers",))
    return run_cases(NAME, cases, run_one, settings=settings, fresh=fresh, **options)


def by_form(runs: list[dict]) -> dict[str, dict]:
    """Form -> its run, in the order of `FORMS`."""
    by_form = {run["form"]: run for run in runs}
    return {form: by_form[form] for form in FORMS if form in by_form}
