"""What a notebook's kernel and the tools around it agree on: languages and mime types."""

LANGUAGES = ("en", "zh")
OTHER = {"en": "zh", "zh": "en"}

VERDICT = "application/vnd.efflab.verdict+json"
STATEMENT = "application/vnd.efflab.statement+json"
BOARD = "application/vnd.efflab.board+json"
PLOTLY = "application/vnd.plotly.v1+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE = "image/png"
