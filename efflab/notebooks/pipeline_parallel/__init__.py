"""The room behind notebook 13: layers cut inside and across, schedules, splits, plans, verdicts."""

from pathlib import Path

TEXTS = Path(__file__).with_name("zh.toml")
"""The Chinese of what this room shows."""
