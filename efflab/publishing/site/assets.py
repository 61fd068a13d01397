"""The files that the site's pages load, under names with hashes, so that browsers may keep them."""

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from efflab.base.files import write_atomically
from efflab.base.places import ROOT

FOLDER = "assets"
NPM = ROOT / "build" / "npm" / "node_modules"
"""Where `make setup` puts the packages of web/package.json."""


class Assets:
    """Files under `target`/assets/; every address is relative to the site's root."""

    def __init__(self, target: Path):
        self.target = target
        self.places: set[str] = set()

    def add(self, name: str, content: bytes, *, packed: bool = False) -> str:
        """Address of one file: "assets/name-HASH.ext"; gzipped, with ".gz" more, if `packed`."""
        place = address(name, content) + (".gz" if packed else "")
        # no time of writing in it: the same content gives the same bytes
        data = gzip.compress(content, compresslevel=9, mtime=0) if packed else content
        self._write(place, data)
        return place

    def add_folder(self, name: str, files: Mapping[str, bytes]) -> str:
        """Address of a folder, "assets/name-HASH/", whose files find each other by their names."""
        parts = (part for item in sorted(files.items()) for part in (item[0].encode(), item[1]))
        place = f"{FOLDER}/{name}-{_digest(parts)}/"
        for file, content in files.items():
            self._write(place + file, content)
        return place

    def remove_others(self) -> None:
        """Remove what an earlier build left under assets/."""
        for path in (self.target / FOLDER).rglob("*"):
            if path.is_file() and path.relative_to(self.target).as_posix() not in self.places:
                path.unlink()

    def _write(self, place: str, content: bytes) -> None:
        self.places.add(place)
        write_atomically(self.target / place, content)


def address(name: str, content: bytes) -> str:
    """Where an unpacked asset of this name and content is."""
    path = PurePosixPath(name)
    return f"{FOLDER}/{path.stem}-{_digest([content])}{path.suffix}"


def npm_file(package: str, name: str) -> bytes | None:
    """A file of an npm package; None where `make setup` had no npm to fetch it with."""
    path = NPM / package / name
    return path.read_bytes() if path.is_file() else None


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
