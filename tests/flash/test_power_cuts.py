"""The power goes at any moment of any writing command: nothing is lost that was not to be, and the way on is found."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from miniscope_xr.tools.flash import jobs, journal, operation, recover, whose_backup
from miniscope_xr.tools.flash.errors import InterruptedWriteError
from miniscope_xr.tools.flash.journal import Journal
from miniscope_xr.tools.flash.look import look

from .cli import card_id
from .fakes import SECTOR, Fault, FaultDisk, Killed, v4_buffers, v4_card
from .harness import COUNTS, DATA, HEADER, job_for, seen_on
from .loops import loop, needs_loops
from .power_cuts import AFTER_REBOOT, Memory, Recorder, cards, differing, look_again, points, restore, resume
from .test_strace import _can_trace

VERBS = (
    "prepare", "set", "wipe", "blank-table", "restore of set", "restore of prepare", "restore of blank-table",
    "resume of prepare", "resume of wipe", "resume of blank-table",
)  # fmt: skip


def sparse_card() -> bytes:
    """A counted recording of two buffers of which hardly more than the headers is not zero."""
    card = bytearray(v4_card(buffers=0))
    card[COUNTS : COUNTS + SECTOR] = v4_card(buffers=2)[COUNTS : COUNTS + SECTOR]
    for at, data in v4_buffers(2):
        card[at * SECTOR : at * SECTOR + 48] = data[:48]
    card[DATA + 3 * SECTOR + 100 : DATA + 3 * SECTOR + 104] = b"\x01\x02\x03\x04"
    return bytes(card)


def sparse_table() -> bytes:
    """The same with a GPT and its copy: of every sector of it a few bytes."""
    card = bytearray(sparse_card())
    card[450:454] = b"\x0c\xee\x02\x01"
    card[510:512] = b"\x55\xaa"
    for at in (SECTOR, len(card) - SECTOR):
        card[at : at + 8] = b"EFI PART"
    for at in (2 * SECTOR, len(card) - 33 * SECTOR):
        card[at : at + 4] = b"\x28\x73\x2a\xc1"
    return bytes(card)


@dataclass
class Case:
    """A run of one command: where it starts, where it must end, what `restore` has to bring back, its time line.

    ``of`` is the command that changes the card: that which is resumed or restored, where ``verb`` is one of these.
    """

    of: str
    verb: str
    original: bytes
    start: bytes
    end: bytes
    memory: Memory
    versions: dict[str | None, Memory]
    backups: Path
    job: jobs.CardJob


def make(verb: str, backups: Path, patch: pytest.MonkeyPatch, mutant=lambda job: job) -> Case:
    memory = Memory()
    memory.install(patch)
    verb, _, of = verb.partition(" of ")
    original = start = sparse_table() if "blank-table" in (verb, of) else sparse_card()
    if verb == "restore":
        disk = FaultDisk(start)
        jobs.carry_out(job_for(of, start, backups), disk, backups)
        start = disk.view()
        job = recover.restore(FaultDisk(start), seen_on(start), next(iter(memory.kept.values())))
    elif verb == "resume":  # of one that was cut off where most was in flight, of which nothing reached the card
        jobs.carry_out(job_for(of, start, backups), Recorder(start, memory), backups)
        point = max(points(start, memory.log), key=lambda p: len(p.flying))
        start = point.settled
        old = next(iter(memory.kept.values()))
        old.phase = point.journal or ""
        job = recover.resume(FaultDisk(start), seen_on(start), copy.copy(old))
    else:
        job = job_for(verb, start, backups)
    memory.log.clear()
    versions: dict[str | None, Memory] = {None: copy.deepcopy(memory)}
    write = Journal.write

    def remember(old: Journal, phase: str) -> None:
        write(old, phase)
        versions[phase] = copy.deepcopy(memory)

    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(Journal, "write", remember)
        disk = Recorder(start, memory)
        jobs.carry_out(mutant(job), disk, backups)
    return Case(of or verb, verb, original, start, disk.view(), memory, versions, backups, job)


def restored(case: Case, card: bytes) -> list[str]:
    """What `restore` must have brought back."""
    if case.of == "blank-table":
        return [] if card == case.original else ["the table is not as it was"]
    wrong = []
    if card[HEADER : HEADER + SECTOR] != case.original[HEADER : HEADER + SECTOR]:
        wrong.append("the old settings did not come back")
    counts = card[COUNTS : COUNTS + SECTOR]
    if counts != case.original[COUNTS : COUNTS + SECTOR] and any(counts):
        wrong.append("the counts are neither the old ones nor zero")
    if any(counts) and card[DATA : DATA + SECTOR] != case.original[DATA : DATA + SECTOR]:
        wrong.append("the counts describe data that is gone")
    if card[:HEADER] != case.original[:HEADER]:
        wrong.append("something in front of the settings is changed")
    return wrong


def judge(case: Case, card: bytes, phase: str | None) -> list[str]:
    """Go on from here by `resume`, by `restore`, and by both in either order."""

    def memory() -> Memory:
        return copy.deepcopy(case.versions[phase])

    header = card[HEADER : HEADER + SECTOR]
    if (
        (case.of, case.verb == "restore") == ("prepare", False)
        and header == case.end[HEADER : HEADER + SECTOR] != case.start[HEADER : HEADER + SECTOR]
        and card[COUNTS:] != case.end[COUNTS:]
    ):
        return ["new settings over old counts or data"]
    if phase is None and case.verb != "resume":  # which goes on in a journal that is there
        return [] if card == case.start else ["the card is changed and no journal says so"]
    wrong = []
    kept = memory()
    finished = resume(card, kept, case.backups)
    if phase == "done":
        if finished is not None or card != case.end:
            wrong.append("done, but it is not")
        finished = card
    elif finished is None:
        return ["nobody knows that there is something to finish"]
    elif finished != case.end:
        wrong.append(f"resume does not finish the card: sectors {differing(finished, case.end)}")
    if phase != "done" and resume(finished, kept, case.backups) is not None:
        wrong.append("resume does it again")
    wrong += [f"after resume: {w}" for w in restored(case, restore(finished, kept, case.backups))]
    kept = memory()
    back = restore(card, kept, case.backups)
    wrong += restored(case, back)
    onward = resume(back, kept, case.backups)
    if onward is not None and onward != case.end:
        wrong.append("resume after restore ends somewhere else")
    if onward is not None and back != card:
        wrong.append("resume undoes what restore did")
    return wrong


def judge_all(case: Case, at_once: int = 1) -> dict[tuple[bytes, str | None], list[str]]:
    judged: dict[tuple[bytes, str | None], list[str]] = {}
    for point in points(case.start, case.memory.log):
        for card in cards(point, at_once):
            if (card, point.journal) not in judged:
                judged[card, point.journal] = judge(case, card, point.journal)
    return judged


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_power_cut(verb, ram_path, monkeypatch):
    """Each subset of the sectors in flight, up to two of them torn, and every way on from there: < 60 s each."""
    monkeypatch.setattr(operation, "STEP", 64 << 10)
    judged = judge_all(make(verb, ram_path, monkeypatch), at_once=2)
    wrong = [w for found in judged.values() for w in found]
    assert not wrong, f"{len(wrong)} of {len(judged)} states, for example {sorted(set(wrong))}"
    assert len(judged) > 50
    print(f"{verb}: {len(judged)} states")


def _settings_first(job: jobs.CardJob) -> jobs.CardJob:
    return replace(job, changes=list(job.changes)[::-1])


@pytest.mark.slow
def test_a_power_cut_in_the_proof(ram_path):
    """Marks are left where the plan will be: `resume` finishes, `restore` brings the settings back."""
    start = sparse_card()
    job = job_for("prepare", start, ram_path)
    region = (DATA + SECTOR, DATA + SECTOR + (128 << 10))
    clean = FaultDisk(start)
    jobs.carry_out(replace(job, prove=region), clean, ram_path / "clean")
    first = next(i for i, (kind, at, _) in enumerate(clean.log) if kind == "write" and at != COUNTS)
    last = next(i for i, (kind, at, _) in enumerate(clean.log) if kind == "write" and at == COUNTS)
    for n, at in enumerate(range(first, last, 7)):
        for power in ("none", "all", n):
            disk = FaultDisk(start, Fault(at, "killed after", power=power))
            backups = ram_path / f"{at}-{power}"
            with pytest.raises(Killed):
                jobs.carry_out(replace(job, prove=region), disk, backups)
            card = bytes(disk.media)
            assert card[:DATA] == start[:DATA]
            known = replace(AFTER_REBOOT, size=len(card))
            for choose, act in ((recover.to_resume, recover.resume), (recover.to_restore, recover.restore)):
                copied = shutil.copytree(backups, ram_path / "again", dirs_exist_ok=True)
                disk = FaultDisk(card)
                old = choose(whose_backup.own(disk, known, journal.find(copied)))
                assert old is not None
                onward = act(disk, look(disk, known, old.layout, whole=True), old)
                if onward.changes:
                    jobs.carry_out(onward, disk, copied)
                if act is recover.resume:
                    assert differing(disk.view(), clean.view()) in ([], [HEADER // SECTOR])
                    assert not any(disk.view()[COUNTS:])
                assert act is recover.resume or disk.view()[HEADER:COUNTS] == start[HEADER:COUNTS]
                shutil.rmtree(copied)


def test_a_signal_in_the_proof_stops_before_anything_is_wiped(ram_path):
    """It is not forgotten because the marks are put back first."""
    start = sparse_card()
    job = replace(job_for("prepare", start, ram_path), prove=(DATA + SECTOR, DATA + SECTOR + (128 << 10)))

    class Hit(FaultDisk):
        def write(self, offset, data):
            super().write(offset, data)
            if len([1 for kind, _, _ in self.log if kind == "write"]) == 5:
                signal.raise_signal(signal.SIGINT)

    disk = Hit(start)
    with pytest.raises(InterruptedWriteError, match="the card was not changed") as caught:
        jobs.carry_out(job, disk, ram_path / "b")
    assert caught.value.exit_code == 5
    assert disk.view() == start
    assert len([1 for kind, _, _ in disk.log if kind == "write"]) > 5, "marks were put back"


def test_a_failure_in_the_proof_does_not_say_unchanged(ram_path):
    start = sparse_card()
    job = replace(job_for("prepare", start, ram_path), prove=(DATA + SECTOR, DATA + SECTOR + (128 << 10)))
    clean = FaultDisk(start)
    jobs.carry_out(job, clean, ram_path / "clean")
    fifth = [i for i, (kind, _, _) in enumerate(clean.log) if kind == "write"][5]
    with pytest.raises(InterruptedWriteError, match="may be left on the card: `resume`") as caught:
        jobs.carry_out(job, FaultDisk(start, Fault(fifth, "unplugged")), ram_path / "b")
    assert caught.value.exit_code == 6


@pytest.mark.slow
def test_a_broken_order_is_seen(ram_path, monkeypatch):
    """The enumeration finds what it is there to find."""
    case = make("prepare", ram_path, monkeypatch, _settings_first)
    wrong = {w for found in judge_all(case).values() for w in found}
    assert "new settings over old counts or data" in wrong


def test_the_journal_in_memory_is_the_one_on_the_disk(ram_path, monkeypatch):
    """What the enumeration keeps in memory is what a real journal says when it is read again."""
    folder = journal.new_folder(ram_path, "c", "set")
    real = journal.Journal.write
    with pytest.MonkeyPatch.context() as patch:
        case = make("prepare", ram_path / "b", patch)
    for version in case.versions.values():
        for kept in version.kept.values():
            copied = copy.copy(kept)
            copied.folder = folder
            real(copied, kept.phase)
            back = journal.load(folder)
            assert (back.backup, back.changes, back.phase, back.session, back.card) == (
                kept.backup, kept.changes, kept.phase, kept.session, json.loads(json.dumps(dict(kept.card)))
            )  # fmt: skip


def test_a_point_has_all_its_cards():
    """Two sectors of two bytes that differ: 4 subsets, each torn in each way with the other old or new, and both."""
    old = bytes(2 * SECTOR)
    new = (b"\x01\x02" + bytes(SECTOR - 2)) * 2
    (first, last) = points(old, [("write", 0, new), ("flush",)])
    assert last.flying == {}
    found = list(cards(first, at_once=2))
    assert len(found) == len(set(found)) == 4 + 2 * 2 * 2 + 2 * 2
    half = b"\x01" + old[1:SECTOR]
    assert {old, new, b"\x01" + old[1:], b"\x00\x02" + old[2:], half + half} <= set(found)


def trace(folder: Path, *words: object) -> list[tuple]:
    """Run a command under strace; its writes to the card, flushes of it, and journals, in order."""
    log = folder / "trace"
    calls = "trace=pwrite64,pwritev,pwritev2,write,writev,fsync,fdatasync,rename,renameat,renameat2"
    command = ["strace", "-f", "-y", "-s", "0", "-o", log, "-e", calls, sys.executable, "-m", "miniscope_xr", *words]
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return list(parse(log.read_text().splitlines(), str(words[1])))


def as_file(case: Case, backups: Path) -> Path:
    """Write the journal that the model started from where the command can read it."""
    old = copy.copy(next(iter(case.versions[None].kept.values())))
    old.folder = backups / "card" / old.folder.name
    old.folder.mkdir(parents=True)
    old.write(old.phase)
    return old.folder


def without_proof(real: list[tuple], case: Case) -> list[tuple]:
    """Leave out the proof that the card is as large as it says, which goes before: marks, each written and put back.

    They lie where `prepare` is going to wipe, behind the first data sector.
    """
    first, second = [i for i, event in enumerate(real) if event == ("journal",)][:2]
    proof = real[first + 1 : second]
    wiped = next(c for c in case.job.changes if c.name == "data")
    marks = [event for event in proof if event[0] == "write" and event[1]]
    assert all(at > DATA and at + length <= wiped.offset + wiped.length for _, at, length in marks)
    assert all(len([1 for _, at, _ in marks if at == place]) == 2 for _, place, _ in marks)
    assert proof[-1] == ("flush",)
    return real[:first] + real[second:]


def parse(lines: list[str], device: str):
    synced = ""
    for line in lines:
        call, _, rest = line.split(None, 1)[1].partition("(")
        if f"<{device}" in rest.split(",")[0]:
            assert call in ("pwritev2", "pwritev", "fsync"), f"the card is written by {line}"
            if call == "fsync":
                yield ("flush",)
            else:
                offset = rest.split("], 1, ")[1].split(",")[0].split(")")[0]
                yield ("write", int(offset), int(rest.rsplit("= ", 1)[1]))
        elif call == "fsync":
            synced = rest
        elif call.startswith("rename") and "journal.json" in rest:
            assert "journal.json.tmp>" in synced, "the journal is on the disk before it gets its name"
            yield ("journal",)


@needs_loops
@pytest.mark.skipif(not shutil.which("strace") or not _can_trace(), reason="needs strace, and leave to trace")
@pytest.mark.slow
def test_a_real_run_is_the_model(tmp_path):
    """The system calls of the real commands on a real block device are those of the enumerated time lines."""
    image = tmp_path / "card.img"
    for verb, words in (
        ("prepare", ("gain=2", "led=10", "record_length=1s", "fs=5")),
        ("set", ("gain=2", "led=10", "record_length=1s", "fs=5")),
        ("wipe", ()),
        ("blank-table", ()),
        ("restore of set", ()),
        ("resume of prepare", ()),
    ):
        with pytest.MonkeyPatch.context() as patch:
            case = make(verb, tmp_path / "model", patch)
        verb = case.verb
        backups = tmp_path / f"backups-{verb}"
        model = [(e[0],) if e[0] == "journal" else (e[0], e[1], len(e[2])) if e[0] == "write" else e
                 for e in case.memory.log]  # fmt: skip
        image.write_bytes(case.start)
        with loop(image) as device:
            me = card_id(device)
            flags = ["--image", "--yes", "--card", me, "--backup-dir", backups, "--layout", "v4-wirefree"]
            if verb in ("restore", "resume"):
                flags += ["--backup", as_file(case, backups)]
            if verb != "blank-table":
                flags += ["--discard-recording", me]
            real = trace(tmp_path, verb, device, *words, *flags)
        if verb == "prepare":
            real = without_proof(real, case)
        assert real == model
        assert image.stat().st_size == len(case.end)
        changed = image.read_bytes()
        assert differing(changed, case.end) in ([], [HEADER // SECTOR]), "only the session id is another one"


def test_nothing_is_found_on_a_strange_card(ram_path, monkeypatch):
    """The same journals, but another card: other settings, another recording."""
    case = make("prepare", ram_path, monkeypatch)
    other = v4_card(buffers=3, gain=4, led=99)
    for choose in (recover.to_resume, recover.to_restore):
        assert look_again(other, case.versions["data"], choose, whole=False) is None
