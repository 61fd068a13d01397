"""The playground's page in Chromium computes what efflab computes."""

import json
import random
import threading
import time
from dataclasses import asdict

import numpy as np
import psutil
import pytest
import record
import torch
from browser import chromium  # noqa: F401 - a fixture

from efflab import data, points
from efflab.compression import affine, packed, pruning
from efflab.publishing.site import playground
from efflab.publishing.site.assets import Assets, npm_file
from efflab.publishing.site.playground import SCALES, Settings
from efflab.publishing.site.server import make_server
from efflab.publishing.site.templates import STATIC, environment, render
from efflab_rooms.pruning.measure import model_bytes

LOAD_SECONDS, MOVE_SECONDS = 90, 30
MOST_MS, MOST_GROWTH = 3000, 80e6
"""A move's milliseconds, 300 where nothing else runs, with a margin for a busy machine."""
UNCHANGED = Settings()
DOZEN = (
    UNCHANGED,
    *(Settings(bits=16), Settings(bits=4), Settings(bits=4, scale="tensor")),
    *(Settings(bits=3, scale="group"), Settings(bits=2), Settings(prune=0.35)),
    *(Settings(heads=7), Settings(heads=30), Settings(window=8), Settings(window=8, sinks=4)),
    *(Settings(4, "row", 0.3, 0, 64), Settings(5, "group", 0.125, 11, 24, 2)),
    Settings(3, "tensor", 0.5, 18),
)
TEXTS = (
    "",
    " ",
    "x",
    "def f(x):\n    return x  # it's 12 %\n\n\n",
    "a\u00a0b\u3000c\x85d\ufeffe\u2028\t\r\n x",
    "把语言模型变小。Größe, naïve — ½ ²³ 𝔘 👩‍💻 e\u0301 'll 'LL",
    "<|file|>import os<|file|>\n",
    "    \t  \n  mixed \r\n\r\n end   ",
)
"""Texts whose ids depend on Unicode's classes, on what is white space, and on the file's mark."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(folder):
    """Address of a server that has the playground in both languages."""
    assets = Assets(folder)
    for path in STATIC.iterdir():
        assets.add(path.name, path.read_bytes())
    values = playground.page_values(assets)
    for language, place in (("en", folder), ("zh", folder / "zh")):
        place.mkdir(exist_ok=True)
        html = render("playground.html", language, section="playground", **values)
        (place / "playground.html").write_text(html, encoding="utf-8")
    worker = environment().get_template("sw.js").render(assets=sorted(assets.places))
    (folder / "sw.js").write_text(worker, encoding="utf-8")
    with make_server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def tab(site, chromium):  # noqa: F811
    """The page, which at the end has said nothing on the console and asked no other host."""
    page, faults = chromium.new_page(viewport={"width": 1280, "height": 900}), []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda r: r.url.startswith((site, "data:")) or faults.append(r.url))
    page.add_init_script(COUNT)
    page.goto(f"{site}/playground.html")
    page.wait_for_selector("#result[data-json]", timeout=LOAD_SECONDS * 1000)
    yield page
    page.close()
    assert faults == []


COUNT = """window.counts = {};
const Plain = Worker;
Worker = class extends Plain {
  constructor(...values) {
    super(...values);
    this.addEventListener("message", ({data: {type}}) => {
      counts[type] = (counts[type] ?? 0) + 1;
    });
  }
};"""
"""Counts what the worker sends, by type."""
GO = """hash => new Promise(done => {
  addEventListener("hashchange", () => done(), {once: true});
  location.hash = hash;
})"""
MOVE = """([id, place, isFinal]) => {
  const input = document.getElementById(id);
  input.value = place;
  input.dispatchEvent(new Event("input", {bubbles: true}));
  if (isFinal) input.dispatchEvent(new Event("change", {bubbles: true}));
}"""
SCRIPT = "document.querySelector('script[type=module]').src.replace('main.js', name)"


def address(settings):
    return "&".join(f"{name}={value}" for name, value in asdict(settings).items())


def result(page):
    """What #result says as soon as it belongs to the address."""
    page.wait_for_selector("#result[data-json]", timeout=MOVE_SECONDS * 1000)
    return json.loads(page.get_attribute("#result", "data-json"))


