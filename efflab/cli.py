"""The `efflab` command. Imports are inside the commands, so that each loads what it needs."""

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from efflab import __version__
from efflab.base.files import require_writable
from efflab.base.formats import LANGUAGES
from efflab.base.places import ROOT, require_checkout
from efflab.base.privacy import opt_out
from efflab.errors import require
from efflab.publishing import terminal
from efflab.publishing.catalog import catalog, find, sources
from efflab.publishing.execute import CellFailed


def list_notebooks(args) -> None:
    from efflab.lab.text import tr, use_language

    language = terminal.usable_language(args.language)
    use_language(language)
    for number, entry in catalog().items():
        minutes = tr("{n} min", n=f"{entry['minutes']:3d}")
        print(f"{number}  {minutes}  {entry['title'][language]}")


def show_doctor(args) -> None:
    from efflab.publishing.doctor import BROWSER_ADVICE, doctor, find_browser, report

    with suppress(ImportError, OSError):  # where packages are missing, which the report names
        from efflab.lab.text import use_language

        use_language(terminal.usable_language(args.language))
    if args.browser:
        if not find_browser():
            raise ValueError(BROWSER_ADVICE)
        return
    print(report(doctor()))


def run_notebook(args) -> None:
    from efflab.publishing.parameters import literal, parse
    from efflab.publishing.run import run

    values = {name: literal(value) for name, value in parse(args.parameters).items()}
    path = run(args.notebook, values, fresh=args.fresh)
    print(f"stored in {os.path.relpath(path)}")


def sweep_notebook(args) -> None:
    from efflab.publishing.parameters import parse_choices
    from efflab.publishing.run import sweep

    options = {n: v for n in ("jobs", "dask") if (v := vars(args).get(n)) is not None}
    points = sweep(args.notebook, parse_choices(args.parameters), fresh=args.fresh, **options)
    if points:
        from efflab.publishing.sweep_report import write_report

        for what, path in write_report(points, args.notebook, args.show, args.record).items():
            print(f"{what} in {os.path.relpath(path)}")


def compare_runs(args) -> None:
    from efflab.publishing.sweep_report import compare

    print("\n".join(compare(args.first, args.second)))


def build_notebooks(args) -> None:
    from efflab.publishing.build import build
    from efflab.publishing.source import differences

    if not args.check:
        languages = (args.language,) if args.language else LANGUAGES
        return build(args.notebooks, languages=languages, busy=args.busy, texts=args.texts)
    paths = [find(name) for name in args.notebooks or sources()]
    lines = [
        line for path in paths for language in LANGUAGES for line in differences(path, language)
    ]
    if lines:
        raise ValueError("\n".join([*lines, "run: efflab build"]))
    print(f"{len(paths)} notebooks in step with their sources, in two languages")


def new_notebook(args) -> None:
    from efflab.publishing.new import new

    for path in new(args.number, args.name):
        print(os.path.relpath(path))
    print(f"next: efflab build {args.number}, efflab report, make test NB={args.number}")


def show_report(args) -> None:
    from efflab.publishing.readme import report

    report()


def register_rules(args) -> None:
    from efflab.experiments.registration import register

    keys = register()
    print("\n".join(keys) if keys else "every sampled rule is registered")


def run_ledger(args) -> None:
    from efflab.publishing.pool import run_here

    path = os.path.relpath(run_here(args.out, fresh=args.fresh, busy=args.busy, dask=args.dask))
    print(f"stored in {path}\nnext, where it is to stand beside others: efflab ledger add {path}")


def add_column(args) -> None:
    from efflab.publishing.pool import add

    print(f"stored in {os.path.relpath(add(args.file))}\nnext: efflab report")


def make_site(args) -> None:
    from efflab.publishing.site.server import build_or_serve

    needed = "--serve beside it, which it is for"
    require(args.serve or args.port is None, "--port", args.port, needed)
    port = 8000 if args.port is None else args.port
    build_or_serve(ROOT / "build" / "site", port if args.serve else None)


def experiment(args) -> None:
    from efflab.experiments import run_experiment

    run_experiment(args.name, fresh=args.fresh, dask=args.dask)
    print(f"stored in data/experiments/{args.name}.json")


def give_advice(args) -> None:
    from dataclasses import replace

    from efflab.advice.case import Case, find_device
    from efflab.advice.ranking import whole
    from efflab.advice.report import report

    own = _own_device(args)
    device = replace(own, name=args.device) if own else find_device(args.device)
    case = Case(args.source, device, args.budget, args.devices, args.tokens)
    print(json.dumps(whole(case), indent=1) if args.json else report(case))


def show_card(args) -> None:
    from efflab.advice.card import read_card
    from efflab.advice.card_report import report

    card = read_card(args.source, _own_device(args))
    print(json.dumps(card, indent=1) if args.json else report(card))


def measure_model(args) -> None:
    from efflab.advice.measure import measure_folder, report

    known = measure_folder(args.folder, args.text, args.formats)
    print(json.dumps(known, indent=1) if args.json else report(known))


def freeze_predictions(args) -> None:
    from efflab.advice.frozen import freeze

    print(f"stored in {os.path.relpath(freeze())}\nnext: commit it, measure it: decoder-cases")


def _own_device(args):
    """The device of --tflops, --gb and --gbps; None without these."""
    from efflab.devices import own_device

    sizes = dict(tflops=args.tflops, gb=args.gb, gbps=args.gbps)
    if set(sizes.values()) == {None}:
        return None
    for name, value in sizes.items():
        require(value is not None, f"--{name}", value, "a number: it takes all three flags")
    return own_device(**sizes)


