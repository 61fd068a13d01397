"""Every command on every terminal: one that lacks letters, is full, is left, or may not write."""

import argparse
import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from efflab import cli
from efflab.base import files
from efflab.base.files import PART
from efflab.errors import require_one_of
from efflab.experiments import registration
from efflab.lab.text import use_language
from efflab.publishing import doctor as doctoring
from efflab.publishing import terminal
from efflab.publishing.catalog import ROOT

ARGUMENTS = {
    "doctor": [],
    "list": [],
    "run": ["02", "-p", "n_steps=1", "--fresh"],
    "sweep": ["02", "-p", "n_steps=1,2", "--fresh"],
    "compare": ["nothing.ipynb", "nothing.ipynb"],
    "build": ["00", "--busy"],
    "new": ["98", "toy"],
    "report": [],
    "register": [],
    "ledger run": ["--busy", "--out", "column.json"],
    "ledger add": ["nothing.json"],
    "site": [],
    "experiment": ["fpga-synthesis"],
    "card": ["qwen3-8b"],
    "measure": ["nothing"],
    "predict": [],
    "advise": ["bert-base", "CPU with VNNI", "latency"],
    "train": ["stdlib-gpt"],
    "lab": ["--no-browser"],
}
"""What each command is called with here."""
PRINTS = ("doctor", "list", "report", "card", "advise")
"""Those that have nothing to do but print."""


def leaves(parser, words=()):
    """{command: its parser} of all commands, steps of commands among them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found = {}
            for name, sub in action.choices.items():
                found |= leaves(sub, (*words, name))
            return found
    return {" ".join(words): parser}


COMMANDS = leaves(cli.parser())
READS = {
    "ledger add": "file='nothing.json': expected a file",
    "compare": "nothing.ipynb: No such file or directory\n",
    "measure": "folder='nothing': expected a folder",
    "predict": "number=3: expected one of 1, 2",
}
"""Commands that end before they write: a file is not there, every model was predicted already."""


def test_every_command_is_tried():
    assert ARGUMENTS.keys() == COMMANDS.keys()


@pytest.fixture(scope="module")
def rows():
    return doctoring.doctor()


@pytest.fixture
def start(monkeypatch, rows, tmp_path):
    """`start(command)`: its status, and what it prints; nothing that it writes stays anywhere.

    `trouble`: raised where a file would be written.
    """

    def run(command, *more, encoding="utf-8", out=None, trouble=None):
        def refuse(_):
            raise trouble or OSError(errno.EROFS, os.strerror(errno.EROFS))

        shown = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", out or shown[0])
        monkeypatch.setattr(sys, "stderr", shown[1])
        monkeypatch.setattr(files.secrets, "token_hex", refuse)
        monkeypatch.setattr(doctoring, "doctor", lambda: rows)
        monkeypatch.setattr(registration, "read_json", lambda _: {})  # all is to be registered
        monkeypatch.setattr(os, "execve", lambda *_: None)
        monkeypatch.chdir(tmp_path)
        try:
            status = cli.main([*command.split(), *ARGUMENTS[command], *more])
        finally:
            use_language("en")
            monkeypatch.undo()
        texts = []
        for stream in shown:
            stream.flush()
            texts.append(stream.buffer.getvalue().decode(encoding))
        return status, *texts

    return run


# --- Letters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "cp1252", "ascii"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_letter_ends_a_command(start, command, encoding):
    languages = [["--language", x] for x in ("en", "zh")] if speaks(command) else [[]]
    for language in languages:
        status, out, err = start(command, *language, encoding=encoding)
        assert status == 0 or command not in PRINTS
        assert "codec" not in out + err
        assert "\N{NO-BREAK SPACE}" not in out + err


def speaks(command):
    return any(action.dest == "language" for action in COMMANDS[command]._actions)


@pytest.mark.parametrize("command", PRINTS)
def test_without_a_letter_beyond_ascii_nothing_is_lost(start, command):
    plain, whole = (start(command, encoding=encoding)[1] for encoding in ("ascii", "utf-8"))
    assert plain.count("?") == whole.count("?")
    assert len(plain.splitlines()) == len(whole.splitlines())


def test_chinese_is_shown_where_the_terminal_has_it_and_said_where_not(start):
    for encoding in ("utf-8", "gbk"):
        status, out, err = start("list", "--language", "zh", encoding=encoding)
        assert (status, err) == (0, "")
        assert "从这里开始" in out
    status, out, err = start("list", "--language", "zh", encoding="ascii")
    assert "Start here" in out
    assert err.count("\n") == 1
    assert "ascii has no Chinese" in err


def test_the_nearest_letters_stand_for_those_that_lack(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.use_any_encoding()
    print("3\N{NO-BREAK SPACE}MB × 2 — “é” ≤ m² 长")
    stream.flush()
    assert stream.buffer.getvalue().decode() == '3 MB x 2 - "e" <= m2 ?\n'


# --- What is in the way ----------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENAMETOOLONG])
def test_what_cannot_be_written_is_said_in_a_line(start, command, number):
    error = OSError(number, os.strerror(number), str(ROOT / "data" / "a.json"))
    status, _, err = start(command, trouble=error)
    if command in READS:
        assert err.startswith(f"efflab: {READS[command]}")
    elif status:
        assert err.startswith(f"efflab: {ROOT / 'data' / 'a.json'}: {os.strerror(number)}; ")
    assert err.count("\n") == status
    assert status == (command not in (*PRINTS, "lab"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_behind_standard_output_is_said_in_a_line(start, command):
    with open("/dev/full", "w") as full:
        status, _, err = start(command, out=full)
    assert "Traceback" not in err
    if command in PRINTS:
        assert err.startswith("efflab: standard output: No space left on device; free some space")
        assert (status, err.count("\n")) == (1, 1)


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {*PRINTS, *READS, "lab"}))
def test_ctrl_c_ends_a_command_with_a_line(start, command):
    status, _, err = start(command, trouble=KeyboardInterrupt())
    assert (status, err) == (130, f"efflab: {terminal.STOPPED}\n")


def test_python_itself_has_nothing_to_add_at_its_end():
    command = [sys.executable, "-m", "efflab.cli", "list"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    shell = f"{sys.executable} -m efflab.cli list | head -n 1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True)
    assert (done.stdout[:2], done.stderr) == ("00", "")


def test_an_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part = tmp_path / "runs" / f"n=2.ipynb.{os.getpid()}-0123abcd.part.ipynb"
    said = terminal.words(OSError(errno.ENOSPC, "No space left on device", str(part)))
    assert said == (
        f"{Path('runs') / 'n=2.ipynb'}: No space left on device; "
        "free some space and start it again: what was finished is kept"
    )
    assert terminal.words(OSError("of one's own")) == "of one's own"
    assert "efflab doctor" in terminal.words(ImportError("No module named 'torch'"))
    long = terminal.words(ValueError(f"prompt={'x' * 90_000!r}: expected less\nfine"))
    assert len(long) < 700
    assert long.startswith("prompt='xxx")
    assert long.endswith("expected less\nfine")


def test_a_long_line_keeps_both_its_ends_and_a_shorter_one_is_whole():
    line = "a" * 300 + "b" * 300
    assert terminal.words(ValueError(line)) == line
    shortened = terminal.words(ValueError(f"short\n{'a' * 400}{'b' * 300}\nshort"))
    assert shortened == f"short\n{'a' * 300} ... {'b' * 300}\nshort"


def test_a_list_of_what_is_allowed_comes_whole():
    names = [f"experiment-{n}" for n in range(100)]
    with pytest.raises(ValueError, match="expected one of") as error:
        require_one_of("name", "x" * 90_000, names)
    said = terminal.words(error.value)
    assert all(repr(name) in said for name in names)
    assert "x" * 100 not in said


def test_a_file_is_named_whole_where_the_folder_that_one_stands_in_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    said = terminal.words(FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"))
    assert said == "/a/b: No such file or directory"


def test_a_command_line_too_long_to_repeat_is_not_repeated(start, capsys):
    status, _, err = start("run", "-p", f"prompt={'x' * 90_000}")
    assert status == 1
    assert len(err) < 1000


# --- Real ones, on a toy ---------------------------------------------------------------------

TOY = """\
import functools, sys
from pathlib import Path
from efflab import cli
from efflab.publishing import run as running

