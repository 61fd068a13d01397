"""Records: nothing finished is lost or repeated, nothing unlike is mixed, all says what made it."""

import json
import os
import platform
from contextlib import suppress
from statistics import stdev

import dask
import pytest

from efflab.experiments import TIMED, experiments, record, run_experiment
from efflab.experiments import cluster as clusters
from efflab.experiments.isolated import run_isolated
from efflab.experiments.provenance import commit, describe_run, machine_name
from efflab.experiments.record import (
    EXPERIMENTS,
    agrees,
    by_seed,
    expected_repeat,
    machines,
    read_record,
    run_cases,
    same_python,
)

CASES = [dict(n=n, seed=0) for n in range(4)]
HERE = dict(cpu="A", features=dict(avx2=True, vnni=False), threads=2)
OTHER = dict(cpu="A", features=dict(avx2=True, vnni=True), threads=2)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Runs the toy experiment on a machine and a day: what was said, and which cases ran.

    `beside`: {n: what another process does while case `n` runs}.
    """

    def run(
        day=1, where=HERE, cases=CASES, settings=None, stop=None, factor=1, beside=(), **options
    ):
        said, ran = [], []
        made = dict(command="efflab experiment toy", date=f"2030-01-0{day}", commit=None)
        made["versions"] = dict(python="3.99")
        monkeypatch.setattr(record, "machine", lambda: where)
        monkeypatch.setattr(record, "describe_run", lambda *_: dict(made))

        def run_one(n, seed):
            if n == stop:
                raise KeyboardInterrupt
            ran.append(n)
            if n in beside:
                beside[n]()
            return dict(value=factor * n)

        settings = dict(lr=0.1, shape=(1, 2)) if settings is None else settings
        options |= dict(settings=settings, say=said.append, folder=tmp_path)
        with suppress(KeyboardInterrupt):
            run_cases("toy", cases, run_one, **options)
        return said, ran

    return run


def blocks(folder):
    return json.loads((folder / "toy.json").read_text())["machines"]


def dates(folder, **where):
    """The day on which each value was made."""
    kept = read_record("toy", folder=folder, **where)
    return {r["n"]: kept["provenance"][r["made"]]["date"][-1] for r in kept["runs"]}


# --- What is kept ----------------------------------------------------------------------------


def test_an_interrupted_experiment_goes_on_and_each_run_keeps_its_own_day(toy, tmp_path):
    assert toy(day=1, stop=2)[1] == [0, 1]
    assert read_record("toy", folder=tmp_path)["complete"] is False
    said, ran = toy(day=2)
    assert ran == [2, 3]
    assert said[0] == "toy: 2 of 4 runs are recorded; --fresh repeats them"
    assert said[1].startswith("3/4  n 2, seed 0:  value 2")
    assert dates(tmp_path) == {0: "1", 1: "1", 2: "2", 3: "2"}
    kept = read_record("toy", folder=tmp_path)
    assert kept["complete"] is True
    assert [r["value"] for r in kept["runs"]] == [0, 1, 2, 3]
    assert (kept["date"], kept["seeds"], kept["threads"]) == ("2030-01-02", [0], 2)
    assert toy(day=3)[1] == []
    assert dates(tmp_path) == {0: "1", 1: "1", 2: "2", 3: "2"}


def test_fresh_repeats_and_a_failed_repeat_loses_nothing(toy, tmp_path):
    toy(day=1)
    said, ran = toy(day=2, factor=10, stop=2, fresh=True)
    assert ran == [0, 1]
    assert said[0] == "toy: 4 of 4 runs are recorded; each stays until its repeat"
    kept = read_record("toy", folder=tmp_path)
    assert [r["value"] for r in kept["runs"]] == [0, 10, 2, 3]
    assert dates(tmp_path) == {0: "2", 1: "2", 2: "1", 3: "1"}
    assert toy(day=3)[1] == []
    assert toy(day=3, factor=10, fresh=True)[1] == [0, 1, 2, 3]
    assert len(blocks(tmp_path)[0]["provenance"]) == 1  # no run needs the older ones


@pytest.mark.parametrize("other", [dict(settings=dict(lr=0.2)), dict(models={"gpt": "ab"})])
def test_other_settings_start_anew_and_replace_only_when_complete(toy, tmp_path, other):
    toy(day=1)
    said, ran = toy(day=2, stop=2, **other)
    assert ran == [0, 1]
    assert "4 under other settings stay until all is done" in said[0]
    assert len(read_record("toy", folder=tmp_path)["runs"]) == 4  # the complete ones
    assert [len(b["runs"]) for b in blocks(tmp_path)] == [4, 2]
    toy(day=3, **other)
    assert [len(b["runs"]) for b in blocks(tmp_path)] == [4]
    assert dates(tmp_path) == {0: "2", 1: "2", 2: "3", 3: "3"}


def test_groups_of_other_seeds_do_not_pair():
    runs = [dict(kind=kind, seed=seed, x=seed) for kind, seed in (("a", 1), ("a", 0), ("b", 0))]
    assert by_seed(runs[:2], "kind", "x") == dict(a=[0, 1])
    assert by_seed(runs[1:], "kind", "x") == dict(a=[0], b=[0])
    with pytest.raises(ValueError, match=r"seeds=.*: expected the same for each kind"):
        by_seed(runs, "kind", "x")


def test_two_gpus_of_one_machine_stand_side_by_side(toy, tmp_path):
    for gpu in ("H100", "H200"):
        said, ran = toy(settings=dict(gpu=gpu))
        assert ran == [0, 1, 2, 3]
        assert "other settings" not in said[0]
    assert [block["settings"]["gpu"] for block in blocks(tmp_path)] == ["H100", "H200"]
    toy(settings=dict(gpu="H100", lr=0.2))
    found = [block["settings"] for block in blocks(tmp_path)]
    assert found == [dict(gpu="H200"), dict(gpu="H100", lr=0.2)]


def test_machines_stand_side_by_side(toy, tmp_path):
    toy(day=1)
    assert toy(day=2, where=OTHER, factor=3)[1] == [0, 1, 2, 3]
    names = ["A (AVX2), 2 threads", "A (AVX2, VNNI), 2 threads"]
    assert machines("toy", tmp_path) == names
    for name, values in zip(names, ([0, 1, 2, 3], [0, 3, 6, 9]), strict=True):
        assert [r["value"] for r in read_record("toy", name, tmp_path)["runs"]] == values
    assert read_record("toy", folder=tmp_path)["features"] == OTHER["features"]  # begun last
    with pytest.raises(ValueError, match="machine='B': expected one of 'A \\(AVX2\\), 2 threads'"):
        read_record("toy", "B", tmp_path)


def test_another_machine_goes_on_where_no_time_is_measured(toy, tmp_path):
    toy(day=1, stop=2, any_machine=True)
    said, ran = toy(day=2, where=OTHER, any_machine=True)
    assert ran == [2, 3]
    assert said[0].startswith("toy: 2 of 4 runs are recorded")
    (block,) = blocks(tmp_path)
    assert block["complete"]
    assert [entry.get("machine") for entry in block["provenance"]] == [None, OTHER]
    assert [run["made"] for run in block["runs"]] == [0, 0, 1, 1]
    kept = read_record("toy", folder=tmp_path)
    assert kept["machine"] == machine_name(block["machine"]) == "A (AVX2), 2 threads"
    assert toy(day=3, where=OTHER, any_machine=True)[1] == []
    assert toy(day=3, where=OTHER)[1] == [0, 1, 2, 3]  # times are each machine's own


def test_another_machine_beside_a_run_is_checked(toy, tmp_path):
    toy(day=1, stop=2, any_machine=True)
    toy(day=2, where=OTHER, any_machine=True)
    path = tmp_path / "toy.json"
    start, _, end = path.read_text().rpartition('"threads": 2')
    path.write_text(f'{start}"threads": -2{end}')
    with pytest.raises(ValueError, match=r"provenance\[1\].machine: threads=-2"):
        read_record("toy", folder=tmp_path)


def test_more_cases_under_the_same_settings_are_added(toy, tmp_path):
    toy(day=1)
    more = [*CASES, dict(n=4, seed=1), dict(n=5, seed=1)]
    toy(day=2, cases=more, stop=5)
    assert read_record("toy", folder=tmp_path)["complete"] is False
    assert toy(day=3, cases=more)[1] == [5]
    assert read_record("toy", folder=tmp_path)["seeds"] == [0, 1]


def test_half_a_file_is_put_aside_and_readers_are_told(toy, tmp_path):
    toy()
    path = tmp_path / "toy.json"
    half = path.read_text()[:200]
    path.write_text(half)
    with pytest.raises(ValueError, match=r"toy.json is damaged.*efflab experiment toy"):
        read_record("toy", folder=tmp_path)
    said, ran = toy()
    assert ran == [0, 1, 2, 3]
    assert "put aside as toy.damaged" in said[0]
    assert (tmp_path / "toy.damaged").read_text() == half


@pytest.mark.parametrize("cases", [[], [dict(n=1)], [dict(n=1, seed=0)] * 2])
def test_cases_have_a_seed_and_stand_once(toy, cases):
    with pytest.raises(ValueError, match="cases="):
        toy(cases=cases)


# --- Two at once -----------------------------------------------------------------------------


def test_what_another_process_adds_meanwhile_stays(toy, tmp_path):
    _, ran = toy(day=1, cases=CASES[:2], beside={1: lambda: toy(day=2, cases=CASES[2:])})
    assert ran == [0, 1]
    assert dates(tmp_path) == {0: "1", 1: "1", 2: "2", 3: "2"}
    assert read_record("toy", folder=tmp_path)["complete"] is True


def test_what_another_process_did_is_not_done_again(toy, tmp_path):
    _, ran = toy(day=1, beside={0: lambda: toy(day=2, cases=CASES[1:3])})
    assert ran == [0, 3]
    assert dates(tmp_path) == {0: "1", 1: "2", 2: "2", 3: "1"}


def test_under_other_settings_neither_takes_the_others_runs(toy, tmp_path):
    other = dict(settings=dict(lr=0.2))
    toy(day=1, stop=1, **other)
    toy(day=2, beside={3: lambda: toy(day=2, stop=2, **other)})
    assert [len(b["runs"]) for b in blocks(tmp_path)] == [2, 4]
    assert toy(day=3, **other)[1] == [2, 3]


def test_a_folder_that_cannot_be_written_is_found_before_the_first_run(toy, tmp_path):
    toy(day=1)
    path = tmp_path / "toy.json"
    path.rename(tmp_path / "aside")
    path.mkdir()
    (path / "in the way").touch()
    tried = []
    with pytest.raises(OSError, match="directory"):
        toy(day=2, beside={0: lambda: tried.append(0)})
    assert tried == []


# --- Provenance ------------------------------------------------------------------------------


def test_what_made_a_run_is_told_or_null():
    made = describe_run("efflab experiment toy", ["numpy", "no-such-package"])
    assert made["versions"]["python"] == platform.python_version()
    assert made["versions"]["no-such-package"] is None
    assert {"torch", "numpy"} <= {name for name, v in made["versions"].items() if v}
    assert commit() is None or len(commit().removesuffix("+")) == 40


def test_a_machine_is_named_by_what_is_known_of_it():
    assert machine_name(dict(cpu="X", features=None, threads=1)) == "X, 1 thread"
    assert machine_name(HERE) == "A (AVX2), 2 threads"


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.json")))
def test_every_committed_run_has_its_provenance(name):
    assert name in experiments()
    for block in json.loads((EXPERIMENTS / f"{name}.json").read_text())["machines"]:
        assert set(block["machine"]) == {"cpu", "features", "threads"}
        used = {run["made"] for run in block["runs"]}
        assert used == set(range(len(block["provenance"])))
        for made in block["provenance"]:
            assert {"command", "date", "commit", "versions"} == set(made) - {"rules", "machine"}
            assert set(made.get("machine", block["machine"])) == set(block["machine"])
            assert made["command"].startswith(f"efflab experiment {name}")
            assert {"python", "torch"} <= set(made["versions"])
        assert all("seed" in run for run in block["runs"])


def test_another_minor_version_is_another_corpus():
    major, minor, _ = platform.python_version_tuple()
    for python, same in ((f"{major}.{minor}.99", True), (f"{major}.{int(minor) + 1}.0", False)):
        assert same_python(dict(versions=dict(python=python))) is same


# --- On a cluster ----------------------------------------------------------------------------


def test_cases_run_on_a_clusters_workers(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(clusters, "scheduler", cluster.scheduler_address)

    def run_one(n, seed):
        return dict(value=n, process=os.getpid())

    options = dict(settings={}, say=lambda line: None, folder=tmp_path)
    runs = run_cases("toy", CASES, run_one, **options)["runs"]
    assert sorted(run["value"] for run in runs) == [0, 1, 2, 3]
    workers = {worker.pid for worker in cluster.workers.values()}
    assert {run["process"] for run in runs} <= workers
    assert run_cases("toy", CASES, run_one, **options)["runs"] == runs
    monkeypatch.setattr(clusters, "scheduler", "nowhere")
    with pytest.raises(ValueError, match="--dask='nowhere': expected a scheduler"):
        run_cases("toy", CASES, run_one, fresh=True, **options)


def test_workers_with_other_data_are_other_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "DATA_DIR", tmp_path)
    (tmp_path / "stdlib-gpt").mkdir()
    (tmp_path / "published").mkdir()
    files = [tmp_path / "stdlib-gpt" / "model.safetensors", tmp_path / "published" / "gqa.csv"]
    seen = []
    for file in (None, *files, tmp_path / "stdlib-gpt" / "training.safetensors"):
        if file:
            file.write_bytes(b"others")
        clusters._contents.cache_clear()
        seen.append(clusters.package_identity())
    clusters._contents.cache_clear()
    assert len(set(seen)) == 3
    assert seen[2] == seen[3]  # half a training is no data


def test_a_case_is_found_again_by_its_own_values(toy, tmp_path):
    parts = [dict(n=1, seed=0), dict(n=1, seed=0, deep=True)]
    with pytest.raises(ValueError, match=r"cases=.*: expected no case twice, nor one that is a pa"):
        toy(cases=parts)
    options = dict(settings={}, say=lambda line: None, folder=tmp_path)
    with pytest.raises(ValueError, match=r"result=.*: expected no key of its case with another"):
        run_cases("toy", CASES, lambda n, seed: dict(n=n + 1), **options)
    assert not (tmp_path / "toy.json").exists()


def test_progress_names_what_fits_a_line(tmp_path):
    said: list[str] = []
    options = dict(settings={}, say=said.append, folder=tmp_path)
    cases = [dict(n=1, seed=0)]
    run_cases("toy", cases, lambda n, seed: dict(hits="01" * 100, right=n / 3), **options)
    assert "n 1, seed 0:  right 0.3333" in said[-1]
    assert "0101" not in said[-1]


def test_workers_of_another_kind_of_machine_are_refused(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(clusters, "scheduler", cluster.scheduler_address)
    monkeypatch.setattr(clusters, "machine_name", lambda machine: "another")
    options = dict(settings={}, say=lambda line: None, folder=tmp_path)
    with pytest.raises(ValueError, match=r"worker='tcp://127.*: expected the same code"):
        run_cases("toy", CASES, lambda n, seed: dict(value=n), **options)


@pytest.mark.parametrize(("before", "after"), [(clusters.NANNYS, None), ("1000000", "1000000")])
def test_kernels_do_not_inherit_how_the_nanny_frees_memory(cluster, before, after):
    environ = dask.config.get("distributed.nanny.pre-spawn-environ")
    assert str(environ[clusters.TRIM]) == clusters.NANNYS
    with clusters.connect(cluster.scheduler_address, clusters.package_identity) as (_, call):
        with cluster.get_client() as client:
            client.run(lambda: os.environ.update({clusters.TRIM: before}))
        ((_, future),) = call(os.getenv, {0: (clusters.TRIM,)})
        assert future.result() == after


def test_an_experiment_that_times_things_is_refused_on_a_cluster():
    assert set(TIMED) <= set(experiments())
    with pytest.raises(ValueError, match="name='int8-engines': expected with --dask an exp"):
        run_experiment("int8-engines", dask="tcp://10.0.0.1:8786")
    assert clusters.scheduler is None


# --- Experiments are found by file; processes of their own -----------------------------------


def test_a_helpers_file_is_no_experiment():
    assert "int8-engines" in experiments()
    assert not {"record", "isolated", "stdlib-gpt"} & set(experiments())
    for name in ("record", "int8_engines", "nonsense"):
        with pytest.raises(ValueError, match=f"name='{name}': expected one of 'attention-bench'"):
            run_experiment(name)


def test_a_process_of_its_own_has_its_environment_and_a_failing_one_says_why():
    found = run_isolated("os:getenv", dict(key="EFFLAB_TOY"), dict(EFFLAB_TOY="7"))
    assert found == "7"
    with pytest.raises(RuntimeError, match="JSONDecodeError"):
        run_isolated("json:loads", dict(s="{"))
    with pytest.raises(RuntimeError, match=r"longer than 0\.5 s"):
        run_isolated("os:system", dict(command="sleep 20"), timeout=0.5)


# --- Recorded, then repeated here ------------------------------------------------------------


def test_a_recorded_seed_is_compared_with_itself_and_a_new_one_with_all():
    values = {0: 5.0, 1: 5.2, 2: 5.1}
    value, spread = expected_repeat(values, 1)
    assert (value, spread) == (5.2, stdev(values.values()))
    value, spread = expected_repeat(values, 7)
    assert value == pytest.approx(5.1)
    assert spread == pytest.approx(4.3027 * 0.1 * (4 / 3) ** 0.5, rel=1e-4)  # Student's t, n = 3
    with pytest.raises(ValueError, match="number of values=1"):
        expected_repeat({0: 5.0}, 0)


def test_agreement_ends_where_the_spread_does():
    assert agrees(5.09, 5.0, 0.1) is True
    assert agrees(5.11, 5.0, 0.1) is False
    assert agrees(4.89, 5.0, 0.1) is False
    assert agrees(5.0, 5.0, None) is None
