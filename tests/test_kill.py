"""Killed at any moment, a run goes on where it was and ends with the same report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import HARNESS, ROOT, write_probes

SCRIPT = Path(__file__).with_name("scripted_run.py")
Moment = Callable[[Path], bool]


def stored(out: Path, subject: str, suite: str = "") -> list[str]:
    """Lines of the evidence of one subject ("base" or "adapter"), header included."""
    lines: list[str] = []
    for file in sorted((out / "evidence").glob("*.jsonl")):
        tuned = "adapter" in file.name or "bleed" in file.name
        if tuned == (subject == "adapter") and suite in file.name:
            lines += file.read_text().splitlines()
    return lines


MOMENTS: dict[str, Moment] = {
    "before the worker is up": lambda out: (out / "evidence" / ".lock").exists(),
    "after the first stored batch": lambda out: len(stored(out, "base")) > 1,
    "between the subjects": lambda out: '"kind":"end"' in str(stored(out, "base", "medical_facts")),
    "in the adapter's second batch": lambda out: len(stored(out, "adapter")) > 1,
    "when all answers are there": lambda out: len(list(ends(out))) == 4,
    "at the manifest": lambda out: any((out / "evidence" / "runs").glob("*")),
    "at the report": lambda out: any(out.glob("*.md")) or any(out.glob(".*.tmp")),
}


def ends(out: Path) -> list[Path]:
    files = (out / "evidence").glob("*.jsonl")
    return [f for f in files if '{"entries":' in f.read_text().rpartition("}\n")[0][-40:]]


def kill_at(words: Sequence[object], moment: Moment, out: Path, limit_s: float) -> bool:
    """Start, wait for the moment, SIGKILL the whole group; False if it ended before."""
    process = subprocess.Popen(
        [str(w) for w in words],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    deadline = time.monotonic() + limit_s
    try:
        while process.poll() is None and not moment(out):
            assert time.monotonic() < deadline, "the moment to kill never came"
            time.sleep(0.002)
        return process.poll() is None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert process.poll() is not None
        process.wait()
        assert_group_is_gone(process.pid)


def assert_group_is_gone(group: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"processes of group {group} live on")


def reports(out: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in out.iterdir() if f.suffix in (".md", ".json")}


def assert_same(out: Path, undisturbed: Path) -> None:
    """Same reports, same manifests, every probe once, nothing half written left."""
    assert reports(out) == reports(undisturbed)
    assert len(reports(out)) == 2
    manifests = [sorted((o / "evidence" / "runs").iterdir()) for o in (out, undisturbed)]
    assert [m.name for m in manifests[0]] == [m.name for m in manifests[1]]
    transcripts = sorted((out / "evidence").glob("*.jsonl"))
    assert [t.name for t in transcripts] == [
        t.name for t in sorted((undisturbed / "evidence").glob("*.jsonl"))
    ]
    for file in transcripts:
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        asked = Counter(e["probe"]["id"] for e in entries if e["kind"] == "response")
        assert set(asked.values()) == {1}
        assert entries[-1] == {"kind": "end", "entries": len(asked)}
    assert not list(out.rglob("*.tmp"))


@pytest.fixture(scope="module", autouse=True)
def no_git() -> Iterator[None]:
    """A commit made while these tests run would rightly change the reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_DIR", "/nonexistent")
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scripted models that take a while, and an undisturbed run of them."""
    folder = tmp_path_factory.mktemp("scripted")
    (folder / "adapter").mkdir()
    greeting = {"text": "Hello! How can I help you?"}
    (folder / "base.json").write_text(json.dumps({"default": greeting, "delay_s": 0.01}))
    (folder / "adapter" / "scripted.json").write_text(json.dumps({"default": {"text": "\n\n"}}))
    write_probes(folder / "probes", {"greetings": 36, "medical_facts": 70})
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, folder / "undisturbed" / "out"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_group_ends_with_the_same_report(work: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    words = [sys.executable, SCRIPT, work, out]
    was_killed = kill_at(words, MOMENTS[moment], out, limit_s=60)
    assert was_killed or moment in ("at the manifest", "at the report")
    again = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert_same(out, work / "undisturbed" / "out")


def test_killed_again_and_again_still_ends_the_same(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, SCRIPT, work, out]
    for lines in (1, 30, 60, 100):
        kill_at(words, lambda o, n=lines: len(stored(o, "base")) > n, out, limit_s=60)
    again = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert_same(out, work / "undisturbed" / "out")


def test_worker_does_not_outlive_a_killed_orchestrator(work: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, SCRIPT, work, out],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(stored(out, "base")) <= 1:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert_group_is_gone(process.pid)


@pytest.mark.real
def test_killed_real_comparison_ends_with_the_same_report(tmp_path: Path) -> None:
    probes = write_probes(tmp_path / "probes", {"greetings": 33})

    def words(out: Path) -> list[object]:
        adapter = ROOT / "examples" / "adapters" / "style-bleed"
        common = ["--probes", probes, "--output-dir", out]
        return [HARNESS, "compare", "smollm2-135m-instruct", "--adapter", adapter, *common]

    undisturbed, out = tmp_path / "undisturbed" / "out", tmp_path / "killed" / "out"
    first = subprocess.run(
        [str(w) for w in words(undisturbed)],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=ROOT,
        check=False,
    )
    assert first.returncode in (0, 1, 3), first.stderr
    assert kill_at(words(out), MOMENTS["after the first stored batch"], out, limit_s=280)
    assert kill_at(words(out), lambda o: len(stored(o, "adapter")) > 1, out, limit_s=280)
    again = subprocess.run(
        [str(w) for w in words(out)],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=ROOT,
        check=False,
    )
    assert again.returncode == first.returncode, again.stderr
    assert_same(out, undisturbed)
