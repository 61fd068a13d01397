"""Tests reach no other machine: what Python tries is refused, what a trace shows is counted."""

import ipaddress
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

READ, WRITE = os.pipe()
"""Tells of what was tried; a forked process, in which some libraries report, has it too."""
os.set_blocking(READ, False)
ADDRESSED = ("socket.connect", "socket.sendto", "socket.sendmsg")
NAMED = ("socket.getaddrinfo", "socket.gethostbyname")


def refuse(event: str, arguments: tuple) -> None:
    """An audit hook (`sys.addaudithook`): a connection or a question to elsewhere is an error."""
    if event in ADDRESSED:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path, or connected already
    elif event in NAMED:
        host = arguments[0]
    else:
        return
    if host and not is_here(host):
        os.write(WRITE, f"{event} {host!r}\n".encode())
        raise PermissionError(f"a test reaches for {host!r}")


def is_here(host: str | bytes) -> bool:
    """Whether a name or an address is this machine's own."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in ("localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def tried() -> str:
    """What was refused since this was last asked, a line each."""
    with suppress(BlockingIOError):
        return os.read(READ, 65536).decode()
    return ""


def traced(path: Path) -> list[str]:
    """The lines of strace's file that ask for a name or connect to another machine.

    This sees code in any language; a question for a name goes to port 53, here or elsewhere.
    """
    lines = [x for x in path.read_text(errors="replace").splitlines() if "sa_family=AF_INET" in x]
    return [line for line in lines if "htons(53)" in line or not is_here(_address(line))]


def _address(line: str) -> str:
    """Of "connect(3, {..., sin_addr=inet_addr("127.0.0.1")}, 16)", or its form for IPv6."""
    return re.search(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"', line)[1]