def score_of(settings, text):
    """Bits per byte by efflab itself."""
    model = playground.lighten(settings)
    return playground.surprise(*playground.run(model, settings, text))[1]


def go(page, settings):
    if page.evaluate("location.hash") != f"#{address(settings)}":
        page.evaluate(GO, address(settings))
    return result(page)


def in_module(page, name, code, value):
    """What `code` returns, a function of one of the page's modules and a value.

    Both values travel as JSON, which is quicker than Playwright's own way, number by number.
    """
    call = f"({code})(await import({SCRIPT}), JSON.parse(text))"
    script = f"async ([name, text]) => JSON.stringify({call})"
    return json.loads(page.evaluate(script, [name, json.dumps(value)]))


# --- Parts -----------------------------------------------------------------------------------

QUANTIZE = """(module, [halves, rows, columns, bits, scale]) => {
  const values = Float32Array.from(halves, half => module.HALF[half]);
  const quantized = module.quantize(values, rows, columns, bits, scale,
    new Int16Array(values.length));
  module.dequantize(quantized, values);
  return [[...quantized.codes], [...quantized.scales], [...values]];
}"""


def halves_of(weight):
    return weight.half().flatten().view(torch.uint16).tolist()


@pytest.mark.parametrize("scale", SCALES)
def test_codes_are_efflabs(tab, scale):
    torch.manual_seed(0)
    weights = [torch.randn(rows, columns) for rows, columns in ((7, 70), (3, 192), (1, 1), (5, 64))]
    weights[0][2] = 0  # a row that has no scale
    weights.append(points.language_model().layers[1].attention.body.out.weight.detach())
    for bits in (2, 3, 4, 8, 13, 16):
        for weight in (w.half().float() for w in weights):
            value = [halves_of(weight), *weight.shape, bits, scale]
            codes, scales, values = in_module(tab, "quantize.js", QUANTIZE, value)
            expected = affine.quantize(weight, bits, **SCALES[scale])
            assert codes == expected.codes().flatten().tolist()
            assert scales == expected.scale.tolist()
            assert values == expected.dequantize().flatten().tolist()


def test_the_same_weights_are_pruned(tab):
    torch.manual_seed(0)
    many_alike = torch.randint(-3, 4, (9, 25)).float()
    code = "(module, [halves, ratio]) => (module.prune(halves, ratio), halves)"
    for weight in (torch.randn(16, 33).half().float(), many_alike, torch.zeros(2, 3)):
        for ratio in (0, 0.001, 0.1, 0.3, 0.5, 0.95, 1):
            pruned = in_module(tab, "quantize.js", code, [halves_of(weight), ratio])
            expected = weight.masked_fill(~pruning.magnitude_mask(weight, ratio), 0)
            assert pruned == halves_of(expected)


def test_ids_are_the_tokenizers(tab):
    samples = [text["text"] for text in page_data(tab)["texts"]]
    library = [text for _, text in data.stdlib_files("held-out")][:20]
    code = """(module, [vocabulary, merges, texts]) => {
      const tokenizer = new module.Tokenizer(vocabulary, merges);
      return texts.map(text => [tokenizer.encode(text), tokenizer.decode(tokenizer.encode(text))]);
    }"""
    description = json.loads(playground.describe())
    texts = [*TEXTS, *samples, *library]
    value = [description["vocabulary"], description["merges"], texts]
    for text, (ids, decoded) in zip(texts, in_module(tab, "tokens.js", code, value), strict=True):
        assert ids == data.tokenizer().encode(text).ids
        assert decoded == text.replace("<|file|>", "")


def page_data(page):
    return json.loads(page.locator("#page-data").text_content())


def test_bytes_are_those_of_efflab():
    model = points.language_model()
    assert playground.stored_bytes(model, UNCHANGED) == points.weight_bytes(model)
    for bits, scale in ((2, "tensor"), (5, "row"), (7, "group")):
        settings = Settings(bits, scale, heads=5)
        lighter = pruning.prune_heads(model, playground.removed_heads(5))
        codes = packed.quantize_weights(lighter, bits, embeddings=False, **SCALES[scale])
        assert playground.stored_bytes(lighter, settings) == packed.model_bytes(lighter, codes)
    pruned = playground.lighten(Settings(prune=0.5))
    assert playground.stored_bytes(pruned, Settings(prune=0.5)) == model_bytes(pruned, "bitmap")


