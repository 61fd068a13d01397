"""`efflab site --serve`: types that browsers insist on, this machine alone, and a quiet end."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from serving import serving

from efflab.publishing.site.server import build_or_serve, make_server

# A shell's background job starts its children with Ctrl+C ignored.
SERVE = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
SERVE += "; from pathlib import Path; from efflab.publishing.site.server import serve"
SERVE += "; serve(Path(sys.argv[1]))"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.wasm", "application/wasm"),
        ("a.bin.gz", "application/gzip"),
        ("a.webp", "image/webp"),
        ("a.html", "text/html; charset=utf-8"),
    ],
)
def test_types_are_those_that_browsers_insist_on(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"x")
    with serving(tmp_path) as home, urllib.request.urlopen(home + name, timeout=10) as reply:
        assert reply.headers["Content-Type"] == kind
        assert "Content-Encoding" not in reply.headers  # the page unpacks it itself
        assert reply.read() == b"x"


@pytest.mark.parametrize(
    ("request_line", "status", "lasts"),
    [
        ("GET /assets/a.js HTTP/1.0", "200", True),
        ("GET /assets/none.js HTTP/1.0", "404", False),
        ("GET /a.html HTTP/1.0", "200", False),
        ("nonsense", "400", False),
        ("GET / HTTP/9.9", "505", False),
    ],
)
def test_assets_alone_last_and_what_is_malformed_is_answered(
    tmp_path, capfd, request_line, status, lasts
):
    (tmp_path / "assets").mkdir()
    for name in ("a.html", "assets/a.js"):
        (tmp_path / name).write_bytes(b"x")
    with serving(tmp_path) as home:
        port = int(home.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(f"{request_line}\r\n\r\n".encode())
            reply = client.makefile("rb").read().decode()
    assert status in reply
    assert ("max-age" in reply) is lasts
    assert capfd.readouterr().err == ""


def test_only_this_machine_is_listened_to(tmp_path):
    with make_server(tmp_path) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_a_bad_or_taken_port_is_said(tmp_path):
    with pytest.raises(ValueError, match="port=65536: expected 0"):
        make_server(tmp_path, 65_536)
    with pytest.raises(ValueError, match=r"--port=-5: expected 0"):
        build_or_serve(tmp_path / "site", -5)
    assert not (tmp_path / "site").exists()  # before anything is built
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            make_server(tmp_path, other.getsockname()[1])


def test_control_c_ends_it_in_one_line(tmp_path):
    command = [sys.executable, "-u", "-c", SERVE, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("open http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("stopped\n", "", 0)
