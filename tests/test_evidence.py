"""Evidence survives kills, full disks and other people's edits, or says what is wrong."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import EvidenceError
from harness.evidence import EvidenceFile, content_key, lock, read_finished
from harness.records import SCHEMA

SPEC = {"what": "transcript", "probes": "abc", "batch": 3}
BATCHES = 4


def batch(number: int, size: int = 3) -> list[dict[str, Any]]:
    return [
        {"kind": "response", "batch": number, "of": size, "text": f"é|\n\r\u2028 {i}", "i": i / 7}
        for i in range(size)
    ]


def opened(folder: Path) -> EvidenceFile:
    return EvidenceFile(folder, "stem", SPEC, {"subject": "s"})


def complete(folder: Path) -> EvidenceFile:
    """What a run does: ask what is missing, store it, finish."""
    file = opened(folder)
    done = {entry["batch"] for entry in file.entries}
    for number in range(BATCHES):
        if number not in done:
            file.append(batch(number))
    file.finish()
    return file


def test_finished_evidence_is_read_back_and_not_written_again(tmp_path: Path) -> None:
    written = complete(tmp_path)
    before = written.path.read_bytes()
    again = opened(tmp_path)
    assert again.complete
    assert again.entries == [e for n in range(BATCHES) for e in batch(n)]
    again.finish()
    assert written.path.read_bytes() == before
    assert read_finished(written.path) == again.entries


def test_header_names_schema_key_and_spec(tmp_path: Path) -> None:
    file = complete(tmp_path)
    header = json.loads(file.path.read_text().splitlines()[0])
    assert header == {
        "kind": "header",
        "schema": SCHEMA,
        "key": content_key(SPEC),
        "spec": SPEC,
        "provenance": {"subject": "s"},
    }
    assert file.path.name == f"stem--{content_key(SPEC)}.jsonl"


def test_another_spec_is_another_file(tmp_path: Path) -> None:
    file = complete(tmp_path)
    other = EvidenceFile(tmp_path, "stem", {**SPEC, "probes": "abd"})
    assert other.path != file.path
    assert not other.entries


def test_torn_last_line_and_incomplete_batch_are_cut(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.append(batch(0))
    whole = file.path.read_bytes()
    with file.path.open("ab") as stream:
        stream.write(json.dumps(batch(1)[0]).encode() + b"\n" + b'{"kind": "resp')
    again = opened(tmp_path)
    assert again.entries == batch(0)
    assert again.path.read_bytes() == whole


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(share=st.floats(0, 1))
def test_cut_anywhere_resumes_to_the_same_bytes(
    share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    undisturbed = complete(folder).path
    data = undisturbed.read_bytes()
    undisturbed.write_bytes(data[: int(share * len(data))])
    resumed = opened(folder)
    whole = [e for n in range(BATCHES) for e in batch(n)]
    assert resumed.entries == whole[: len(resumed.entries)]
    assert len(resumed.entries) % 3 == 0
    complete(folder)
    assert undisturbed.read_bytes() == data


def test_kill_in_the_middle_of_writing_loses_at_most_the_open_batch(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_evidence import batch, opened
        file = opened(Path(sys.argv[1]))
        for number in range(4):
            file.append(batch(number))
            print(number, flush=True)
        """
    )
    words = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGKILL)
    resumed = opened(tmp_path)
    assert resumed.entries[:3] == batch(0)
    assert len(resumed.entries) % 3 == 0


def damaged(folder: Path, line: int, content: str | None) -> Path:
    """A finished file with one line (from 1) replaced, or deleted with None."""
    path = complete(folder).path
    lines = path.read_text().split("\n")
    lines[line - 1 : line] = [] if content is None else [content]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("content", ["{broken", "[1]", "\x00\x00", "null"])
def test_damage_before_the_end_names_file_and_line(tmp_path: Path, content: str) -> None:
    path = damaged(tmp_path, 4, content)
    with pytest.raises(EvidenceError, match=rf"{path.name}:4 is not valid JSON .*delete the file"):
        opened(tmp_path)


