"""Files are there whole or not at all, also where several processes write, or one is killed."""

import ast
import json
import os
import subprocess
import sys
import threading

import pytest
from code_files import code_files

from efflab.base import files
from efflab.base.files import PART, part_path, replacing, update, write_atomically

# --- One writer ------------------------------------------------------------------------------


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(part, _):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    for write in (lambda: write_atomically(path, "new"), lambda: update(path, lambda _: "new")):
        with pytest.raises(OSError, match="No space left"):
            write()
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "old"}


def test_whether_a_file_can_be_written_is_asked_without_a_trace(tmp_path):
    files.require_writable(tmp_path / "a" / "b" / "c.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").write_text("no folder")
    with pytest.raises(OSError, match="a"):
        files.require_writable(tmp_path / "a" / "b" / "c.json")
    assert (tmp_path / "a").read_text() == "no folder"


def test_a_change_that_raises_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ZeroDivisionError):
        update(path, lambda _: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_what_dead_writers_left_goes_and_what_the_living_write_stays(tmp_path):
    path = tmp_path / "a.json"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = [
        tmp_path / f"a.json.{process.pid}-0123abcd.part",
        tmp_path / f"a.json.{process.pid}-0123abcd.part.ipynb",
    ]
    kept = [
        tmp_path / f"a.json.{os.getppid()}-0123abcd.part",
        tmp_path / f"b.json.{process.pid}-0123abcd.part",
        tmp_path / "a.json.part",
        tmp_path / "a.json.ipynb",
    ]
    for file in dead + kept:
        file.write_text("half")
    write_atomically(path, "whole")
    assert set(tmp_path.iterdir()) == {path, *kept}


@pytest.mark.parametrize("name", ["x" * 255, "长" * 85, "a"])
def test_every_name_that_a_file_may_have_can_be_written(tmp_path, name):
    write_atomically(tmp_path / name, "whole")
    update(tmp_path / name, lambda text: text + "!")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "whole!")]


def test_an_unfinished_file_has_a_name_of_its_own(tmp_path):
    paths = [part_path(tmp_path / "a.json", suffix) for suffix in ("", "", ".ipynb")]
    assert len(set(paths)) == 3
    assert all(int(PART.search(path.name)[1]) == os.getpid() for path in paths)
    assert paths[2].suffix == ".ipynb"


# --- Several at once -------------------------------------------------------------------------

ADD = """
import json, sys
from pathlib import Path
from efflab.base.files import update

path, who = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()  # all begin together
for i in range(20):
    update(path, lambda text: json.dumps([*json.loads(text or "[]"), f"{who}-{i}"]))
"""


def test_processes_that_add_to_one_file_lose_nothing(tmp_path):
    path = tmp_path / "a.json"
    command = [sys.executable, "-c", ADD, str(path)]
    processes = [
        subprocess.Popen([*command, str(who)], stdin=subprocess.PIPE, text=True) for who in range(4)
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 4
    found = json.loads(path.read_text())
    assert sorted(found) == sorted(f"{who}-{i}" for who in range(4) for i in range(20))
    assert list(tmp_path.iterdir()) == [path]  # neither a lock nor a part is left


def test_threads_that_write_one_file_mix_nothing(tmp_path):
    path, texts = tmp_path / "a", [str(i) * 100_000 for i in range(4)]

    def write(text):
        for _ in range(10):
            with replacing(path) as part:
                part.write_text(text)

    threads = [threading.Thread(target=write, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_who_waits_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.1)
    path, inside, done = tmp_path / "a", threading.Event(), threading.Event()

    def hold(_):
        inside.set()
        done.wait(20)
        return "first"

    holder = threading.Thread(target=update, args=[path, hold])
    holder.start()
    inside.wait(20)
    with pytest.raises(OSError, match="lock"):
        update(path, lambda _: "second")
    done.set()
    holder.join()
    assert path.read_text() == "first"


# --- Every writer of the package -------------------------------------------------------------

ELSEWHERE = {
    "acceleration/fpga.py: write_text": "into a temporary folder",
    "base/cache.py: save": "into memory",
    "compression/engines.py: save": "an engine's files, into the temporary folder handed over",
    "compression/openvino.py: save_model": "an engine's files, into the folder handed over",
    "distributed/process.py: open": "a rank's log, in a temporary folder",
    "distributed/rank.py: dump": "into a pipe",
    "distributed/rank.py: fdopen": "a pipe",
    "experiments/fpga_synthesis.py: write_text": "into a temporary folder",
    "experiments/resident.py: write_text": "a counter of the kernel, no file",
    "publishing/site/first_page.py: save": "into memory",
    "publishing/site/planner.py: write_bytes": "into a temporary folder",
    "accelerators/measure.py: save_model": "into a temporary folder",
    "weights.py: save": "into memory",
}
"""Calls that write past efflab.base.files, and where to."""
WRITERS = set(
    "write_text write_bytes save save_file save_model savez savez_compressed savetxt tofile dump "
    "copy2 copyfile copytree move fdopen write_image write_html to_csv to_json".split()
)


def writes(node: ast.AST) -> bool:
    """Whether a call writes a file, by its name and, of `open`, by its mode."""
    if name_of(node) != "open":
        return name_of(node) in WRITERS
    values = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
    modes = [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return any(len(mode) <= 3 and set(mode) & set("wax+") for mode in modes)


def name_of(node: ast.AST) -> str:
    """What a call calls: "save" of `np.save(...)`."""
    function = getattr(node, "func", None)
    return getattr(function, "attr", getattr(function, "id", ""))


def replacing_blocks(tree: ast.AST):
    """The statements `with replacing(...) as part`, inside which a library may write."""
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and name_of(node.items[0].context_expr) == "replacing":
            yield node


def unsafe_writers(text: str) -> set[str]:
    tree = ast.parse(text)
    safe = {inner for block in replacing_blocks(tree) for inner in ast.walk(block)}
    return {name_of(node) for node in ast.walk(tree) if writes(node) and node not in safe}


def test_nothing_is_written_past_the_one_way_to_write():
    found = {
        f"{file}: {name}"
        for file, path in code_files().items()
        if path.name != "files.py"
        for name in unsafe_writers(path.read_text(encoding="utf-8"))
    }
    assert found == set(ELSEWHERE)


def test_a_writer_is_found():
    text = "with replacing(p) as part:\n    save_file(t, part)\n"
    assert unsafe_writers(text) == set()
    for line in ("p.write_text(t)", "open(p, 'w')", "p.open(mode='ab')", "json.dump(x, f)"):
        assert len(unsafe_writers(f"{text}{line}")) == 1
    assert unsafe_writers("open(p)\np.open('rb')\nopen(p, encoding='utf-8')") == set()
