"""The planner in Chromium: its numbers are Python's to the digit, and nothing breaks it."""

import json
import os
import re
import statistics

import pytest
from browser import SCREENSHOTS
from planner_pages import Planner, build, serving

from efflab import cli
from efflab.advice.card import read_card
from efflab.advice.case import Case
from efflab.advice.ranking import whole
from efflab.base.places import ROOT
from efflab.publishing.site.assets import npm_file

RELEASED = {
    row["name"]: row["config"]
    for row in json.loads((ROOT / "data/published/configs.json").read_text("utf-8"))
}
KINDS = ("bert-base", "albert-xxlarge", "gpt2", "qwen3-8b", "gpt-oss-20b", "deepseek-v3")
"""An encoder, shared layers, plain heads, grouped ones, experts with windows, latent attention."""
FIRST_SECONDS, MOVE_MS = 10, 300
LLAMA = dict(model_type="llama", vocab_size=1000, num_hidden_layers=2, num_attention_heads=4)
LLAMA |= dict(hidden_size=64, intermediate_size=96)
HOSTILE = {
    "nothing.json": "{}",
    "half": '{"model_type": ',
    "list": "[1, 2]",
    "number": "1e400",
    "infinite": json.dumps(LLAMA | dict(rms_norm_eps=1)).replace("1}", "1e400}"),
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 60 + "1" + "}" * 60,
    "twice": '{"a": 1, "a": 2}',
    "unheard": '{"model_type": "<img src=x onerror=document.title=1>"}',
    "encoder and decoder": '{"model_type": "t5"}',
    "words": json.dumps(LLAMA | dict(hidden_size="many")),
    "negative": json.dumps(LLAMA | dict(num_hidden_layers=-1)),
    "unfit heads": json.dumps(LLAMA | dict(num_key_value_heads=3)),
    "huge": json.dumps(LLAMA | dict(max_position_embeddings=2**63 - 1)),
    "digits": '{"n": ' + "9" * 5000 + "}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as address:
        yield address


def crowd():
    """How many processes share a core of this machine: times are longer by as much."""
    return max(1.0, os.getloadavg()[0] / os.cpu_count())


@pytest.fixture(scope="module")
def pages(address, chromium):
    """The page in both languages, opened once."""
    opened = {language: Planner(chromium, address, language).open() for language in ("en", "zh")}
    yield opened
    for page in opened.values():
        page.context.close()


@pytest.fixture(params=["en", "zh"])
def planner(pages, request):
    """The opened page; what a test did to it must have left its console empty."""
    page = pages[request.param]
    page.said.clear()
    yield page
    assert page.said == []


def test_card_and_advice_are_pythons_to_the_digit(planner):
    for name in KINDS:
        planner.go(f"model={name}", name)
        assert planner.json() == json.dumps(read_card(name), indent=1)
        budget = "decode" if read_card(name)["kv_bytes_per_token"] else "latency"
        case = Case(name, "H100 SXM", budget)
        assert planner.json("advice") == json.dumps(whole(case), indent=1)


def test_they_are_what_the_commands_say(planner, capsys):
    flags = ["--tflops", "165.2", "--gb", "24", "--gbps", "1008"]
    planner.go("model=gpt2-xl&device=own&tflops=165.2&gb=24&gbps=1008&budget=memory", "gpt2-xl")
    assert cli.main(["card", "gpt2-xl", "--json", *flags]) == 0
    assert planner.json() + "\n" == capsys.readouterr().out
    assert cli.main(["advise", "gpt2-xl", "your own", "memory", "--json", *flags]) == 0
    assert planner.json("advice") + "\n" == capsys.readouterr().out
    shown = planner.page.text_content("#card tr.chosen")
    assert ("your own" in shown) == ("zh" not in planner.address)


@pytest.mark.parametrize(
    "asked", [("A100 80GB SXM", "training days", 8, 1024), ("CPU with VNNI", "latency", 1, 128)]
)
def test_the_case_is_in_the_address(planner, asked):
    device, budget, n_devices, tokens = asked
    state = f"model=gpt2&device={device}&budget={budget}&devices={n_devices}&tokens={tokens}"
    planner.go("model=bert-large", "bert-large")
    planner.go(state, "gpt2")
    case = Case("gpt2", device, budget, n_devices, tokens)
    assert planner.json("advice") == json.dumps(whole(case), indent=1)
    fields = {name: planner.page.input_value(f"#{name}") for name in ("device", "budget", "tokens")}
    assert fields == dict(device=device, budget=budget, tokens=str(tokens))
    planner.page.select_option("#model", "gpt2-medium")
    planner.wait("advice", "gpt2-medium")
    assert "model=gpt2-medium" in planner.page.url
    assert f"tokens={tokens}" in planner.page.url


def test_pasted_configs(planner):
    names = [*RELEASED][:: len(RELEASED) // 6]
    for name in names:
        assert planner.paste(RELEASED[name]) == ""
        assert planner.json() == json.dumps(read_card(RELEASED[name]), indent=1)
        assert "#" not in planner.page.url


def test_a_file_is_called_by_its_name(planner, tmp_path, capsys):
    path = tmp_path / "my <b>model.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    planner.page.set_input_files("#file", str(path))
    planner.wait("card", "my <b>model")
    assert cli.main(["card", str(path), "--json"]) == 0
    assert planner.json() + "\n" == capsys.readouterr().out
    assert "my <b>model" in planner.page.text_content("#card h2")


@pytest.mark.parametrize("name", HOSTILE)
def test_nonsense_is_a_sentence_beside_the_field(planner, name):
    words = planner.paste(HOSTILE[name])
    assert 10 < len(words) < 400
    assert bool(re.search("[一-鿿]", words)) == ("zh" in planner.address)
    assert "Error" not in words or name == "huge"
    assert planner.page.get_attribute("#config", "aria-invalid") == "true"
    assert not planner.page.is_visible("#card")
    assert planner.paste(LLAMA | dict(_name_or_path="<i onclick=alert(1)>x</i>")) == ""
    assert planner.page.get_attribute("#config", "aria-invalid") is None
    assert planner.page.locator("main i, main img").count() == 0
    assert planner.page.locator("#card h2").text_content().startswith("<i onclick=alert(1)>x</i>")


def test_a_large_file_is_read_and_a_larger_one_refused(planner, tmp_path):
    path = tmp_path / "large.json"
    path.write_text(json.dumps(LLAMA | dict(_pad="x" * 5_000_000)))
    planner.page.set_input_files("#file", str(path))
    planner.wait("card", "large")
    path.write_text(json.dumps(LLAMA | dict(_pad="x" * 10_000_000)))
    planner.page.set_input_files("#file", str(path))
    planner.page.wait_for_function("() => document.getElementById('config-error').textContent")
    assert "10 MB" in planner.page.text_content("#config-error")


@pytest.mark.parametrize(
    ("state", "field"),
    [
        ("model=gpt5", "model"),
        ("model=gpt2&device=<b>", "device"),
        ("model=gpt2&device=own&tflops=many&gb=1&gbps=1", "tflops"),
        ("model=gpt2&device=own&gb=1", "device"),
        ("model=gpt2&device=own&tflops=0&gb=1&gbps=1", "tflops"),
        ("model=gpt2&tokens=4096", "tokens"),
        ("model=gpt2&tokens=-1", "tokens"),
        ("model=gpt2&devices=0", "devices"),
        ("model=gpt2&device=CPU with VNNI&devices=2", "devices"),
    ],
)
def test_what_a_field_cannot_be_is_said_beside_it(planner, state, field):
    planner.page.evaluate("state => { location.hash = state }", state)
    planner.page.wait_for_function(f"() => document.getElementById('{field}-error').textContent")
    words = planner.page.text_content(f"#{field}-error")
    assert bool(re.search("[一-鿿]", words)) == ("zh" in planner.address)
    planner.go("model=gpt2", "gpt2")
    assert planner.page.locator(".error:not(:empty)").count() == 0


def test_moves_that_newer_ones_overtook_are_dropped(planner):
    planner.go("model=gpt2", "gpt2")
    names = planner.page.eval_on_selector_all("#model option", "all => all.map(o => o.value)")[1:]
    names = [*names, *names, "bert-base"]
    planner.page.evaluate(
        """names => {
          window.drawn = new Set();
          const card = document.getElementById('card');
          const watch = new MutationObserver(() => drawn.add(card.dataset.json));
          watch.observe(card, {attributes: true});
          const field = document.getElementById('model');
          for (const name of names) {
            field.value = name;
            field.dispatchEvent(new Event('input', {bubbles: true}));
          }
        }""",
        names,
    )
    planner.wait("advice", "bert-base")
    assert planner.json() == json.dumps(read_card("bert-base"), indent=1)
    assert planner.page.evaluate("drawn.size") <= 3


MOVE = """async name => {
  const part = document.getElementById('card'), field = document.getElementById('model');
  const isThere = () => part.dataset.json && JSON.parse(part.dataset.json).name === name;
  const start = performance.now();
  field.value = name;
  field.dispatchEvent(new Event('input', {bubbles: true}));
  while (!isThere()) await new Promise(resolve => setTimeout(resolve, 1));
  return performance.now() - start;
}"""


def test_the_first_answer_and_those_after_it_are_quick(address, chromium):
    """The least of three: other work on the machine makes them longer, never shorter."""
    firsts, middles = [], []
    for _ in range(3):
        page = Planner(chromium, address)
        page.page.goto("about:blank")
        start = page.page.evaluate("Date.now()")
        page.open()
        firsts.append((page.page.evaluate("Date.now()") - start) / 1000)
        page.wait("advice", "qwen3-8b")
        moves = [page.page.evaluate(MOVE, name) for name in (*KINDS[:3], *KINDS[4:])]
        middles.append(statistics.median(moves))
        assert page.said == []
        page.context.close()
        if firsts[-1] < FIRST_SECONDS and middles[-1] < MOVE_MS:
            break
    seconds, milliseconds, others = min(firsts), min(middles), crowd()
    print(f"first answer {seconds:.1f} s, then {milliseconds:.0f} ms; a core for {others:.1f}")
    assert seconds < FIRST_SECONDS * others
    assert milliseconds < MOVE_MS * others


def test_without_webassembly_and_from_disk_the_page_says_so(folder, address, chromium):
    page = Planner(chromium, address)
    page.page.add_init_script("delete globalThis.WebAssembly")
    page.page.goto(page.address)
    assert page.page.is_visible("#no-engine")
    assert not page.page.is_visible("#plan")
    for path in ("planner.html", "zh/planner.html"):
        page.page.goto((folder / path).as_uri())
        assert page.page.is_visible("#from-disk")
        assert not page.page.is_visible("#plan")
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_the_screen_and_axe_finds_nothing(planner, width, scheme):
    page = planner.go("model=gpt-oss-20b&device=H100 SXM", "gpt-oss-20b").page
    page.set_viewport_size(dict(width=width, height=900))
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.locator("#advice summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(npm_file("axe-core", "axe.min.js").decode())
    found = page.evaluate("axe.run()")["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in found] == []
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    language = "zh" if "zh" in planner.address else "en"
    name = f"planner-{language}-{width}-{scheme}.png"
    page.screenshot(path=SCREENSHOTS / name, full_page=True)


def test_it_is_driven_by_keyboard_alone(planner):
    planner.go("model=gpt2", "gpt2")
    planner.page.focus("#model")
    order = []
    for _ in range(6):
        order.append(planner.page.evaluate("document.activeElement.id"))
        planner.page.keyboard.press("Tab")
    assert order == ["model", "config", "file", "device", "budget", "devices"]
    planner.page.focus("#model")
    planner.page.keyboard.press("ArrowDown")
    planner.wait("advice", "gpt2-medium")
    assert "gpt2-medium" in planner.page.text_content("[role=status]")
    labels = planner.page.eval_on_selector_all(
        "#plan :is(select, input, textarea)", "all => all.map(field => field.labels.length)"
    )
    assert set(labels) == {1}
