"""Registered rules: which were fixed before their numbers existed, provably by the history.

`data/rules.toml` holds the rules, `data/registrations.json` {claim.part: [{hash, commit, date}]}:
the hash of a rule's content, and the commit in which it stood. A record's provenance names the
hashes of the rules for which it was made.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from efflab.base.files import update
from efflab.base.git import ask_git
from efflab.base.json_files import read_json
from efflab.base.places import DATA_DIR
from efflab.base.toml_files import read_toml
from efflab.errors import require
from efflab.experiments.record import blocks

RULES, FILE = DATA_DIR / "rules.toml", DATA_DIR / "registrations.json"
WORDS = ("condition", "shows", "next")
"""Keys of a rule that are no part of its content: words, what is only shown, a later design."""


def rule_hash(rule: Mapping) -> str:
    """The hash of a rule's content; other words, or another order of keys, change nothing.

    >>> rule_hash({"bar": 60, "shows": []}) == rule_hash({"bar": 60})
    True
    """
    content = {key: value for key, value in rule.items() if key not in WORDS}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def every_rule(rules: Mapping[str, Mapping]) -> Iterator[tuple[str, Mapping]]:
    """("claim.part", rule) of all rules, and ("claim.part.next", rule) of designs to come."""
    for claim, parts in rules.items():
        for part, rule in parts.items():
            yield f"{claim}.{part}", rule
            if "next" in rule:
                yield f"{claim}.{part}.next", rule["next"]


@lru_cache(maxsize=4)
def read_rules(path: Path = RULES) -> dict[str, dict[str, dict]]:
    """data/rules.toml: {claim: {part: rule}}."""
    return read_toml(path)


def rules_for(record: str) -> list[str]:
    """Hashes of the rules and designs whose numbers come from a record, for its provenance."""
    sources = ((rule.get("source", {}), rule) for _, rule in every_rule(read_rules()))
    return sorted(rule_hash(rule) for source, rule in sources if source.get("record") == record)


@lru_cache(maxsize=1)
def registrations(path: Path = FILE) -> dict[str, list[dict]]:
    """{"claim.part": [{"hash", "commit", "date"}, ...]}, oldest first."""
    return read_json(path) if path.exists() else {}


def entries(key: str, known: Mapping[str, list[dict]] | None = None) -> list[dict]:
    """The registrations of a part's rules, and of its designs to come: one may be its rule now."""
    known = registrations() if known is None else known
    return [entry for place in (key, f"{key}.next") for entry in known.get(place, [])]


def basis(key: str, rule: Mapping) -> tuple[str, str | None]:
    """What a part rests on ("claim.part"), and since when it is registered.

    "registered" needs a registration of this very content, and a record made for it with its
    seeds, or a notebook of the settings that the rule names; whether that was before the record
    began or the notebook had the statement, a test asks the history.
    """
    if rule["basis"] != "sampled":
        return rule["basis"], None
    content = rule_hash(rule)
    days = [entry["date"] for entry in entries(key) if entry["hash"] == content]
    source = rule.get("source", {})
    is_new = "settings" in source
    if "record" in source:
        is_new = _was_made_for(source["record"], content, source["seeds"])
    return ("registered", min(days)) if days and is_new else ("exploratory", None)


def _was_made_for(name: str, content: str, seeds: list[int]) -> bool:
    """Whether a record's last complete block, which notebooks read, was made in every run for the
    rule with this hash, and with these seeds."""
    if not (DATA_DIR / "experiments" / f"{name}.json").exists():
        return False
    block = next((block for block in reversed(blocks(name)) if block["complete"]), None)
    if block is None:
        return False
    made_for = all(content in entry.get("rules", []) for entry in block["provenance"])
    return made_for and {run["seed"] for run in block["runs"]} == set(seeds)


def register(path: Path = RULES, file: Path = FILE) -> list[str]:
    """Register every rule that is not yet, with the last commit's id and day; returns their keys.

    The rules' file must be committed as it stands: a `ValueError` otherwise.
    """
    root, name = path.parents[1], f"{path.parent.name}/{path.name}"
    last = ask_git(root, "log", "-1", "--format=%H %cs")
    require(last is not None, "folder", root.name, "a folder of a git repository with commits")
    commit, day = last.split()
    text, stored = path.read_text(encoding="utf-8"), ask_git(root, "show", f"{commit}:{name}")
    require(text == stored, "rules", name, "a file that is committed as it stands")
    known, added = (read_json(file) if file.exists() else {}), []
    for key, rule in every_rule(tomllib.loads(text)):
        entry = dict(hash=rule_hash(rule), commit=commit, date=day)
        hashes = [e["hash"] for e in entries(key, known)]
        if rule["basis"] == "sampled" and entry["hash"] not in hashes:
            known[key] = [*known.get(key, []), entry]
            added.append(key)
    if added:
        update(file, lambda _: json.dumps(known, indent=1) + "\n")
    return added
