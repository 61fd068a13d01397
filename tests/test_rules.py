"""What each annotation allows, and how the check behaves where code is compiled or pickled."""

import inspect
import pickle
import re
from typing import Annotated, Any

import numpy as np
import pytest
import torch

from efflab import cost, lab
from efflab.arguments import check_arguments, unchecked
from efflab.errors import quote
from efflab.lab.refusals import refusal
from efflab.rules import AnyFloat, Array, Count, Infinite, NonNegative, Positive, Size, rule_of
from efflab.tensors import Ids

LEGAL = [
    (int, np.int64(3)),
    (float, 2),
    (float, np.float32(0.5)),
    (Positive, 1e-9),
    (NonNegative, 0),
    (Infinite, float("inf")),
    (AnyFloat, float("nan")),
    (bool, np.bool_(False)),
    (int | None, None),
    (Size, 1),
    (Count, 0),
    (list[int] | str, "x"),
    (tuple[int, ...], ()),
    (dict[str, float], {"a": 1}),
    (Annotated[str, ("a", "b")], "b"),
    (Array, np.ones(2)),
    (Ids, torch.ones(1, 2, dtype=torch.int32)),
    (Any, object()),
]
ILLEGAL = [
    (int, True, "x=True: expected an int, got bool"),
    (int, np.array([1]), "x=ndarray(int64, (1,)): expected an int, got ndarray"),
    (int, 2**70, f"x={2**70}: expected an int of at most"),
    (Size, 0, "x=0: expected an int of at least 1"),
    (float, torch.tensor(1.0), "x=tensor(1.): expected a number, got Tensor"),
    (float, float("nan"), "x=nan: expected a finite number"),
    (Positive, 0, "x=0: expected a positive number"),
    (Positive, "1", "x='1': expected a number, got str"),
    (NonNegative, -1e-9, "x=-1e-09: expected a number of at least 0"),
    (NonNegative, float("inf"), "x=inf: expected a finite number"),
    (Infinite, float("nan"), "x=nan: expected a finite number"),
    (AnyFloat, 10**400, f"x={quote(10**400)}: expected a number that a float"),
    (bool, 1, "x=1: expected True or False, got int"),
    (str, None, "x=None: expected a text, got NoneType"),
    (Annotated[str, ("a", "b")], None, "x=None: expected a text, got NoneType"),
    (Annotated[str, ("a", "b")], "c", "x='c': expected one of 'a', 'b'"),
    (Annotated[int, (0, 3)], True, "x=True: expected an int, got bool"),
    (Annotated[int, (0, 3)], 1, "x=1: expected one of 0, 3"),
    (list[int], [1, "a"], "x[1]='a': expected an int, got str"),
    (list[str], "text", "x='text': expected a list, got str"),
    (dict[str, float], {"a": None}, "x['a']=None: expected a number, got NoneType"),
    (tuple[int, int], (1,), "x=(1,): expected a tuple of 2 values"),
    (bool | None, "1", "x='1': expected True, False or None, got str"),
    (int | None, "1", "x='1': expected an int or None, got str"),
    (torch.Tensor, torch.ones(2, device="meta"), "x.device='meta': expected a device"),
    (torch.Tensor, torch.ones(2, dtype=torch.int64), "x.dtype=torch.int64: expected floats"),
    (Ids, torch.ones(2, dtype=torch.int64), "x.shape=(2,): expected two dimensions (B, T)"),
    (Annotated[torch.Tensor, "numbers"], torch.ones(2) * 1j, "x.dtype=torch.complex64"),
]


@pytest.mark.parametrize(("annotation", "value"), LEGAL)
def test_what_is_legal(annotation, value):
    rule_of(annotation).check("x", value)


@pytest.mark.parametrize(("annotation", "value", "message"), ILLEGAL)
def test_what_is_not_is_named_and_quoted(annotation, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        rule_of(annotation).check("x", value)


@check_arguments
def scaled(x: torch.Tensor, by: float = 2.0, *more: int, **named: int) -> torch.Tensor:
    return x * by


def test_a_checked_function_stays_the_function_that_it_was():
    assert pickle.loads(pickle.dumps(scaled)) is scaled
    assert "return x * by" in inspect.getsource(scaled)
    assert list(inspect.signature(scaled).parameters) == ["x", "by", "more", "named"]
    assert unchecked(scaled)(torch.ones(1), torch.tensor(3.0)) == 3


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [((), {"by": "2"}, "by='2'"), ((1.0, 1, "2"), {}, r"more\[1\]"), ((), {"n": None}, "n=None")],
)
def test_every_kind_of_parameter_is_checked(given, named, message):
    with pytest.raises(TypeError, match=message):
        scaled(torch.ones(1), *given, **named)


def test_compilers_see_no_check():
    x = torch.ones(2)
    compiled = torch.compile(lambda x: scaled(x) + 1, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), x * 2 + 1)
    assert torch.equal(torch.vmap(scaled)(x), x * 2)
    traced = torch.jit.trace(lambda x: scaled(x, x.shape[0]), x, check_trace=False)
    assert torch.equal(traced(torch.ones(3)), torch.ones(3) * 3)


def test_an_explorer_says_it_in_chinese():
    lab.use_language("zh")
    try:
        with pytest.raises(TypeError) as caught:
            cost.training_flops("1", 1.0)
        assert refusal(caught.value) == "n_params='1'：应为数，给的是 str"
    finally:
        lab.use_language("en")
