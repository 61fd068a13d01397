"""The room behind notebook 15: its figures, measurements, verdicts and exercises."""

from pathlib import Path

TEXTS = Path(__file__).with_name("zh.toml")
"""The Chinese of what this room shows."""
