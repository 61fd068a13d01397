"""Ranks: results in order, failures with their traceback, and never a process left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import rank_functions
import torch

from efflab.distributed.launch import RankError, RankPool, launch, report

SOON = 20.0
"""Seconds: far more than an end takes, far less than what the ranks would wait for one another."""


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves a child process, nor a folder of its ranks."""
    yield
    assert [p for p in psutil.Process().children(recursive=True) if is_rank(p)] == []


def is_rank(process):
    try:
        return "efflab.distributed.rank" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def over(pid):
    """Whether the process has ended; a zombie of somebody else's has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def gone(pid):
    """Whether the process is over soon."""
    deadline = time.monotonic() + SOON
    while not over(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return over(pid)


def fails_soon(run, *args, **options):
    """The RankError of a call that must end soon."""
    start = time.monotonic()
    with pytest.raises(RankError) as caught:
        run(*args, **options)
    assert time.monotonic() - start < SOON
    return caught.value


def test_results_come_in_order_twice_in_a_row():
    for _ in range(2):
        results = launch(rank_functions.total, 2, 10, timeout=60)
        assert results == [(0, 2, 21.0, 1), (1, 2, 21.0, 1)]


def test_two_at_once():
    found = {}

    def one(value):
        found[value] = launch(rank_functions.total, 2, value, timeout=60)

    threads = [threading.Thread(target=one, args=(value,)) for value in (1, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {v: [r[2] for r in rows] for v, rows in found.items()} == {
        1: [3.0] * 2,
        100: [201.0] * 2,
    }


def test_one_rank_is_a_group_of_one():
    assert launch(rank_functions.total, 1, 5, timeout=60) == [(0, 1, 5.0, 1)]


def test_a_pool_keeps_its_ranks_and_none_after_it():
    with RankPool(2) as ranks:
        pids = ranks.pids
        for value in (0, 1):
            assert ranks.run(rank_functions.total, value, timeout=60)[0][2] == 2 * value + 1
        assert ranks.pids == pids
    assert all(gone(pid) for pid in pids)
    assert ranks.pids == []


# --- Failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("raise", ["rank 1 raised", "ZeroDivisionError: no such step", "in _fail"]),
        ("die", ["rank 1 exited with 7", "the last words"]),
        ("kill", ["rank 1 was killed by SIGKILL"]),
        ("sleep", ["rank 1 did not finish within 2 s", "time.sleep(600)", "dist.all_reduce"]),
        ("stop", ["rank 1 did not finish within 2 s", "rank 1 is here:\n  (no answer"]),
    ],
)
def test_a_rank_that_fails_in_the_middle_of_a_step_ends_the_job(how, expected):
    pids = []
    timeout = 2 if how in ("sleep", "stop") else 600
    error = fails_soon(
        launch,
        rank_functions.fails,
        2,
        1,
        how,
        timeout=timeout,
        on_progress=lambda rank, pid: pids.append(pid),
    )
    assert error.rank == 1
    assert all(text in str(error) for text in expected), str(error)
    assert "efflab/distributed/rank.py" not in str(error)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_kill_from_outside_and_the_pool_goes_on():
    with RankPool(2) as ranks:
        first = ranks.pids
        kill = threading.Timer(0.5, os.kill, (first[0], signal.SIGKILL))
        kill.start()
        error = fails_soon(ranks.run, rank_functions.sleeps, 600, timeout=600)
        assert (error.rank, "SIGKILL" in str(error)) == (0, True)
        assert all(gone(pid) for pid in first)
        assert ranks.run(rank_functions.sleeps, 0, timeout=60) == [0, 1]


def test_what_a_rank_has_started_ends_with_it():
    pids = []
    options = dict(timeout=600, on_progress=lambda rank, pid: pids.append(pid))
    assert fails_soon(launch, rank_functions.with_a_child, 2, **options).rank == 0
    assert len(pids) == 3
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("how", ["report", "result"])
def test_what_cannot_be_read_here_is_the_rank_s_error_and_not_the_caller_s_end(how):
    options = dict(timeout=60, on_progress=lambda rank, message: None)
    error = fails_soon(launch, rank_functions.leaves, 1, how, **options)
    assert error.rank == 0
    assert "rank 0 sent what cannot be read here" in str(error)
    assert "SystemExit: 3" in str(error)


def test_a_result_that_cannot_travel_says_so():
    error = fails_soon(launch, rank_functions.unpicklable, 1, timeout=60)
    assert "pickle" in str(error)


def test_an_interrupt_ends_the_ranks():
    """As the kernel's interrupt does: SIGINT, in the middle of a job."""
    pids = []

    def on_progress(rank, pid):
        pids.append(pid)
        if len(pids) == 2:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    start = time.monotonic()
    # a shell starts what it puts into the background with SIGINT ignored
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            launch(rank_functions.sleeps, 2, 600, timeout=120, on_progress=on_progress)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - start < SOON + 60  # with the start, which a busy machine makes long
    assert all(gone(pid) for pid in pids)


