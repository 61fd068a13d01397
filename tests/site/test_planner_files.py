"""What the planner ships of efflab: enough by itself, the same every time, and nothing besides."""

import json
import subprocess
import sys

import pytest

from efflab.advice.case import ALL_DEVICES, BUDGETS, SERVING
from efflab.base.places import ROOT
from efflab.config import PRESETS
from efflab.lab import text
from efflab.publishing.site import answer as answers
from efflab.publishing.site.answer import answer
from efflab.publishing.site.planner import SCRIPTS, archive, python_files

RELEASED = json.loads((ROOT / "data/published/configs.json").read_text("utf-8"))
BARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from efflab.publishing.site.answer import answer
with open(sys.argv[1] + "/zh.json", encoding="utf-8") as file:
    texts = json.load(file)
print(json.dumps([answer(asked, texts) for asked in json.load(sys.stdin)]))
loaded = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
assert not [path for path in loaded if "site-packages" in path]
"""


def questions():
    """The cards of all models, and advice for each on one device; one model's on all devices."""
    sources = [dict(preset=name) for name in PRESETS]
    sources += [dict(text=json.dumps(row["config"])) for row in RELEASED]
    case = dict(n_devices=1, seq_len=None)
    for source in sources:
        yield source
        for budget in ("latency", "decode"):
            yield source | case | dict(device="H100 SXM", budget=budget)
    for device in ALL_DEVICES:
        for budget in (*BUDGETS, *SERVING):
            yield dict(preset="gpt2") | case | dict(device=device, budget=budget)
    yield dict(preset="gpt2", own=dict(tflops=100, gb=24, gbps=1000))
    yield dict(preset="gpt2", device="H100 SXM", budget="memory", n_devices=8, seq_len=512)


@pytest.fixture(scope="module")
def files():
    """What `python_files` finds, by a process of its own."""
    return python_files()


@pytest.fixture(scope="module")
def chinese(files):
    return json.loads(files["zh.json"])


@pytest.fixture(scope="module")
def replies(chinese):
    """[(question, its answer in this process)]."""
    return [(question, answer(question, chinese)) for question in questions()]


def test_a_bare_python_answers_from_the_files_alone(files, replies, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    asked = [question for question, _ in replies]
    command = [sys.executable, "-I", "-S", "-c", BARE, str(tmp_path)]
    reply = subprocess.run(
        command, input=json.dumps(asked), cwd=tmp_path, capture_output=True, encoding="utf-8"
    )
    assert reply.stderr == ""
    found = json.loads(reply.stdout)
    assert len(found) == len(replies) > 250
    for there, (question, here) in zip(found, replies, strict=True):
        assert "json" in there
        assert there == here, question


def test_the_archive_is_the_same_every_time(files):
    assert archive(files) == archive(dict(reversed(files.items())))
    assert python_files() == files
    assert {name.partition("/")[0] for name in files} == {"efflab", "zh.json"}
    assert not [name for name in files if "torch" in name or "/lab/" in name]
    assert sum(map(len, files.values())) < 700_000


# --- Words -----------------------------------------------------------------------------------


def test_every_word_of_an_answer_has_its_chinese(replies):
    """All but names, places in the repository, and numbers."""
    english = set()
    for _, reply in replies:
        english |= set(sentences(json.loads(reply["json"]))) - reply["words"].keys()
    assert english == set()


def sentences(value, key=""):
    """The texts that the page shows in its own language."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from sentences(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from sentences(inner, key)
    elif isinstance(value, str) and key in SHOWN and text.needs_translation(value):
        yield value


SHOWN = "shape experts cache text notes technique why metric kind lost_kind gain_model".split()
SHOWN += ["lost_model"]


def test_a_refusal_is_in_the_readers_language(chinese):
    for wanted in ("{", "{}", '{"model_type": "mpt", "n_layers": "2"}', '{"model_type": "x"}'):
        here, there = (answer(dict(text=wanted), texts) for texts in ({}, chinese))
        assert not text.has_chinese(here["refusal"])
        assert text.has_chinese(there["refusal"])
        assert here["field"] == there["field"] == "model"


def test_what_nobody_foresaw_is_a_sentence_too(monkeypatch):
    def broken(source, own):
        raise MemoryError("too much")

    monkeypatch.setattr(answers, "read_card", broken)
    assert "MemoryError: too much" in answer(dict(preset="gpt2"), {})["refusal"]


def test_the_scripts_are_short():
    for path in SCRIPTS.iterdir():
        assert len(path.read_text("utf-8").splitlines()) <= 200
