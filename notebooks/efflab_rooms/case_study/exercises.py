"""Notebook 14's exercises: what is asked, and how an answer is judged."""

from functools import lru_cache

from efflab import points
from efflab.devices import DEVICES
from efflab.experiments import case_study, lighten
from efflab.experiments.lighten import Recipe
from efflab.lab import Exercise, tr
from efflab_rooms.case_study import measure
from efflab_rooms.case_study.measure import CONFIG

TARGET, ADDED = 0.25, 0.30  # of the FLOPs; nats per token
RUNS = (
    (100e9, 3, 2048, "V100 SXM2", 0.5),
    (65.2e9, 20, 2048, "A100 80GB SXM", 0.47),
    (1e9, 0.5, 8, "H100 SXM", 1.0),
)


def _check_tokens(answer):
    for n_params, days, n, name, utilization in RUNS:
        peak = DEVICES[name].peak("fp16")
        expected = measure.tokens_possible(n_params, days, n, peak, utilization)
        what = f"tokens({n_params:.0f}, {days}, {n}, {peak:.0f}, {utilization})"
        yield what, expected, answer(n_params, days, n, peak, utilization)


def _recipe(answer) -> Recipe | None:
    """The answer as a recipe, if it is one for this model."""
    try:
        windows, removed = (tuple(part) for part in answer)
        removed = tuple(tuple(sorted(set(heads))) for heads in removed)
    except TypeError:
        return None
    fits = len(windows) == len(removed) == CONFIG.n_layer
    fits &= all(window in (None, *lighten.WIDTHS) for window in windows)
    fits &= all(head in range(CONFIG.n_head) for heads in removed for head in heads)
    fits &= all(len(heads) < CONFIG.n_head for heads in removed)
    return Recipe(windows, removed) if fits else None


FORM = "six windows (256, 128, 64, 32, 16 or None), six tuples of heads; every layer keeps a head"


def _removed_share(recipe: Recipe) -> float:
    return lighten.removed_share(CONFIG, recipe, measure.SEQ_LEN)


def _check_target(answer):
    recipe = _recipe(answer)
    yield tr(FORM), True, recipe is not None
    gone, added = _removed_share(recipe), measure.damage_sum(recipe)
    what = tr("FLOPs removed: {gone}%, at least 25% required", gone=f"{100 * gone:.1f}")
    yield what, True, gone >= TARGET
    yield tr("nats/token added: {added}, at most 0.30", added=f"{added:.3f}"), True, added <= ADDED


@lru_cache(maxsize=8)
def _loss(recipe: Recipe) -> float:
    model = lighten.lighten(points.language_model(), recipe)
    return lighten.loss(model, case_study.calibration())


def _check_better(answer):
    recipe = _recipe(answer)
    yield tr(FORM), True, recipe is not None
    gone = _removed_share(recipe)
    what = tr("FLOPs removed: {gone}%, at least 30% required", gone=f"{100 * gone:.1f}")
    yield what, True, gone >= case_study.SHARE
    even = lighten.evenly(CONFIG, measure.damage(), 64, case_study.SHARE, measure.SEQ_LEN)
    ours, theirs = min(_loss(measure.recipe()), _loss(even)), _loss(recipe)
    what = tr("loss {theirs}, must be below {ours}", theirs=f"{theirs:.4f}", ours=f"{ours:.4f}")
    yield what, True, theirs < ours


EXERCISES = {
    "14-1": Exercise(_check_tokens),
    "14-2": Exercise(_check_target),
    "14-3": Exercise(_check_better),
}
