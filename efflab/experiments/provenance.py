"""The provenance of a number: command, date, commit, versions, machine and CPU features."""

import json
import platform
import sysconfig
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distributions, version

from efflab.base.git import ask_git
from efflab.base.places import DATA_DIR

FEATURES = {"avx2": "AVX2", "avx512": "AVX-512", "vnni": "VNNI", "amx": "AMX", "bf16": "bf16"}


def machine() -> dict:
    """This machine as it is identified in records: CPU, its features, threads that torch uses."""
    import torch

    from efflab.bench import cpu_features, cpu_name

    return dict(cpu=cpu_name(), features=cpu_features(), threads=torch.get_num_threads())


def machine_name(machine: dict) -> str:
    """A machine in one line; features that an old record does not have are left out.

    >>> machine_name(dict(cpu="AMD EPYC", features=dict(avx2=True, vnni=False), threads=2))
    'AMD EPYC (AVX2), 2 threads'
    """
    has = [FEATURES[name] for name, exists in (machine["features"] or {}).items() if exists]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return f"{machine['cpu']}{' (' + ', '.join(has) + ')' if has else ''}, {threads}"


def commit() -> str | None:
    """The package's commit, with a + if tracked files differ from it; None if unknown."""
    root = DATA_DIR.parent
    if not (root / ".git").exists():  # installed: an enclosing repository is not ours
        return None
    head = ask_git(root, "rev-parse", "HEAD")
    changes = ask_git(root, "status", "--porcelain", "-uno", "efflab")
    if head is None or changes is None:
        return None
    return head.strip() + ("+" if changes else "")


def versions(packages: Iterable[str] = ()) -> dict[str, str | None]:
    """Python's version, torch's and those of `packages`; None for one that is not installed."""
    own = {package: version_of(package) for package in ("torch", *packages)}
    return {"python": platform.python_version(), **own}


def version_of(package: str) -> str | None:
    """An installed package's version; None for one that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@lru_cache(maxsize=1)
def libraries() -> str:
    """Python's version and every installed library's, as one text.

    Only from site-packages, not all of `sys.path`, to which setuptools adds vendored copies.
    """
    places = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    versions = {f"{d.metadata['Name']}=={d.version}" for d in distributions(path=sorted(places))}
    return json.dumps([platform.python_version(), *sorted(versions)])


def describe_run(command: str, packages: Iterable[str] = (), rules: Iterable[str] = ()) -> dict:
    """Command, date, commit and versions of a run that starts now; `rules`: the hashes of those
    for which it is made."""
    when = dict(command=command, date=date.today().isoformat(), commit=commit())
    made_for = dict(rules=list(rules)) if rules else {}
    return when | dict(versions=versions(packages)) | made_for