def test_the_graph_written_out_is_the_model():
    ids = torch.from_numpy(data.tokens_of([TEXTS[3]]))[None]
    logits, *maps = playground.Graph(points.language_model())(
        ids, playground.visible_pairs(ids.shape[1], UNCHANGED)
    )
    torch.testing.assert_close(logits, points.language_model()(ids), atol=1e-4, rtol=1e-4)
    assert len(maps) == 6


# --- The whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", DOZEN, ids=address)
def test_numbers_are_efflabs(tab, settings):
    found = go(tab, settings)
    assert found["text"] == page_data(tab)["texts"][0]["text"]
    expected = {k: v for k, v in asdict(settings).items() if k != "sinks" or v}
    assert found["settings"] == expected
    assert found["bits_per_byte"] == pytest.approx(score_of(settings, found["text"]), abs=1e-3)
    assert found["baseline"] == pytest.approx(score_of(UNCHANGED, found["text"]), abs=1e-3)
    assert found["bytes"] == playground.stored_bytes(playground.lighten(settings), settings)


def test_every_text_is_scored(tab):
    go(tab, Settings(4))
    for i, text in enumerate(page_data(tab)["texts"]):
        tab.select_option("#text", str(i))
        found = result(tab)
        assert found["text"] == text["text"]
        assert found["bits_per_byte"] == pytest.approx(
            score_of(Settings(4), text["text"]), abs=1e-3
        )
    tab.select_option("#text", "0")


def test_ones_own_text_is_scored_and_goes_nowhere(tab):
    requests = []
    listen = lambda request: requests.append(request.url)  # noqa: E731
    tab.on("request", listen)
    long = "def f():\n    return '把语言模型变小'\n" * 20
    tab.select_option("#text", str(len(page_data(tab)["texts"])))
    for text in ("x = 1  # é\n", long):
        before = tab.evaluate("counts.result")
        tab.fill("#own-text", text)
        tab.wait_for_function("n => counts.result > n", arg=before)
        found = result(tab)
        assert text.startswith(found["text"].rstrip("\ufffd"))
        score = score_of(Settings(**found["settings"]), text)
        assert found["bits_per_byte"] == pytest.approx(score, abs=1e-3)
    assert tab.locator("#cut").is_visible()
    tab.select_option("#text", "0")
    result(tab)
    tab.remove_listener("request", listen)
    assert [url for url in requests if "/icon-" not in url] == []


def test_overtaken_moves_are_dropped(tab):
    go(tab, UNCHANGED)
    before = tab.evaluate("counts.result")
    places = [*range(1, 16)] * 4
    for place in places:
        tab.evaluate(MOVE, ["bits", place, False])
        assert tab.get_attribute("#result", "data-json") is None  # not the address's settings
    tab.evaluate(MOVE, ["bits", 13, True])
    found = result(tab)
    assert found["settings"]["bits"] == 4
    assert found["bits_per_byte"] == pytest.approx(score_of(Settings(4), found["text"]), abs=1e-3)
    assert tab.evaluate("counts.result") - before < len(places)


def test_the_address_is_the_state(tab):
    go(tab, Settings(4))
    tab.evaluate(MOVE, ["window", 10, True])
    assert result(tab)["settings"]["window"] == 8
    assert tab.evaluate("location.hash") == "#bits=4&scale=row&window=8"
    assert tab.locator("a[hreflang]").get_attribute("href").endswith("#bits=4&scale=row&window=8")
    tab.go_back()
    assert result(tab)["settings"] == {k: v for k, v in asdict(Settings(4)).items() if k != "sinks"}
    assert tab.get_attribute("#window", "aria-valuetext") == "everything"
    tab.go_forward()
    assert result(tab)["settings"]["window"] == 8
    tab.evaluate(GO, "bits=1&prune=2&scale=row&heads=3")
    assert result(tab)["settings"] == dict(bits=0, scale="row", prune=0, heads=3, window=0)
    assert "bits=1, prune=2" in tab.inner_text("#failure")
    for number, place in ((1, 1), (9, 0)):  # there is no ninth
        tab.evaluate(GO, f"bits=4&text={number}")
        assert result(tab)["text"] == page_data(tab)["texts"][place]["text"]
    tab.evaluate(GO, "heads=3&sinks=x")
    result(tab)
    assert tab.locator("#failure").is_visible()
    tab.click("#reset")
    assert result(tab)["settings"]["heads"] == 0
    assert tab.evaluate("location.hash") == ""
    assert not tab.locator("#failure").is_visible()


