"""How long a reader waits after a key on a slider; to be run by hand on an idle machine.

    .venv/bin/python -m pytest -s tests/publishing/latency.py

Nothing is asserted: milliseconds belong to a machine. On notebook 00's whole page, each explorer's
first slider is moved 50 times; then six moves are made as quickly as a key repeats.
"""

from statistics import median, quantiles

import browser
import nbformat

from efflab.publishing.catalog import NOTEBOOKS, built_path, sources

N_MOVES, N_BURST = 50, 6
# From the key to the frame in which the picture says other numbers; the handle turns at its ends.
MOVE = """async ([index, n]) => {
  const handle = document.querySelectorAll('.efflab-explorer')[index].querySelector('.noUi-handle');
  const numbers = () => (NUMBERS)(index);
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
}""".replace("NUMBERS", browser.NUMBERS)


def test_milliseconds_from_key_to_picture(lab, chromium):
    path = built_path(sources()["00"], "en")
    n_cells = sum(c.cell_type == "code" for c in nbformat.read(path, as_version=4).cells)
    name = path.relative_to(NOTEBOOKS).as_posix()
    with browser.opened_and_run(name, n_cells, "latency", lab, chromium) as page:
        for index in range(page.locator(browser.EXPLORER).count()):
            page.locator(browser.EXPLORER).nth(index).scroll_into_view_if_needed()
            browser.first_numbers(page, index)
            print(f"\nexplorer {index}: {waits(page, index)}")


def waits(page, index):
    """The figures of one explorer, in words."""
    page.evaluate(MOVE, [index, 1])  # the first move draws what the later ones only change
    found = [page.evaluate(MOVE, [index, 1]) for _ in range(N_MOVES)]
    seen = [wait for wait in found if wait is not None]
    burst = page.evaluate(MOVE, [index, N_BURST])
    return (
        f"median {median(seen):.0f} ms, p95 {quantiles(seen, n=20)[-1]:.0f} ms over {len(seen)} of "
        f"{N_MOVES} moves; a burst of {N_BURST} settles in {burst:.0f} ms"
    )
