"""What notebooks use to show things: predict, explore, check, verdict, in English and Chinese."""

from efflab.lab.board import board
from efflab.lab.check import Exercise, Mismatch, check
from efflab.lab.controls import Choice, Slider, Toggle, explorer
from efflab.lab.evidence import Evidence, by_id
from efflab.lab.explore import Explorer, explore
from efflab.lab.figures import bars, blank, heatmap, line, loglog, mark, panels, show
from efflab.lab.judge import judge
from efflab.lab.notebook import use_notebook
from efflab.lab.outcome import Outcome, Part, outcome_words
from efflab.lab.page import prepare_build, show_source
from efflab.lab.predict import Prediction, predict
from efflab.lab.tables import table
from efflab.lab.text import KINDS, number, tr, use_language
from efflab.lab.verdict import load_claims, verdict
