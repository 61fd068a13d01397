"""What takes longer than a notebook: one function each, its results kept with their provenance."""

from importlib import import_module

from efflab.errors import require_one_of

EXPERIMENTS = (
    "attention-bench",
    "dynamic-attention",
    "encoder-reuse",
    "gptq-quality",
    "int8-engines",
    "mixer-digits",
    "pruning-schedule",
    "qkv-sharing",
)


def run_experiment(name: str) -> dict:
    """Run an experiment and write data/experiments/NAME.json; returns what was written."""
    require_one_of("name", name, EXPERIMENTS)
    return import_module(f"efflab.experiments.{name.replace('-', '_')}").run()