@pytest.mark.parametrize("line", [3, 6, 13])
def test_a_deleted_answer_is_noticed(tmp_path: Path, line: int) -> None:
    damaged(tmp_path, line, None)
    with pytest.raises(EvidenceError, match="delete the file and run the command again"):
        opened(tmp_path)


def test_a_deleted_answer_in_unfinished_evidence_is_noticed(tmp_path: Path) -> None:
    path = damaged(tmp_path, 3, None)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(EvidenceError, match="delete the file and run the command again"):
        opened(tmp_path)


def test_lines_after_the_end_are_noticed(tmp_path: Path) -> None:
    path = complete(tmp_path).path
    with path.open("a") as stream:
        stream.write(json.dumps(batch(9, 1)[0]) + "\n")
    with pytest.raises(EvidenceError, match="delete the file and run the command again"):
        opened(tmp_path)


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    path = complete(tmp_path).path
    path.write_text(path.read_text().replace(f'"schema":{SCHEMA}', f'"schema":{SCHEMA + 1}', 1))
    with pytest.raises(EvidenceError, match=r"newer harness .*upgrade the harness"):
        opened(tmp_path)


@pytest.mark.parametrize("schema", ["soon", None, [1]])
def test_senseless_schema_is_damage(tmp_path: Path, schema: object) -> None:
    path = complete(tmp_path).path
    text = path.read_text().replace(f'"schema":{SCHEMA}', f'"schema":{json.dumps(schema)}', 1)
    path.write_text(text)
    with pytest.raises(EvidenceError, match="delete the file and run the command again"):
        opened(tmp_path)


def test_header_of_other_evidence_is_refused(tmp_path: Path) -> None:
    path = complete(tmp_path).path
    path.write_text(path.read_text().replace(content_key(SPEC), "0" * 16, 1))
    with pytest.raises(EvidenceError, match="does not hold the evidence its name promises"):
        opened(tmp_path)


def test_edited_unfinished_evidence_is_not_cut_silently(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.append(batch(0))
    spaced = file.path.read_text().replace('"batch":0', '"batch": 0')
    file.path.write_text(spaced + '{"torn')
    with pytest.raises(EvidenceError, match="edited by hand"):
        opened(tmp_path)
    assert file.path.read_text() == spaced + '{"torn'


def test_a_place_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = EvidenceFile(tmp_path / "file" / "evidence", "stem", SPEC)
    with pytest.raises(EvidenceError, match="--output-dir"):
        file.append(batch(0))


@pytest.fixture
def small_disk() -> Any:
    """Files cannot grow beyond 400 bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_keeps_whole_batches_and_the_same_file_goes_on(
    tmp_path: Path, small_disk: Any
) -> None:
    file = opened(tmp_path)
    with pytest.raises(EvidenceError, match=r"cannot be written .*free some space"):
        for number in range(BATCHES):
            file.append(batch(number))
    small_disk()
    stored = file.path.read_bytes()
    assert not stored or stored.endswith(b"\n")
    for number in range(len(file.entries) // 3, BATCHES):
        file.append(batch(number))
    file.finish()
    assert file.path.read_bytes() == complete(tmp_path / "undisturbed").path.read_bytes()


def test_read_finished_refuses_unfinished_evidence(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.append(batch(0))
    with pytest.raises(EvidenceError, match=r"not finished.*run the original command again"):
        read_finished(file.path)
    with pytest.raises(EvidenceError, match="cannot be read"):
        read_finished(tmp_path / "nothing.jsonl")


def test_one_writer_per_folder(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from harness.evidence import lock
        held = lock(Path(sys.argv[1]))
        print("held", flush=True)
        sys.stdin.read()
        """
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(EvidenceError, match=r"Another harness run is writing.*--output-dir"):
            lock(tmp_path)
        process.kill()
    lock(tmp_path).release()


def test_lock_under_a_file_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="--output-dir"):
        lock(tmp_path / "file" / "out")
