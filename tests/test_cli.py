"""The command line teaches, keeps stdout clean, and can be interrupted and rebuilt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import HARNESS, ROOT, RunHarness, write_probes
from test_kill import SCRIPT, assert_group_is_gone, reports

from harness import __version__
from harness.commands import _command

COMMANDS = ("demo", "vet", "compare", "report", "doctor")
ADAPTER = ROOT / "examples" / "adapters" / "style-bleed"
BASE = "smollm2-135m-instruct"

BLOCKED = textwrap.dedent(
    """
    import sys
    class NotInstalled:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("mlx", "mlx_lm", "llama_cpp", "torch", "transformers"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, NotInstalled())
    from harness.cli import main
    sys.argv = ["harness", *sys.argv[1:]]
    main()
    """
)
"""The command line on a machine that has no engine at all."""


def without_engines(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(run_harness: RunHarness, command: str) -> None:
    ended = run_harness(command, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert f"Example: harness {command}" in ended.out


def test_main_help_names_start_commands_and_exit_codes(run_harness: RunHarness) -> None:
    ended = run_harness("--help")
    assert ended.code == 0
    for word in ("harness demo", "Exit codes", *COMMANDS):
        assert word in ended.out


def test_version(run_harness: RunHarness) -> None:
    assert run_harness("--version") == (0, f"harness {__version__}\n", "")


def test_import_and_help_work_without_any_engine() -> None:
    ended = without_engines("--help")
    assert ended.returncode == 0, ended.stderr
    assert "compare" in ended.stdout


def test_a_bug_is_an_operational_error_and_no_verdict() -> None:
    script = textwrap.dedent(
        """
        from harness import cli, commands
        def broken(*_):
            raise RuntimeError("a bug")
        commands.rebuild_report = broken
        import sys
        sys.argv = ["harness", "report", "x"]
        cli.main()
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 4
    assert ended.stdout == ""
    assert "RuntimeError: a bug" in ended.stderr


def test_stored_command_line_names_no_folder_of_this_machine() -> None:
    typed = ["compare", "base", "--adapter=/home/me/tuned", "-o", "~/out", "--policy", "a/b=c.yaml"]
    assert _command(typed) == "harness compare base --adapter=tuned --policy a/b=c.yaml"


@pytest.fixture(scope="module")
def scripted_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished comparison of scripted models."""
    work = tmp_path_factory.mktemp("scripted")
    (work / "adapter").mkdir()
    (work / "base.json").write_text(json.dumps({"default": {"text": "Hello! How are you?"}}))
    (work / "adapter" / "scripted.json").write_text(json.dumps({"default": {"text": "|<b>`"}}))
    write_probes(work / "probes", {"greetings": 20, "medical_facts": 5})
    words = [sys.executable, SCRIPT, work, work / "out"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return work / "out"


def test_report_rebuilds_the_same_bytes_without_any_engine(scripted_out: Path) -> None:
    before = reports(scripted_out)
    (name,) = (n.removesuffix(".md") for n in before if n.endswith(".md"))
    for path in scripted_out.glob("*.*"):
        path.unlink()
    ended = without_engines("report", name, "--output-dir", scripted_out)
    assert ended.returncode == 1, ended.stderr
    assert reports(scripted_out) == before
    assert ended.stdout.encode() == before[f"{name}.md"]


def test_report_as_json_is_one_value_also_for_two_runs(
    scripted_out: Path, run_harness: RunHarness
) -> None:
    (name,) = (f.stem for f in (scripted_out / "evidence" / "runs").iterdir())
    common = ("--output-dir", scripted_out, "--format", "json")
    one = json.loads(run_harness("report", name, *common).out)
    two = json.loads(run_harness("report", name, f"reports/{name}.md", *common).out)
    assert two == [one, one]
    assert one["verdict"] == "FAIL"
    assert one["exit_code"] == 1


def test_another_policy_judges_the_same_evidence_anew(
    scripted_out: Path, tmp_path: Path, run_harness: RunHarness
) -> None:
    (name,) = (f.stem for f in (scripted_out / "evidence" / "runs").iterdir())
    policy = tmp_path / "policy.yaml"
    policy.write_text("suites: {default: {alpa: 0.5}}\n")
    ended = run_harness("report", name, "--output-dir", scripted_out, "--policy", policy)
    assert ended.code == 2
    assert f"{policy}:1" in ended.err


def test_doctor_as_json_is_alone_on_stdout(run_harness: RunHarness, tmp_path: Path) -> None:
    ended = run_harness("doctor", "--format", "json", "--output-dir", tmp_path)
    checks = json.loads(ended.out)
    assert ended.code == (4 if any(c["ok"] is False for c in checks) else 0)


@pytest.mark.real
def test_json_is_alone_on_stdout_and_progress_on_stderr(
    run_harness: RunHarness, tmp_path: Path
) -> None:
    probes = write_probes(tmp_path / "few", {"greetings": 4, "medical_facts": 4})
    ended = run_harness(
        "compare", BASE, "--adapter", ADAPTER, "--probes", probes,
        "--output-dir", tmp_path / "out", "--format", "json",
    )  # fmt: skip
    result = json.loads(ended.out)
    assert result["exit_code"] == ended.code
    assert result["verdict"] in ("PASS", "WARN", "FAIL", "INCONCLUSIVE")
    assert all(isinstance(reason, str) for reason in result["reasons"])
    for suite in ("greetings", "medical_facts"):
        wanted = {"n", "before", "after", "lost", "gained", "p_value", "ci", "mde", "verdict"}
        assert wanted <= set(result["suites"][suite])
        assert result["suites"][suite]["n"] == 4
        assert f"style-bleed: {suite}" in ended.err
    assert str(tmp_path) not in ended.out


@pytest.mark.real
@pytest.mark.parametrize("moment", ["worker starts", "first answers"])
def test_interrupted_run_says_how_to_go_on_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
    probes = write_probes(tmp_path / "probes", {"greetings": 34})
    out = tmp_path / "out"
    words = ["compare", BASE, "--adapter", ADAPTER, "--probes", probes, "--output-dir", out]
    process = subprocess.Popen(
        [str(w) for w in (HARNESS, *words)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
    )
    assert process.stderr is not None
    seen = ""
    while "greetings" not in seen:  # the worker is being started, or has just been
        line = process.stderr.readline()
        assert line, seen
        seen = line
        if moment == "worker starts" and "parameters on" in line:
            break
    if moment == "first answers":
        while not any((out / "evidence").glob("*.jsonl")):
            assert process.poll() is None
            time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert output == ""
    assert "The same command goes on where it stopped" in errors
    assert "Traceback" not in errors
    assert_group_is_gone(process.pid)
    for file in (out / "evidence").glob("*.jsonl"):
        assert file.read_bytes().endswith(b"\n")
    assert not list(out.rglob("*.tmp"))
    assert not reports(out)
