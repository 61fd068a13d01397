"""What tests share: a network that is refused, and a toy notebook in a folder of its own."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads: tests run beside each other

import offline
import pytest

from efflab.base.privacy import opt_out

opt_out()
sys.addaudithook(offline.refuse)


def pytest_runtest_logreport(report):
    """Tells at once what failed: a run that is cut off has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        *_, why = str(report.longrepr).splitlines() or [""]
        print(f"\n{report.nodeid}: {why}", file=sys.__stderr__, flush=True)


@pytest.fixture(autouse=True)
def nothing_left_this_machine():
    """Fails the test, or the one after it, whose process or its forks tried to reach another."""
    yield
    assert offline.tried() == ""


@pytest.fixture(autouse=True)
def nothing_moved_this_process():
    """Fails the test that left the process in another folder, not one after it that needs one."""
    here = os.getcwd()
    yield
    there = os.getcwd() if os.path.exists(".") else "a folder that is gone"
    os.chdir(here)
    assert there == here


TOY = """\
# %% [markdown] tags=["en"]
# # A toy

# %% [markdown] tags=["zh"]
# # 玩具

# %% tags=["parameters"]
language = "en"
n = 3

# %%
print(language, n * 2)

# %% tags=["nbval-ignore-output"]
import os
from IPython.display import display

figure = {"id": "n", "name": "n", "value": n, "unit": "", "kind": "measured"}
figure |= {"low": n, "high": n}
part = {"id": "only", "outcome": "holds", "rule": "above 0", "figures": [figure]}
part |= {"condition": "", "remark": "", "reason": "", "basis": "exploratory", "since": None}
verdict = {"form": 3, "claim": "toy", "holds": True, "outcome": "holds", "parts": [part]}
display({"application/vnd.efflab.verdict+json": verdict, "text/plain": "holds"}, raw=True)
point = {"technique": "t", "model": "m"}
display({"application/vnd.efflab.board+json": point, "text/plain": "on the board"}, raw=True)
os.getpid()
"""


@pytest.fixture
def toy(tmp_path):
    """A `notebooks` folder with one small source, 90_toy.py."""
    folder = tmp_path / "notebooks"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "90_toy.py").write_text(TOY, encoding="utf-8")
    return folder


@pytest.fixture(params=["en", "zh"])
def both_languages(request):
    """Runs a test in each language; every text that it shows must have its Chinese."""
    from efflab.lab import text, use_language

    text.missing.clear()
    use_language(request.param)
    yield request.param
    use_language("en")
    assert not text.missing


@pytest.fixture
def strict():
    """`check` raises on a wrong answer while the test runs, as in a probe."""
    from efflab.lab import check

    check.strict(True)
    yield
    check.strict(False)


@pytest.fixture
def edit(toy):
    """`edit(old, new)` replaces one text of the toy's source, which must be there."""
    path = toy / "src" / "90_toy.py"

    def replace(old, new):
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return replace


@pytest.fixture(scope="module")
def cluster():
    """A Dask scheduler on this machine with two workers of one thread each."""
    distributed = pytest.importorskip("distributed")
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
    with distributed.LocalCluster(**options) as cluster:
        yield cluster
