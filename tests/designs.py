"""What the tests of registered designs share."""

from efflab.experiments import variants
from efflab.experiments.registration import rules_for


def registered_call(module, rule, monkeypatch):
    """The options with which `module.run` runs its variants: the runs that `rule` registers."""
    calls = []
    monkeypatch.setattr(variants, "run_cases", lambda *a, **options: calls.append((a, options)))
    module.run()
    ((name, cases, _), options) = calls[0]
    assert name == rule["source"]["record"]
    assert options["rules"] == rules_for(name)
    assert rule["source"]["settings"].items() <= options["settings"].items()
    assert sorted({case["seed"] for case in cases}) == rule["source"]["seeds"]
    assert len(cases) == len(module.SEEDS) * len(module.VARIANTS)
    return options
