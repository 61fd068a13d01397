"""Bad arguments of every public function end at once in an error that names them."""

import re
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from legal_calls import NOT_CALLED, Target, annotations, call, legal_arguments, targets

from efflab.rules import rule_of

TARGETS = {target.name: target for target in targets() if ".require_" not in target.name}


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


def zoo() -> list[Any]:
    """Values that some caller will pass some day, to whatever argument."""
    whole = torch.arange(4)
    return [
        *(None, True, "x", "", b"", [], {}, Odd(), "word" * 10_000),
        *(-1, 0, 1, 2**70, 10**400, 1.5, -0.5, 1e-300, 1e300, 3 + 4j),
        *(float("nan"), float("inf"), -float("inf")),
        *(np.arange(3), np.array(3), np.int64(2), np.float32(0.5), np.bool_(True)),
        *(whole, whole > 1, whole * 1j, whole.float().to("meta"), torch.tensor(2.0)),
        *(torch.zeros(0), torch.full((4, 4), torch.nan), torch.zeros(2, 2, 2, 2, 2)),
        *([None], ["x"], [-1], [float("nan")], (1, 2), {"x": None}, {None: 1}),
    ]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends what takes more of a processor's time by an error that nobody catches."""

    def stop(*_):
        raise KeyboardInterrupt(f"still running after {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def is_legal(target: Target, name: str, value: Any) -> bool:
    """Whether the annotation allows it."""
    try:
        rule_of(annotations(target).get(name, Any)).check(name, value)
    except ValueError:
        return False
    return True


def fault(target: Target, name: str, value: Any) -> str:
    """What is wrong with how the call ends; "" if nothing."""
    try:
        with at_most(1.0):
            call(target, legal_arguments(target) | {name: value})
    except (TypeError, ValueError) as error:
        # of two arguments that do not fit each other either may be named
        names = "|".join(target.parameters) if is_legal(target, name, value) else name
        is_named = re.search(rf"\b({names})\b", str(error)) and len(str(error)) < 1000
        return "" if is_named else f"{type(error).__name__}: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "" if is_legal(target, name, value) else "returned"


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_bad_arguments_are_refused_by_name_and_at_once(target, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # some values are seconds to wait
    called = not NOT_CALLED.search(target.name)
    if called:
        call(target, legal_arguments(target))
    faults = {}
    for name, parameter in target.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        for value in zoo():
            if (called or not is_legal(target, name, value)) and (
                found := fault(target, name, value)
            ):
                faults[f"{name}={str(value)[:30]!r}"] = found[:200]
    assert not faults