def train(args) -> None:
    from efflab.data import STDLIB_GPT
    from efflab.experiments.stdlib_gpt import train_stdlib_gpt

    require_writable(STDLIB_GPT)
    train_stdlib_gpt()


def open_lab(args) -> None:
    from efflab.publishing.lab_server import start

    start(args.port, args.language, browser=not args.no_browser)


WITHOUT_CHECKOUT = (show_doctor, list_notebooks, show_card, give_advice)
"""The commands that work from an installed wheel."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="efflab", description="A survey article that you can run.")
    top.add_argument("--version", action="version", version=f"efflab {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name, function, help, group=commands, **options):
        sub = group.add_parser(name, help=help, description=help, **options)
        sub.set_defaults(function=function)
        return sub

    doctor = command("doctor", show_doctor, "what this machine lacks, and what then does not work")
    doctor.add_argument("--browser", action="store_true", help="only whether a browser is found")
    listing = command("list", list_notebooks, "the notebooks, with the minutes that each takes")
    for sub in (doctor, listing):
        sub.add_argument("--language", choices=LANGUAGES, default="en", help="of what is said")
    help = "run a notebook, with other parameters if you like"
    run = command("run", run_notebook, help, add_help=False)
    help = "run a notebook over every combination of values: a table and a picture"
    terminal.add_run_options(run, command("sweep", sweep_notebook, help, add_help=False))
    comparison = command("compare", compare_runs, "what differs between two runs beyond noise")
    for name in ("first", "second"):
        comparison.add_argument(name, type=Path, help="a notebook that `efflab run` stored")
    build = command("build", build_notebooks, "make the notebooks from notebooks/src")
    build.add_argument("notebooks", nargs="*", metavar="NN", help="all of them by default")
    build.add_argument("--language", choices=LANGUAGES, help="both by default")
    build.add_argument("--check", action="store_true", help="only compare them with the sources")
    build.add_argument("--texts", action="store_true", help="only their texts: nothing runs")
    build.add_argument("--busy", action="store_true", help="although others use the machine")
    fresh = command("new", new_notebook, "begin a notebook: room, source, texts, entry and test")
    fresh.add_argument("number", help="its two digits, for example 17")
    fresh.add_argument("name", help="small letters with _ between words, for example running_sums")
    command("report", show_report, "the ledger; writes its pages and the README's tables")
    command("register", register_rules, "register the rules of data/rules.toml, before numbers")
    help = "this machine's column of the ledger, and others'"
    ledger = commands.add_parser("ledger", help=help, description=help)
    steps = ledger.add_subparsers(required=True, metavar="step")
    column = command("run", run_ledger, "run all notebooks; write this machine's column", steps)
    column.add_argument("--out", type=Path, metavar="FILE", help="runs/ledger/... by default")
    column.add_argument("--fresh", action="store_true", help="again, whatever is kept")
    column.add_argument("--busy", action="store_true", help="although others use the machine")
    column.add_argument("--dask", metavar="ADDRESS", help="on workers alike to this machine")
    addition = command("add", add_column, "take in another machine's column, once checked", steps)
    addition.add_argument("file", type=Path, metavar="FILE", help="what `efflab ledger run` wrote")
    site = command("site", make_site, "notebooks, playground, planner: web pages in build/site")
    site.add_argument("--serve", action="store_true", help="on localhost; built if not there yet")
    help = "with --serve: 8000 by default, 0 for a free one"
    site.add_argument("--port", type=int, metavar="N", help=help)
    repeat = command("experiment", experiment, "run what takes longer than a notebook")
    repeat.add_argument("name", help="such as qkv-sharing; an unknown name lists the known ones")
    repeat.add_argument("--dask", metavar="ADDRESS", help="on the workers of a Dask scheduler")
    repeat.add_argument("--fresh", action="store_true", help="repeat the runs already recorded")
    card = command("card", show_card, "what a model costs, on every device, by formula")
    advice = command("advise", give_advice, "which techniques serve the budget that binds")
    terminal.add_advice_options(card, advice)
    help = "run a local model here in every format, beside predictions"
    terminal.add_measure_options(command("measure", measure_model, help))
    command("predict", freeze_predictions, "freeze predicted times, before they are measured")
    model = command("train", train, "train a shipped model anew")
    model.add_argument("model", choices=("stdlib-gpt",), help="the only one")
    lab = command("lab", open_lab, "open JupyterLab at notebook 00")
    lab.add_argument("--port", type=int, metavar="N", help="1 to 65535; a free one by default")
    lab.add_argument("--no-browser", action="store_true", help="do not open a browser")
    lab.add_argument("--language", choices=LANGUAGES, default="en", help="of the notebook")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0, 1 for an expected error (printed), or 130 for Ctrl-C."""
    terminal.use_any_encoding()
    opt_out()  # the kernels, ranks and servers that a command starts inherit it
    try:
        _run(argv)
    except BrokenPipeError:  # `efflab list | head` has seen enough
        return 1
    except (ValueError, TypeError, OSError, ImportError, CellFailed, KeyboardInterrupt) as error:
        terminal.say_error(error)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _run(argv: list[str] | None) -> None:
    try:
        args = parser().parse_args(argv)
        if args.function not in WITHOUT_CHECKOUT:
            require_checkout(args.command)
        args.function(args)
    finally:
        terminal.flush()


if __name__ == "__main__":
    sys.exit(main())
