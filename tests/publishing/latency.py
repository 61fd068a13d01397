"""How long a reader waits after a key on a slider; to be run by hand on an idle machine.

    .venv/bin/python -m pytest -s tests/publishing/latency.py

Nothing is asserted: milliseconds belong to a machine. On notebook 00's whole page, each explorer's
first slider is moved 50 times; then six moves are made as quickly as a key repeats.
"""

import uuid
from statistics import median, quantiles

import nbformat
import test_browser as browser
from test_browser import chromium, lab, lab_folder  # noqa: F401 - fixtures

from efflab.publishing.catalog import NOTEBOOKS, built_path, sources

N_MOVES, N_BURST = 50, 6
# From the key to the frame in which the picture says other numbers; the handle turns at its ends.
MOVE = """async ([index, n]) => {
  const explorer = document.querySelectorAll('.efflab-explorer')[index];
  const handle = explorer.querySelector('.noUi-handle');
  const numbers = () => {
    const plot = explorer.querySelector('.js-plotly-plot');
    return plot && plot.layout && plot.layout.meta ? JSON.stringify(plot.layout.meta) : null;
  };
  const frame = () => new Promise(requestAnimationFrame);
  const value = name => handle.getAttribute('aria-value' + name);
  if (value('now') === value('max')) window.turned = 'ArrowLeft';
  if (value('now') === value('min')) window.turned = 'ArrowRight';
  const key = window.turned || 'ArrowRight';
  handle.focus();
  let before = numbers();
  const start = performance.now();
  for (let i = 0; i < n; i++) {
    handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    if (n > 1) await new Promise(done => setTimeout(done, 33));
  }
  let last = null;
  while (performance.now() - start < (last === null ? 10000 : last + 600)) {
    await frame();
    const now = numbers();
    if (now && now !== before) { last = performance.now() - start; before = now; }
    if (n === 1 && last !== null) return last;
  }
  return last;
}"""


def test_milliseconds_from_key_to_picture(lab, chromium):  # noqa: F811
    path = built_path(sources()["00"], "en")
    n_cells = sum(c.cell_type == "code" for c in nbformat.read(path, as_version=4).cells)
    name = path.relative_to(NOTEBOOKS).as_posix()
    kernel = browser.start_kernel(lab, name)
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{lab}/lab/workspaces/{uuid.uuid4().hex}/tree/{name}")
    page.wait_for_selector(".jp-NotebookPanel-toolbar", timeout=90_000)
    state = lambda: browser.request(kernel)  # noqa: E731
    idle = lambda: state()["connections"] > 0 and state()["execution_state"] == "idle"  # noqa: E731
    browser.wait_for(idle, 90, "the kernel is connected and idle")
    browser.run_all(page)
    browser.wait_for(lambda: browser.has_run(page, n_cells), 300, "all have run")
    for index in range(page.locator(browser.EXPLORER).count()):
        explorer = page.locator(browser.EXPLORER).nth(index)
        explorer.scroll_into_view_if_needed()
        browser.wait_for(lambda i=index: page.evaluate(browser.NUMBERS, i), 60, "a picture")
        page.evaluate(MOVE, [index, 1])  # the first move draws what the later ones only change
        waits = [page.evaluate(MOVE, [index, 1]) for _ in range(N_MOVES)]
        seen = [w for w in waits if w is not None]
        burst = page.evaluate(MOVE, [index, N_BURST])
        print(
            f"\nexplorer {index}: median {median(seen):.0f} ms, p95 {quantiles(seen, n=20)[-1]:.0f}"
            f" ms over {len(seen)} of {N_MOVES} moves; a burst of {N_BURST} settles in {burst} ms"
        )
