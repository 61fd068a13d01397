"""The explorer that the tests of explorers move and store."""

import numpy as np

from efflab import lab
from efflab.errors import require
from efflab.lab import Slider, Toggle, explorer


@explorer(
    window_size=Slider(16, 512, 128, step=16, unit="tokens", label="value"),
    causal=Toggle(False, label="causal"),
)
def cost(window_size, causal=False):
    require(window_size <= 400, "window_size", window_size, "at most {high}", high=400)
    x = np.array([128, 256, 512])
    series = {"full": x * x, "window": x * window_size}
    if causal:
        series["half"] = x * window_size / 2
    return lab.line(x, series, f"w = {window_size}", meta={"window": window_size})
