"""Ranks import the functions they run: those of the tests are in modules beside this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