def test_both_models_write_as_efflab_does(tab):
    go(tab, Settings(2))
    text = page_data(tab)["texts"][0]["text"]
    tab.wait_for_selector("#complete:disabled")
    tab.wait_for_selector("#complete:enabled", timeout=60_000)
    for box, settings in (("unchanged", UNCHANGED), ("changed", Settings(2))):
        prompt = tab.inner_text(f"#write-{box} .muted")
        assert text.startswith(prompt)
        assert len(prompt) > 50
        ids = torch.from_numpy(data.tokens_of([prompt]))[None]
        new = playground.lighten(settings).generate(ids, 28, temperature=0)[0, ids.shape[1] :]
        assert tab.text_content(f"#write-{box}") == prompt + data.tokenizer().decode(new.tolist())
    tab.click("#complete")
    tab.click("#stop")
    written = tab.text_content("#write-changed")
    tab.wait_for_timeout(1000)
    assert tab.text_content("#write-changed") == written


def test_the_record_completes_the_challenge(tab):
    challenge = page_data(tab)["challenge"]
    assert (challenge["prompt"], challenge["target"]) == (record.PROMPT, record.TARGET)
    settings = Settings(**challenge["settings"])
    model = playground.lighten(settings)
    assert record.completes(model, settings)
    assert not record.completes(playground.lighten(Settings(2)), Settings(2))
    assert challenge["bytes"] == playground.stored_bytes(model, settings)
    tab.click("#challenge-show")
    assert result(tab)["bytes"] == challenge["bytes"]
    tab.wait_for_selector("#challenge-now.holds", timeout=MOVE_SECONDS * 1000)
    assert tab.inner_text("#challenge-best") == tab.inner_text("#challenge-record")
    go(tab, Settings(2))
    tab.wait_for_selector("#challenge-now.fails", timeout=MOVE_SECONDS * 1000)


def test_tokens_are_reached_by_keyboard(tab):
    go(tab, Settings(3))
    tab.focus("#tokens [tabindex='0']")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    focused = tab.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "cost" in focused
    assert tab.inner_text("#readout") == focused


@pytest.mark.parametrize("path", ["playground.html", "zh/playground.html"])
def test_nothing_is_serious_to_axe(chromium, site, path):  # noqa: F811
    axe = npm_file("axe-core", "axe.min.js").decode()
    page = chromium.new_page()
    page.goto(f"{site}/{path}#bits=4")
    result(page)
    page.evaluate(axe)
    violations = page.evaluate("axe.run().then(found => found.violations)")
    page.close()
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in serious] == []


def test_what_is_missing_is_said(chromium, site, folder):  # noqa: F811
    page = chromium.new_page()
    page.goto(f"file://{folder}/playground.html")
    assert page.locator("#from-disk").is_visible()
    assert not page.locator("#no-wasm").is_visible()
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(f"{site}/playground.html")
    assert page.locator("#no-wasm").is_visible()
    assert not page.locator("#tokens").is_visible()
    page.close()


@pytest.mark.release
def test_a_hundred_moves_are_quick_and_leave_nothing(tab):
    rng, times, sizes = random.Random(0), [], []
    go(tab, UNCHANGED)
    names = {name: int(tab.get_attribute(f"#{name}", "max")) for name in NAMES}
    for _ in range(120):
        name = rng.choice(NAMES)
        start = time.perf_counter()
        tab.evaluate(MOVE, [name, rng.randint(0, names[name]), True])
        result(tab)
        times.append(1000 * (time.perf_counter() - start))
        tab.wait_for_timeout(rng.choice((0, 100, 700)))
        sizes.append(memory())
    assert np.quantile(times, 0.95) < MOST_MS
    # least ones: between two collections of garbage memory grows anyway; the first moves warm up
    assert min(sizes[-40:]) - min(sizes[20:60]) < MOST_GROWTH


NAMES = ("bits", "prune", "heads", "window", "sinks")


def memory():
    """Bytes of the processes that this one has started: Chromium's."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children if "chrom" in child.name())