def test_ranks_and_what_they_started_end_when_their_parent_is_killed(tmp_path):
    """A kernel that is restarted is killed: it closes nothing itself."""
    code = (
        "import sys, threading, rank_functions\n"
        "from efflab.distributed.launch import RankPool\n"
        "pool = RankPool(1)\npool.__enter__()\n"
        "job = rank_functions.waits_with_a_child, sys.argv[1]\n"
        "run = lambda: pool.run(*job, timeout=600)\n"
        "threading.Thread(target=run, daemon=True).start()\n"
        "print(*pool.pids, flush=True)\ninput()"
    )
    where = os.path.dirname(rank_functions.__file__)
    python = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "pid")],
        cwd=where,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with python:
        pid = int(python.stdout.readline())
        deadline = time.monotonic() + SOON
        while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not over(pid)
        python.kill()
    child = int((tmp_path / "pid").read_text())
    assert gone(pid)
    assert gone(child)


def test_ranks_end_when_nobody_holds_their_pool():
    """A notebook's cell that runs again makes a new pool and drops the old one."""
    pids = []
    for _ in range(3):
        pool = RankPool(1)
        pool.run(rank_functions.sleeps, 0, timeout=60)
        pids += pool.pids
    assert [over(pid) for pid in pids] == [True, True, False]
    del pool
    assert gone(pids[-1])


def test_a_fork_that_drops_its_copy_of_a_pool_ends_no_rank():
    with RankPool(1) as ranks:
        child = os.fork()
        if not child:
            ranks.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert ranks.run(rank_functions.sleeps, 0, timeout=60) == [0]


# --- Messages and resources ------------------------------------------------------------------


def test_reports_arrive_in_order_and_prints_do_not_disturb_them():
    seen = []
    options = dict(timeout=60, on_progress=lambda rank, message: seen.append((rank, message)))
    assert launch(rank_functions.three_reports, 2, **options) == [None, None]
    for rank in range(2):
        assert [m for r, m in seen if r == rank] == [f"step {i}" for i in range(3)]


def test_report_prints_outside_a_rank(capsys):
    report("alone")
    assert capsys.readouterr().out == "alone\n"


def test_an_error_in_the_callback_ends_the_ranks():
    def refuse(rank, message):
        raise LookupError(message)

    with pytest.raises(LookupError, match="step 0"):
        launch(rank_functions.three_reports, 1, timeout=60, on_progress=refuse)


def test_large_arrays_travel_through_the_pipes_and_not_through_shared_memory():
    array = np.random.default_rng(0).random(4_000_000)  # 32 MB, more than a pipe or a socket holds
    for same, double, used in launch(rank_functions.large, 2, array, timeout=120):
        assert np.array_equal(same, array)
        assert torch.equal(double, torch.from_numpy(2 * array))
        assert used == []


