"""Rules that were registered before their numbers: by content, and by the history."""

import json
import subprocess
import tomllib
from datetime import date

import pytest

from efflab.experiments import registration
from efflab.experiments.record import blocks
from efflab.experiments.registration import (
    basis,
    entries,
    every_rule,
    register,
    registrations,
    rule_hash,
)
from efflab.lab.judge import read_rules
from efflab.publishing.catalog import ROOT, catalog

RULE = dict(basis="sampled", cases=["x"], test="above", bar=60, kinds=["recorded"])
RULE |= dict(source=dict(record="toy", seeds=[100, 101]))
NEW = dict(source=dict(notebook="03", settings=dict(width=1280)))
"""A notebook's, at settings that it had not had."""
TEXT = """\
[claim.part]
basis = "sampled"
cases = ["x"]
test = "above"
bar = 60
kinds = ["recorded"]
source = {record = "toy", seeds = [100, 101]}

[claim.sum]
basis = "formula"
cases = ["y"]
test = "near"
bar = 1
kinds = ["computed"]
"""


def git(folder, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", "-C", str(folder), *identity, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A git repository in which the rules are committed."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "rules.toml"
    path.write_text(TEXT, encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "rules")
    return path


def test_a_hash_is_of_content_never_of_words_or_order():
    same = dict(reversed(RULE.items())) | dict(shows=["z"], condition=dict(en="a", zh="b"))
    assert rule_hash(RULE) == rule_hash(same)
    changes = dict(bar=61), dict(cases=["x", "y"]), dict(test="below"), dict(margin=0.5)
    changes += dict(source=dict(record="toy", seeds=[100])), dict(controls=[dict(case="c")])
    assert len({rule_hash(RULE | change) for change in ({}, *changes)}) == 7


def test_a_rule_is_registered_once_and_again_when_it_changes(repository):
    file = repository.with_name("registrations.json")
    assert register(repository, file) == ["claim.part"]  # a formula needs none
    (entry,) = registrations.__wrapped__(file)["claim.part"]
    assert entry["hash"] == rule_hash(RULE)
    assert entry["commit"] == git(repository.parent, "rev-parse", "HEAD")
    assert date.fromisoformat(entry["date"]) <= date.today()
    assert register(repository, file) == []
    repository.write_text(TEXT.replace("60", "61"), encoding="utf-8")
    with pytest.raises(ValueError, match="expected a file that is committed as it stands"):
        register(repository, file)
    git(repository.parent, "commit", "-qam", "another bar")
    assert register(repository, file) == ["claim.part"]
    assert [e["hash"] for e in json.loads(file.read_text())["claim.part"]] == [
        rule_hash(RULE),
        rule_hash(RULE | dict(bar=61)),
    ]


def test_a_design_that_became_the_rule_needs_no_second_registration(repository):
    file, later = repository.with_name("registrations.json"), TEXT.replace("60", "61")
    design = later[: later.index("[claim.sum]")].replace("claim.part", "claim.part.next")
    repository.write_text(TEXT + design, encoding="utf-8")
    git(repository.parent, "commit", "-qam", "a design to come")
    assert register(repository, file) == ["claim.part", "claim.part.next"]
    repository.write_text(later, encoding="utf-8")
    git(repository.parent, "commit", "-qam", "its record is there")
    assert register(repository, file) == []
    known = registrations.__wrapped__(file)
    assert [e["hash"] for e in entries("claim.part", known)] == [
        rule_hash(RULE),
        rule_hash(RULE | dict(bar=61)),
    ]


def test_without_a_repository_nothing_is_registered(tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "rules.toml"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match="expected a folder of a git repository"):
        register(path, path.with_name("registrations.json"))
    assert not path.with_name("registrations.json").exists()


def test_registered_needs_registration_and_a_record_made_for_it(monkeypatch, tmp_path):
    ours = (rule_hash(RULE),)

    def record(rules=ours, seeds=(100, 101), complete=True):
        runs = [dict(seed=seed, made=0) for seed in seeds]
        return [dict(complete=complete, provenance=[dict(rules=list(rules))], runs=runs)]

    entry = dict(hash=rule_hash(RULE), commit="a" * 40, date="2026-11-28")
    (tmp_path / "experiments").mkdir()
    monkeypatch.setattr(registration, "DATA_DIR", tmp_path)
    monkeypatch.setattr(registration, "registrations", lambda: {"claim.part": [entry]})
    assert basis("claim.part", RULE) == ("exploratory", None)  # no record yet
    (tmp_path / "experiments" / "toy.json").write_text("{}")
    for found, word in (
        (record(), "registered"),
        (record(rules=["another"]), "exploratory"),
        (record(seeds=[0, 1]), "exploratory"),
        (record(seeds=[100]), "exploratory"),
        (record(complete=False), "exploratory"),
        (record() + record(["another"], complete=False), "registered"),
        (record() + record(["another"]), "exploratory"),
    ):
        monkeypatch.setattr(registration, "blocks", lambda name, found=found: found)
        assert basis("claim.part", RULE)[0] == word
    monkeypatch.setattr(registration, "blocks", lambda name: record())
    assert basis("claim.part", RULE) == ("registered", "2026-11-28")
    assert basis("claim.part", RULE | dict(bar=61)) == ("exploratory", None)
    assert basis("claim.other", RULE) == ("exploratory", None)
    assert basis("claim.part", RULE | dict(basis="formula")) == ("formula", None)
    assert basis("claim.part", RULE | dict(source=dict(notebook="03"))) == ("exploratory", None)
    entry["hash"] = rule_hash(RULE | NEW)
    assert basis("claim.part", RULE | NEW) == ("registered", "2026-11-28")
    assert basis("claim.part", RULE | NEW | dict(bar=61)) == ("exploratory", None)


# --- The repository's own --------------------------------------------------------------------


def rules_at(commit):
    return tomllib.loads(git(ROOT, "show", f"{commit}:data/rules.toml"))


def has(commit):
    """Whether the history at hand has the commit: a shallow clone may not."""
    return subprocess.run(["git", "-C", str(ROOT), "cat-file", "-e", commit]).returncode == 0


def entries_of(key, rule):
    """The registrations of this content, as a part's rule or, earlier, as its design to come."""
    return [entry for entry in registration.entries(key) if entry["hash"] == rule_hash(rule)]


def test_every_sampled_rule_and_design_is_registered_as_it_stands():
    for key, rule in every_rule(read_rules()):
        if rule["basis"] == "sampled":
            assert entries_of(key, rule), key


def test_every_registration_names_a_commit_in_which_its_rule_stood():
    for key, known in registrations().items():
        for entry in known:
            if not has(entry["commit"]):
                assert git(ROOT, "rev-parse", "--is-shallow-repository") == "true"
                continue
            then = dict(every_rule(rules_at(entry["commit"])))
            assert rule_hash(then[key]) == entry["hash"], key
            assert git(ROOT, "show", "-s", "--format=%cs", entry["commit"]) == entry["date"]
            git(ROOT, "merge-base", "--is-ancestor", entry["commit"], "HEAD")


def test_what_is_called_registered_began_after_with_seeds_that_no_record_had():
    for key, rule in every_rule(read_rules()):
        if basis(key, rule)[0] != "registered":
            continue
        (entry,) = entries_of(key, rule)
        if "notebook" in rule["source"]:
            if has(entry["commit"]):
                assert key.split(".")[0] not in notebook_at(entry["commit"], rule)
            continue
        known = blocks(rule["source"]["record"])
        assert known
        for made in (entry for block in known for entry in block["provenance"]):
            git(ROOT, "merge-base", "--is-ancestor", entry["commit"], made["commit"])
        assert not set(rule["source"]["seeds"]) & seeds_at(entry["commit"])


def notebook_at(commit, rule):
    """The outputs of a rule's notebook, as they stood in a commit."""
    name = catalog()[rule["source"]["notebook"]]["name"]
    cells = json.loads(git(ROOT, "show", f"{commit}:notebooks/{name}.ipynb"))["cells"]
    return json.dumps([cell.get("outputs") for cell in cells])


def seeds_at(commit):
    """Every seed of every record that stood in a commit."""
    names = git(ROOT, "ls-tree", "--name-only", commit, "data/experiments/").splitlines()
    records = [json.loads(git(ROOT, "show", f"{commit}:{name}")) for name in names]
    return {run["seed"] for r in records for block in r["machines"] for run in block["runs"]}


def test_a_registered_design_has_seeds_that_no_record_had_then():
    for key, rule in every_rule(read_rules()):
        if not key.endswith(".next"):
            continue
        entries = [e for e in registrations()[key] if e["hash"] == rule_hash(rule)]
        for entry in filter(lambda e: has(e["commit"]), entries):
            assert not seeds_at(entry["commit"]) & set(rule["source"]["seeds"]), key