running.run = functools.partial(running.run, folder=Path(sys.argv[1]))
running.libraries = lambda: ""
sys.exit(cli.main(["run", "90"]))
"""


def hear_ctrl_c():
    """Python does not where the process that starts it does not, as behind a shell's `&`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begin(toy, before=hear_ctrl_c):
    command = [sys.executable, "-c", TOY, str(toy)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, preexec_fn=before, **pipes)


def left(toy):
    return [path for path in toy.parent.rglob("*") if PART.search(path.name)]


def said(process):
    """The last lines of standard error, without the progress bar."""
    err = process.communicate(timeout=120)[1].replace("\r", "\n").splitlines()
    return [
        line
        for line in err
        if line and "it/s" not in line and "cell/s" not in line and "s/cell" not in line
    ]


def test_ctrl_c_in_a_notebook_leaves_neither_kernel_nor_part(toy, edit):
    edit("import os\n", "import os, time\nopen('began', 'w').close()\ntime.sleep(600)\n")
    process = begin(toy)
    end = time.monotonic() + 120
    while not (toy / "began").exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    process.send_signal(signal.SIGINT)
    assert said(process)[-1] == f"efflab: {terminal.STOPPED}"
    assert process.returncode == 130
    _, alive = psutil.wait_procs(kernels, timeout=20)
    assert alive == []
    assert left(toy) == []


def test_a_disk_that_fills_up_leaves_neither_kernel_nor_part(toy, edit):
    import resource

    edit("print(language, n * 2)", "print('x' * 100_000)")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))  # noqa: E731
    process = begin(toy, limit)
    lines = said(process)
    assert lines[-1].startswith("efflab: ")
    assert "File too large" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert process.returncode == 1
    assert left(toy) == []


def test_where_runs_cannot_be_kept_the_reader_has_a_place_of_their_own(toy, monkeypatch, tmp_path):
    from efflab.publishing.run import run

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (toy.parent / "runs").write_text("in the way")
    lines = []
    path = run("90", {}, folder=toy, say=lines.append)
    assert path == tmp_path / "home" / ".efflab" / "runs" / "90_toy" / "defaults.ipynb"
    assert lines[0].startswith(f"kept in {path.parent}, as runs/ cannot be written (")
    assert run("90", {}, folder=toy, say=lines.append) == path
    assert lines[-1].startswith("kept from before")