FULL = """mount -t tmpfs -o size=64k tmpfs /dev/shm
head -c 100000 /dev/zero > /dev/shm/all
exec "$@"
"""
APART = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


def test_a_full_dev_shm_stops_nothing():
    """In a mount namespace of its own, so that nobody else's /dev/shm is touched."""
    if shutil.which("unshare") is None or subprocess.run([*APART, FULL, "-", "true"]).returncode:
        pytest.skip("no mount namespace is allowed here")
    code = """
import rank_functions
from efflab.distributed.launch import launch
try:
    open("/dev/shm/more", "wb", buffering=0).write(bytes(4096))
except OSError:
    print("full", launch(rank_functions.total, 2, 1, timeout=60))
"""
    command = [*APART, FULL, "-", sys.executable, "-c", code]
    where = os.path.dirname(rank_functions.__file__)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=where)
    assert done.stdout == "full [(0, 2, 3.0, 1), (1, 2, 3.0, 1)]\n", done.stderr


def test_the_ports_of_others_are_in_nobodys_way_and_only_loopback_is_used(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nowhere0")  # as many machines may need it
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        addresses = launch(rank_functions.sockets, 2, timeout=60)
    assert all(addresses)  # and 0.0.0.0, every interface of the machine, would be no loopback
    assert {ip for row in addresses for ip in row} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_without_loopback_it_says_so_at_once():
    """In a network namespace of its own, where `lo` is down until somebody lifts it."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("no network namespace is allowed here")
    code = """
import time, rank_functions
from efflab.distributed.launch import launch
start = time.monotonic()
try:
    launch(rank_functions.total, 2, 1, timeout=60)
except ConnectionError as error:
    print(time.monotonic() - start < 10, error)
"""
    where = os.path.dirname(rank_functions.__file__)
    command = [*alone, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=where)
    assert done.stdout.startswith("True ranks talk over the loopback interface"), done.stderr


def test_no_place_for_the_rendezvous_is_an_error_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="missing"):
        launch(rank_functions.sleeps, 2, 0, timeout=60)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert launch(rank_functions.sleeps, 1, 0, timeout=60) == [0]
    assert list(tmp_path.iterdir()) == []


# --- Arguments -------------------------------------------------------------------------------


def of_main():
    pass


of_main.__module__ = "__main__"


@pytest.mark.parametrize("fn", [lambda rank, world_size: 0, of_main, fails_soon.__get__(1)])
def test_a_function_that_cannot_be_imported_says_what_to_do(fn):
    with pytest.raises(ValueError, match=r"fn=.*put it into a module"):
        launch(fn, 2, timeout=60)
    with pytest.raises(ValueError, match="fn=3: expected a function, got int"):
        launch(3, 2, timeout=60)


@pytest.mark.parametrize(
    ("timeout", "allowed"),
    [
        (0, "a positive number"),
        (-1, "a positive number"),
        (float("inf"), "a finite number"),
        (float("nan"), "a finite number"),
        ("5", "a number, got str"),
        (None, "a number, got NoneType"),
    ],
)
def test_a_bad_timeout_names_what_is_allowed(timeout, allowed):
    with pytest.raises(ValueError, match=f"timeout={timeout!r}: expected {allowed}$"):
        launch(rank_functions.sleeps, 2, 0, timeout=timeout)


@pytest.mark.parametrize("n_procs", [0, -2, 65])
def test_a_bad_number_of_ranks_is_refused_before_any_starts(n_procs):
    with pytest.raises(ValueError, match=f"n_procs={n_procs}: expected .*(1|64)"):
        RankPool(n_procs)


def test_arguments_that_cannot_travel_are_refused_before_a_rank_starts(monkeypatch):
    monkeypatch.setattr(RankPool, "_start", lambda pool: pytest.fail("a rank was started"))
    with pytest.raises(ValueError, match=r"args=.*pickle"):
        launch(rank_functions.sleeps, 1, lambda: 0, timeout=60)
