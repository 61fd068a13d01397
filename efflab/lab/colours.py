"""All colours of figures and cards, by name; no other file has their codes.

The seven of a series are Okabe and Ito's (2008), distinguishable with any colour vision.
"""

BLUE, VERMILION, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, DARK = "#E69F00", "#56B4E9", "#444444"
SERIES = (BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, DARK)

BLACK, WHITE, CLEAR = "#222222", "#ffffff", "rgba(0,0,0,0)"
MID_GREY, GREY, SOFT_GREY, LIGHT_GREY = "#767676", "#999999", "#bbbbbb", "#cccccc"
PALE_GREY, GRID_GREY, FAINT_GREY = "#e8e8e8", "#e4e4e4", "#f4f4f4"
VEIL = "rgba(255,255,255,0.8)"
"""Translucent white, behind legends and labels."""

SCALE, ONE_HUE = "Viridis", "Blues"
DIVERGING, DIVERGING_WARM = "RdBu", "RdBu_r"
"""Scales by plotly's names: of amounts, and around zero, where high is blue or (warm) red."""

RIGHT, PARTLY, WRONG, OPEN = GREEN, ORANGE, VERMILION, MID_GREY
"""Colours of the outcomes of verdicts and checks."""


def tint(colour: str, share: float) -> str:
    """The colour mixed with white: `share` 1 is the colour itself, 0 white.

    >>> tint("#000000", 0.2)
    '#cccccc'
    """
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - share * (255 - c)):02x}" for c in channels)
