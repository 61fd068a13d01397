"""The rooms behind the notebooks: one package each, named as its source without the number."""

from pathlib import Path


def texts(room: str) -> Path:
    """Where the Chinese of what a room shows stands: `texts("gptq")`."""
    return Path(__file__).parent / room / "zh.toml"
