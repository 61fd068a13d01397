"""Changes one operator, number or condition at a time, and asks whether a test notices.

`make mutants` runs it: cosmic-ray (in an environment of its own) finds what can be changed in the
modules below, a fixed sample of it is tried in copies of the package, each against the tests that
mirror its module, and what survived is listed with its change. Results are kept at once in
runs/mutants.json by the change itself, so that a run that was killed goes on.

    python tests/mutants.py --python .venv/bin/python [--count 150] [--workers 2] [--only cost ...]
"""

import argparse
import difflib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from cosmic_ray.ast import get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "runs" / "mutants.json"
MODULES = ("cost", "evaluate", "estimate", "bench", "base/cache", "structure/*", "compression/*")
MODULES += ("acceleration/systolic", "advice/*", "publishing/*")
ROOMS = "notebooks/efflab_rooms"
SEED, TIMEOUT = 0, 900
COPIED = ("efflab", "tests", "data", "docs", "notebooks", "README.md", "pyproject.toml")
# An annotation's `X | None` is no arithmetic, and a decorator's removal is found by any import.
LEFT_OUT = ("BitOr", "BitAnd", "BitXor", "RemoveDecorator", "VariableReplacer", "VariableInserter")

SPEED, OWN_CHECK = "it decides the speed, no value", "what it asks was made so just before"
SURVIVORS: dict[tuple[str, str], str] = {
    (
        "compression/openvino",
        "own = advanced.AdvancedSmoothQuantParameters(matmul=- 2)  # it has been done",
    ): "NNCF takes any negative number as off",
    (
        "structure/adaptive_span",
        "BLOCK = 33  # queries that look at one window of keys together",
    ): SPEED,
    (
        "compression/importance",
        "for reader, gate in zip(readers, gates, strict=False):",
    ): OWN_CHECK,
    (
        "compression/engines",
        "Hidden(model).eval(), (ids, ids.clone()), dynamo=True, verbose=True, **names",
    ): "it decides what torch prints, no model",
    ("structure/dynamic_conv", "values = values * mask[:, 0, -1, :, None]"): "a size of one",
    ("evaluate", "cosine = F.cosine_similarity(a, b, dim=+1)"): "the last of two dimensions",
    ("compression/sparse", 'if layout >= "csr":'): "of the layouts left, csr is the last",
    (
        "base/cache",
        "np.save(buffer, value.astype(np.uint16), allow_pickle=True)",
    ): "no integer is pickled",
    (
        "publishing/run",
        "dict(zip(choices, values, strict=False)) "
        "for values in itertools.product(*choices.values())",
    ): OWN_CHECK,
    (
        "publishing/parameters",
        'require(len(texts) <= 1, "-p", f"{name}={texts[-1]}", f"{name} once")',
    ): "a name is there with its first text",
    ("estimate", "differences = [x - y for x, y in zip(a, b, strict=False)]"): OWN_CHECK,
    ("bench", "return [x / y for x, y in zip(a, b, strict=False)]"): OWN_CHECK,
    ("structure/bigbird", "GATHERED_BYTES = 3 * 2**20"): SPEED,
    (
        "structure/bigbird",
        "yield from (Piece(own, keys.flatten(), len(own)) "
        "for own, keys in zip(*parts, strict=False))",
    ): OWN_CHECK,
    (
        "structure/window",
        'require(T != 0, "q.shape", tuple(q.shape), "at least one token")',
    ): "no tensor has a negative size",
}
"""Changes that no test can notice: module and line as changed, with the reason."""


def tests_of(module: Path) -> list[str]:
    """The test files that mirror a module; verdicts have one of their own beside their room's."""
    parts = module.relative_to(ROOT).with_suffix("").parts[1:]
    if parts[-1] == "verdicts":
        room = parts[-2]
        files = (f"tests/notebooks/verdicts/test_{room}.py", f"tests/notebooks/test_{room}.py")
        return [name for name in files if (ROOT / name).exists()]
    mirrored = Path("tests", *parts[:-1], f"test_{parts[-1]}.py")
    if not (ROOT / mirrored).exists():
        users = sorted((ROOT / mirrored.parent).glob("test_*.py"))
        needle = f".{parts[-1]} import"
        users = [p for p in users if needle in p.read_text() or f" {parts[-1]}" in p.read_text()]
        return [str(p.relative_to(ROOT)) for p in users] or [str(mirrored.parent)]
    more = (ROOT / mirrored.parent).glob(f"{mirrored.stem}_*.py")  # test_gptq, test_gptq_models
    return [str(mirrored), *sorted(str(p.relative_to(ROOT)) for p in more)]


def places(module: Path) -> list[tuple[str, int, int]]:
    """(operator, occurrence, line) of each change that cosmic-ray knows for a module."""
    tree, found = get_ast(module.read_text(encoding="utf-8")), []
    nodes, stack = [], [tree]
    while stack:
        node = stack.pop()
        nodes.append(node)
        stack.extend(reversed(getattr(node, "children", ())))
    for name in operator_names():
        if any(word in name for word in LEFT_OUT):
            continue
        operator = get_operator(name)()
        positions = [p for node in nodes for p in operator.mutation_positions(node)]
        found += [(name, i, start[0]) for i, (start, _) in enumerate(positions)]
    return found


