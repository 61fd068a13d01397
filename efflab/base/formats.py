"""What a notebook's kernel and the tools around it agree on: languages and mime types."""

LANGUAGES = ("en", "zh")

VERDICT = "application/vnd.efflab.verdict+json"
BOARD = "application/vnd.efflab.board+json"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE = "image/png"
