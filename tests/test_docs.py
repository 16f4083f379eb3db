"""The documentation against the program: commands, exit codes, thresholds, figures, links."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from typer.main import get_command

from harness.cli import app
from harness.forgetting import mcnemar_p, minimum_detectable_drop, newcombe_ci
from harness.policy import load_policy
from harness.records import Status, SuiteComparison
from harness.verdict import EXIT_CODES, judge_suite

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("**/*.md"),
        *(ROOT / name / "README.md" for name in ("probes", "reports", "examples/adapters")),
    ]
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")

_EXAMPLE = re.compile(r"(?:^|`)(?:\.venv/bin/)?(harness (?!COMMAND)[^`\n]+)", re.MULTILINE)
_FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)


def _pages() -> list[tuple[str, str]]:
    return [(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in PAGES]


def _examples() -> list[tuple[str, str]]:
    texts = [*_pages(), ("harness/cli.py", (ROOT / "harness" / "cli.py").read_text())]
    found = {}
    for name, text in texts:
        text = text.replace("Example: harness", "`harness")
        for line in _EXAMPLE.findall(_FOLDED.sub("", text)):
            found[line.split("  ")[0].strip()] = name
    return list(found.items())


@pytest.mark.parametrize(("line", "page"), _examples())
def test_every_example_is_a_command_line(line: str, page: str) -> None:
    words = shlex.split(line)[1:]
    group = get_command(app)
    with group.make_context("harness", list(words)) as context:
        name, command, rest = group.resolve_command(context, list(words))
        assert command is not None, f"{page}: there is no command in '{line}'"
        if rest:  # else the text only names the command
            # Parses options, types and required arguments as a real call does, and stops there.
            command.make_context(name, rest, parent=context)
    for before, after in pairwise(words):
        if before == "--adapter" and after.startswith("examples/"):
            assert (ROOT / after / "adapter_config.json").is_file(), f"{page}: {line}"


def test_the_examples_are_found_and_the_check_can_fail() -> None:
    assert len(_examples()) >= 8
    group = get_command(app)
    for wrong in (["vet", "--no-such-option"], ["compare", "base"]):
        with group.make_context("harness", list(wrong)) as context:
            name, command, rest = group.resolve_command(context, list(wrong))
            with pytest.raises(Exception, match=r"(?i)no such option|missing|--adapter"):
                command.make_context(name, rest, parent=context)


def test_the_readme_starts_with_exactly_two_commands() -> None:
    start = README.split("## Start")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", start, re.DOTALL)
    assert blocks == ["sh scripts/demo.sh\n", "sh scripts/test.sh\n"]
    assert "check sh scripts/test.sh" in (ROOT / ".ci" / "run").read_text()


def test_the_table_of_commands_is_complete() -> None:
    table = README.split("## Commands")[1].split("\n## ")[0]
    names = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(names) == sorted(get_command(app).commands)


@pytest.mark.parametrize("text", [README, METHOD], ids=["README", "method"])
def test_documented_exit_codes_are_the_programs(text: str) -> None:
    documented = {
        Status(name): int(code)
        for code, names in re.findall(r"^\| (\d) \| ([A-Z_, ]+) \|", text, re.MULTILINE)
        for name in names.split(", ")
        if name.strip()
    }
    assert documented == EXIT_CODES


def test_documented_thresholds_are_the_shipped_ones() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", METHOD, re.MULTILINE)
    default = load_policy().suites["default"].model_dump()
    assert len(rows) >= 10
    assert {key: float(value) for key, value in rows} == {key: default[key] for key, _ in rows}


@pytest.mark.parametrize(
    ("lost", "gained", "p", "verdict"),
    [(40, 5, "3.9e-08", Status.FAIL), (20, 5, "0.002", Status.WARN)],
)
def test_the_worked_example_is_right(lost: int, gained: int, p: str, verdict: Status) -> None:
    n, known = 250, 100
    stats = SuiteComparison(
        suite="medical_facts",
        n=n,
        before=known / n,
        after=(known - lost + gained) / n,
        lost=lost,
        gained=gained,
        p_value=mcnemar_p(lost, gained),
        ci=newcombe_ci(known - lost, lost, gained, n - known - gained),
        mde=minimum_detectable_drop(n, lost + gained),
    )
    assert judge_suite(stats, load_policy()).verdict is verdict
    example = " ".join(METHOD.split("## An example")[1].split())
    drop = f"{100 * (lost - gained) / n:.0f} %"
    for said in (f"{lost} and gained {gained}", p, drop, f"**{verdict}**"):
        assert said in example
    assert f"{stats.p_value:.2g}" == p
    if verdict is Status.FAIL:
        assert f"interval {-100 * stats.ci[1]:.1f} to {-100 * stats.ci[0]:.1f}" in example


def test_the_small_p_values_of_the_method_are_right() -> None:
    assert f"5 losses and no gain, p = {mcnemar_p(5, 0):.3f}" in METHOD
    assert f"7 and none, p = {mcnemar_p(7, 0):.4f}" in METHOD


def test_counts_of_the_readme_are_those_of_the_files() -> None:
    for suite, words in (("greetings", "greetings"), ("medical_facts", "medical facts")):
        lines = (ROOT / "probes" / f"{suite}.jsonl").read_text(encoding="utf-8").splitlines()
        assert f"{len(lines)} {words}" in README


@pytest.mark.parametrize(("page", "text"), _pages())
def test_links_lead_somewhere_and_no_local_path_is_named(page: str, text: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
    for path in re.findall(r"`((?:harness|probes|tests|scripts|docs|examples)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{page} names {path}"
    local = re.search(r"(?<![\w.~])/(?:home|Users|root|tmp|work|private|mnt)\b|\b[A-Z]:\\", text)
    assert local is None, f"{page} names a local path: {text[local.start() :][:40]}"


def _checkout(folder: Path) -> Path:
    """The scripts beside a pyproject.toml, without an environment."""
    (folder / "scripts").mkdir(parents=True)
    for script in (ROOT / "scripts").glob("*.sh"):
        (folder / "scripts" / script.name).write_bytes(script.read_bytes())
    (folder / "pyproject.toml").write_text("[project]\n")
    return folder


def _sh(script: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(script), *options],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **environment},
        timeout=60,
    )


def _program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["demo.sh", "test.sh"])
def test_an_old_python_is_refused_in_words(tmp_path: Path, name: str) -> None:
    folder = _checkout(tmp_path / "a folder")
    old = _program(tmp_path / "python3.9", "exit 1")
    ended = _sh(folder / "scripts" / name, PYTHON=str(old))
    assert ended.returncode == 4
    assert "not a Python 3.11 or newer" in ended.stderr
    assert not (folder / ".venv").exists()


def test_the_project_is_installed_once_and_again_when_it_changed(tmp_path: Path) -> None:
    folder = _checkout(tmp_path / "a folder")
    log = tmp_path / "calls"
    _program(folder / ".venv/bin/python", f'printf "%s\\n" "$*" >>"{log}"')
    _program(folder / ".venv/bin/harness", 'echo "harness $*"')
    demo, test = folder / "scripts" / "demo.sh", folder / "scripts" / "test.sh"

    def installs() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.split()[-1] for line in lines if "pip install" in line]

    first, again = _sh(demo, "--limit", "3"), _sh(demo, "--limit", "3")
    assert first.returncode == again.returncode == 0
    assert first.stdout == again.stdout == "harness demo --limit 3\n"
    assert again.stderr == ""
    assert installs() == ["."]
    assert _sh(test).returncode == _sh(test).returncode == _sh(demo).returncode == 0
    assert installs() == [".[dev]"]
    (folder / "pyproject.toml").write_text("[project]\nname = 'changed'\n")
    assert _sh(demo).returncode == 0
    assert installs() == ["."]


def test_a_failed_installation_is_not_taken_for_a_finished_one(tmp_path: Path) -> None:
    folder = _checkout(tmp_path)
    _program(folder / ".venv/bin/python", 'case "$*" in *install*) exit 1;; esac')
    for _ in range(2):
        ended = _sh(folder / "scripts" / "demo.sh")
        assert ended.returncode == 4
        assert "the installation stopped" in ended.stderr
