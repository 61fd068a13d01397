"""The rate of `pruning-recovery`: the largest at which training leaves the unpruned model alone.

Rates from the largest on, each with three seeds of its own. A rate is out with the first seed and
the first round that takes the control further from the dense model than 0.01 bits per byte. Nothing
is pruned here, so that the choice cannot look at what pruning does.
"""

from efflab.bench import one_thread
from efflab.experiments import pruning_recovery as recovery
from efflab.experiments.record import run_cases
from efflab.pretrained import read_card

NAME = recovery.PILOT


def run_one(lr: float, seed: int) -> dict:
    """The control's bits per byte above the dense model after each round, up to one too far."""
    increases: list[float] = []
    control = recovery.parts(*recovery.CONTROL)
    while len(increases) < len(control) and recovery.stays(increases):
        dense, *_, last = recovery.train_parts(control[: len(increases) + 1], seed, lr)[1]
        increases.append(round(last["after"] - dense["after"], 5))
    return dict(increases=increases)


@one_thread()
def run(*, fresh: bool = False) -> dict:
    """Rates until one stays; recorded as data/experiments/pruning-recovery-pilot."""
    own, models = recovery.settings(), {"stdlib-gpt": read_card()["sha256"]}
    options = dict(settings=own, models=models, fresh=fresh, any_machine=True)
    for lr in recovery.RATES:
        for seed in recovery.PILOT_SEEDS:
            case = dict(lr=lr, seed=seed)
            record = run_cases(NAME, [case], run_one, **options)
            runs = [run for run in record["runs"] if run["lr"] == lr]
            if not all(recovery.stays(run["increases"]) for run in runs):
                break
        else:
            break
    return record