def drawn(*parts: object) -> int:
    """A number that looks drawn, and is the same wherever and whenever it is asked for."""
    return int(hashlib.sha256(repr((SEED, *parts)).encode()).hexdigest(), 16)


def sample(modules: list[Path], count: int) -> list[tuple[Path, str, int]]:
    """`count` changes, each at a place of its own, so that an operator with many
    replacements counts no more than a number.

    A place is a line by its text, not by its number: an edit leaves the rest of the sample alone.
    """
    by_place: dict[tuple[str, str, str], list] = {}
    for module in modules:
        path, lines = str(module.relative_to(ROOT)), module.read_text(encoding="utf-8").splitlines()
        for name, occurrence, line in places(module):
            kind, text = name.split("/")[-1].split("_")[0], lines[line - 1].strip()
            by_place.setdefault((path, kind, text), []).append((module, name, occurrence))
    chosen: list = []
    for place in sorted(by_place, key=lambda place: drawn(*place)):
        choice = by_place[place][drawn("which", *place) % len(by_place[place])]
        if is_python(change(*choice)[0]):
            chosen.append(choice)
        if len(chosen) == count:
            break
    return chosen


def is_python(source: str) -> bool:
    """Whether it compiles, without a warning: a star of a signature made a plus proves nothing,
    and that a text `is` another is refused by ruff already."""
    try:
        with warnings.catch_warnings(action="error"):
            compile(source, "changed", "exec")
    except SyntaxError:
        return False
    return True


def change(module: Path, name: str, occurrence: int) -> tuple[str, str]:
    """(the changed source, what was changed as a small diff)."""
    before = module.read_text(encoding="utf-8")
    after = MutationVisitor.mutate_code(before, get_operator(name)(), occurrence)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    shown = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
    return after, "\n".join(shown)


def passes(python: str, copy: Path, tests: list[str]) -> bool:
    """Whether these tests pass, within their time, on a copy of the package as it stands."""
    own = {
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "notebooks")]),
    }
    environment = os.environ | own  # with the path, what a test starts is of the copy as well
    command = [python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def noticed(python: str, copy: Path, module: Path, source: str) -> bool:
    """Whether the module's tests fail on the changed source, in a copy of the package."""
    target = copy / module.relative_to(ROOT)
    before = target.read_text(encoding="utf-8")
    target.write_text(source, encoding="utf-8")
    try:
        return not passes(python, copy, tests_of(module))
    finally:
        target.write_text(before, encoding="utf-8")


def explained(result: dict) -> bool:
    """Whether a change that survived is one of `SURVIVORS`."""
    module = result["module"].removeprefix("efflab/").removeprefix(f"{ROOMS}/").removesuffix(".py")
    lines = [line[1:].strip() for line in result["change"].splitlines() if line[0] == "+"]
    return any((module, line) in SURVIVORS for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="the interpreter that runs the tests")
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], help="modules whose path contains one")
    args = parser.parse_args()
    python = str(Path(args.python).absolute())
    modules = sorted(p for m in MODULES for p in (ROOT / "efflab").glob(f"{m}.py"))
    modules += sorted((ROOT / ROOMS).glob("*/verdicts.py"))
    modules = [m for m in modules if m.name != "__init__.py"]
    modules = [m for m in modules if any(part in m.as_posix() for part in args.only)]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.workers) as pool:
        copies: Queue[Path] = Queue()
        for i in range(args.workers):
            for name in COPIED:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                target = Path(folder, str(i), name)
                target.parent.mkdir(exist_ok=True)
                copy(ROOT / name, target)
            copies.put(Path(folder, str(i)))

        chosen = sample(modules, args.count)
        whole, copy = sorted({t for m, *_ in chosen for t in tests_of(m)}), copies.get()
        if not passes(python, copy, whole):
            raise SystemExit("a test fails with nothing changed: no change could be told from that")
        copies.put(copy)

        def judge(choice):
            module, name, occurrence = choice
            source, diff = change(module, name, occurrence)
            path = str(module.relative_to(ROOT))
            key = hashlib.sha256(f"{path}\n{source}".encode()).hexdigest()[:12]
            if key not in results:
                copy = copies.get()
                found = noticed(python, copy, module, source)
                copies.put(copy)
                results[key] = dict(module=path, change=diff, noticed=found)
                RESULTS.write_text(json.dumps(results, indent=1))
                print("noticed " if found else "SURVIVED", key, path, diff, sep="  ", flush=True)
            return key

        keys = list(pool.map(judge, chosen))
    unnoticed = [results[key] for key in keys if not results[key]["noticed"]]
    survived = [result for result in unnoticed if not explained(result)]
    share = 1 - len(survived) / len(keys)
    print(f"{len(keys)} changes, {len(survived)} unnoticed and unexplained: {100 * share:.1f}%")
    raise SystemExit(share < 0.95)


if __name__ == "__main__":
    main()
