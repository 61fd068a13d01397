"""What a killed experiment leaves, and whether a record's corpus is this Python's."""

import platform

from efflab.experiments.record import kept_runs, record, same_python

SETTINGS = dict(n_steps=3, lr=0.1)


def test_runs_are_kept_under_their_own_settings_only(tmp_path):
    assert kept_runs("toy", SETTINGS, tmp_path) == []
    record("toy", settings=SETTINGS | dict(early=1), seeds=[0], folder=tmp_path, runs=[{"a": 1}])
    assert kept_runs("toy", SETTINGS, tmp_path) == [{"a": 1}]
    assert kept_runs("toy", SETTINGS | dict(lr=0.2), tmp_path) == []
    assert kept_runs("toy", SETTINGS | dict(more=1), tmp_path) == []


def test_another_minor_version_is_another_corpus():
    major, minor, _ = platform.python_version_tuple()
    for python, same in ((f"{major}.{minor}.99", True), (f"{major}.{int(minor) + 1}.0", False)):
        assert same_python(dict(versions=dict(python=python))) is same
