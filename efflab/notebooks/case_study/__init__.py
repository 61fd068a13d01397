"""The room behind notebook 14: a model made light step by step, its engines, 72 hours, verdicts."""

from pathlib import Path

TEXTS = Path(__file__).with_name("zh.toml")
"""The Chinese of what this room shows."""
