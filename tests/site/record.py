"""The playground's challenge and the record to beat: `python tests/site/record.py` finds it anew.

The smallest model on a coarse grid that still completes the function, in five minutes; finer steps
of the sliders may beat it.
"""

import json
from dataclasses import asdict
from itertools import product

from efflab import data
from efflab.base.files import write_atomically
from efflab.publishing.site.playground import (
    CHALLENGE,
    SCALES,
    Settings,
    lighten,
    run,
    stored_bytes,
)

PROMPT = """def __repr__(self):
    if self._key is not None:
        return f"{self.__class__.__name__}(key={self._key!r})"
    else"""
TARGET = """:
        return f"{self.__class__.__name__}"""
"""From the held-out module `zoneinfo`; the unchanged model goes on as the library does."""


def completes(model, settings):
    """Whether greedy decoding after `PROMPT` gives `TARGET`."""
    logits, ids = run(model, settings, PROMPT + TARGET)
    new = slice(len(data.tokens_of([PROMPT])) - 1, None)
    return bool((logits[new].argmax(-1) == ids[new]).all())


def find_record():
    axes = (2, 3, 4, 5, 6), SCALES, (0.0, 0.2, 0.3, 0.4, 0.5, 0.6), range(0, 19, 3)
    grid, sizes = [Settings(*place) for place in product(*axes)], {}
    for settings in grid:
        model = lighten(settings)
        if completes(model, settings):
            sizes[settings] = stored_bytes(model, settings)
    best = min(sizes, key=sizes.__getitem__)
    return dict(settings=asdict(best), bytes=sizes[best], tried=len(grid))


if __name__ == "__main__":
    challenge = dict(prompt=PROMPT, target=TARGET) | find_record()
    write_atomically(CHALLENGE, json.dumps(challenge, indent=1) + "\n")
