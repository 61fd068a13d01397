"""Printing for the commands: on any terminal, in any encoding, errors included."""

import argparse
import codecs
import errno
import io
import os
import sys
import unicodedata
from pathlib import Path

from efflab.base.files import PART
from efflab.errors import Refusal

LONGEST_LINE = 600
"""Most characters in a line of a message; longer lines are cut in the middle, except a list of
what is allowed, where any item may be the one that is looked for."""
LOOKALIKES = str.maketrans(
    {"—": "-", "–": "-", "−": "-", "×": "x", "·": "*", "≤": "<=", "≥": ">=", "≈": "~", "→": "->"}
    | dict(zip("“”‘’✓✗◐◑", "\"\"''+-~~", strict=True))
)
"""ASCII replacements for characters that a terminal may lack; accents are dropped separately."""
ELSEWHERE = "it cannot be written here; start efflab in a copy of the repository that you may write"
FULL = "free some space and start it again: what was finished is kept"
REMEDIES = dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), ELSEWHERE)
REMEDIES |= dict.fromkeys((errno.ENOSPC, errno.EDQUOT), FULL)
REMEDIES |= {errno.ENAMETOOLONG: "a shorter name is needed"}
SOURCE = "a preset's name, a config.json, its folder, or with a network a model of the hub"
DEVICE = 'such as "L4", "h200", "CPU with VNNI", or any name with --tflops, --gb and --gbps'
TOKENS = "tokens of a text, or cached before for decode; default: the longest, at most 4096"
STOPPED = "stopped; what was finished is kept, and the same command goes on from there"


def use_any_encoding() -> None:
    """From here on, characters that stdout or stderr cannot encode are replaced by similar ones."""
    codecs.register_error("nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="nearest")


def _nearest(error: UnicodeEncodeError) -> tuple[str, int]:
    text = error.object[error.start : error.end].translate(LOOKALIKES)
    letters = unicodedata.normalize("NFKD", text)
    return letters.encode("ascii", "ignore").decode() or "?", error.end


def usable_language(language: str) -> str:
    """`language`, or "en" with a note on stderr if the terminal cannot encode Chinese."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        ("中文" if language == "zh" else "").encode(encoding)
    except UnicodeEncodeError:
        say = f"efflab: {encoding} has no Chinese, so this is English; PYTHONIOENCODING=utf-8 has"
        print(say, file=sys.stderr)
        return "en"
    return language


def say_error(error: BaseException) -> None:
    """Print an error's message on stderr, which may itself not be writable."""
    try:
        print(f"efflab: {words(error)}", file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def words(error: BaseException) -> str:
    """An error's message with a remedy."""
    if isinstance(error, KeyboardInterrupt):
        return STOPPED
    if isinstance(error, ImportError):
        return f"{error}; `efflab doctor` says what is missing"
    if isinstance(error, OSError) and error.strerror:
        where = f"{_file(error.filename)}: " if error.filename else ""
        remedy = REMEDIES.get(error.errno)
        return _shorten(f"{where}{error.strerror}{f'; {remedy}' if remedy else ''}")
    is_list = isinstance(error, Refusal) and "options" in error.fields
    return str(error) if is_list else _shorten(str(error))


def _file(name) -> str:
    """A file's name for the reader: relative, and without the suffix of unfinished files."""
    path = Path(PART.sub("", os.fsdecode(name)))
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except OSError:  # the folder that efflab was started in is gone
        return str(path)


def _shorten(text: str) -> str:
    half = LONGEST_LINE // 2
    lines = text.split("\n")
    return "\n".join(
        f"{line[:half]} ... {line[-half:]}" if len(line) > LONGEST_LINE else line for line in lines
    )


def flush() -> None:
    """Flush stdout, so that a full disk is reported while that is still possible.

    Python would flush again at exit, where an error cannot be handled, so stdout is silenced then.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        raise type(error)(error.errno, error.strerror, "standard output") from None


def silence(stream) -> None:
    """Redirect a stream to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class Help(argparse.Action):
    """`--help` of a command on a notebook: with its parameters, where a notebook is named."""

    def __init__(self, option_strings, dest):
        super().__init__(option_strings, dest, nargs=0, help="this text, and NN's parameters")

    def __call__(self, parser, namespace, values, option_string=None):
        """Print the help, and end."""
        parser.print_help()
        if namespace.notebook:
            from efflab.publishing.catalog import find
            from efflab.publishing.parameters import offer
            from efflab.publishing.source import read_source

            path = find(namespace.notebook)
            print("", f"parameters of {path.stem}:", *offer(path, read_source(path)), sep="\n  ")
        parser.exit()


def add_advice_options(card: argparse.ArgumentParser, advice: argparse.ArgumentParser) -> None:
    """The arguments of `efflab card` and of `efflab advise`."""
    for sub in (card, advice):
        sub.add_argument("source", help=SOURCE)
        sub.add_argument("--json", action="store_true", help="all of it, for a program")
        sub.add_argument("--tflops", type=float, metavar="F", help="your own device: dense, bf16")
        sub.add_argument("--gb", type=float, metavar="G", help="and its memory, as its label says")
        sub.add_argument("--gbps", type=float, metavar="B", help="and its bandwidth, in GB/s")
    advice.add_argument("device", help=DEVICE)
    budgets = "latency, memory, training days, checkpoint, quality, decode or context"
    advice.add_argument("budget", help=budgets)
    advice.add_argument("--devices", type=int, default=1, metavar="N", help="how many; default: 1")
    advice.add_argument("--tokens", type=int, metavar="T", help=TOKENS)


def add_measure_options(measure: argparse.ArgumentParser) -> None:
    """The options of `efflab measure`."""
    known = "its folder: config.json and safetensors, or a checkpoint of ours"
    measure.add_argument("folder", type=Path, help=known)
    measure.add_argument("--text", type=Path, metavar="FILE", help="also its quality on this text")
    measure.add_argument("--formats", metavar="F,F", help='all by default; "OpenVINO int4,..."')
    measure.add_argument("--json", action="store_true", help="all of it, for a program")


def add_run_options(run: argparse.ArgumentParser, sweep: argparse.ArgumentParser) -> None:
    """The arguments of `efflab run` and of `efflab sweep`."""
    for sub, form in ((run, "name=value"), (sweep, "name=a,b,c")):
        sub.add_argument("-h", "--help", action=Help)
        sub.add_argument("notebook", help="for example 03")
        value: dict = dict(metavar=form, help="another value of a parameter; once for each")
        sub.add_argument("-p", dest="parameters", action="append", default=[], **value)
        sub.add_argument("--fresh", action="store_true", help="again, whatever is kept")
    sweep.add_argument("--jobs", type=int, metavar="N", help="processes here; one by default")
    sweep.add_argument("--dask", metavar="ADDRESS", help="a Dask scheduler that has workers")
    sweep.add_argument("--show", metavar="COLUMN", help="the number to draw, as the table names it")
    help = "also as the sweep that the notebook shows, in data/sweeps"
    sweep.add_argument("--record", action="store_true", help=help)
