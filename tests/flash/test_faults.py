"""At least 1,100 faults for each writing command, and the broken write orders that they must reveal."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest

from miniscope_xr.tools.flash import operation
from miniscope_xr.tools.flash.journal import Journal

from .fakes import faults_of
from .harness import Scene, judge

CASES = 1100
VERBS = ("prepare", "set", "wipe", "blank-table", "restore", "resume")


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    """Steps of 64 KiB, so that a small card takes several; the host's disk is not what is tested."""
    monkeypatch.setattr(operation, "STEP", 64 << 10)
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_fault_leaves_a_safe_card(verb, ram_path):
    scene = Scene.make(verb, ram_path)
    faults = faults_of(scene.log, CASES)
    assert len(faults) >= CASES
    wrong = {}
    for i, fault in enumerate(faults):
        found = judge(scene, fault, ram_path / str(i))
        if found:
            wrong[fault] = found
    assert not wrong, f"{len(wrong)} of {len(faults)}, the first: {next(iter(wrong.items()))}"


def _header_first(scene, monkeypatch):
    changes = list(scene.job.changes)
    return replace(scene.job, changes=[changes[-1], *changes[:-1]])


def _counts_last(scene, monkeypatch):
    counts, data, header = scene.job.changes
    return replace(scene.job, changes=[data, header, counts])


def _no_verify(scene, monkeypatch):
    monkeypatch.setattr(operation, "verify", lambda *a: None)


def _no_flush(scene, monkeypatch):
    original = operation._Watched.__init__

    def without(self, target):
        original(self, target)
        self.flush = lambda: None

    monkeypatch.setattr(operation._Watched, "__init__", without)


def _no_journal(scene, monkeypatch):
    original = Journal.write
    monkeypatch.setattr(Journal, "write", lambda self, phase: original(self, phase) if phase == "done" else None)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [_header_first, _counts_last, _no_verify, _no_flush, _no_journal])
def test_a_broken_write_order_is_caught(mutant, ram_path, monkeypatch):
    scene = Scene.make("prepare", ram_path)
    faults = faults_of(scene.log, CASES)[::6]
    job = mutant(scene, monkeypatch) or scene.job
    caught = Counter(w for i, f in enumerate(faults) for w in judge(scene, f, ram_path / str(i), job))
    assert caught, f"{mutant.__name__} went unnoticed in {len(faults)} faults"
