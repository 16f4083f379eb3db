"""Fetching one pinned distribution with the user's own pip and its configuration."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

from harness.checkpoints.hashing import sha256_of
from harness.errors import FetchError, ToolMissingError

TIMEOUT_S = 900
"""A 70 MB source distribution over a slow line, with its build requirements."""


def fetch_distribution(
    requirement: str, kind: Literal["wheel", "sdist"], dest: Path, sha256: str | None
) -> Path:
    """Download exactly one distribution without its dependencies and return its path.

    `dest` must be an empty folder. No index is named, so pip's configuration and `PIP_*`
    variables decide where it comes from. Raises FetchError when pip fails or the SHA-256
    differs (None skips the check), ToolMissingError where this Python has no pip.
    """
    options = _format_options(requirement, kind)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *options]
    shown = shlex.join(["python", *command[1:], requirement])
    try:
        done = subprocess.run(
            [*command, "--no-input", "--progress-bar", "off", "-d", str(dest), requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"{requirement} could not be downloaded within {TIMEOUT_S} s; {_advice(shown)}"
        ) from error
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            raise ToolMissingError(
                f"{requirement} cannot be downloaded because this Python has no pip; "
                "run `python -m ensurepip` in the environment first"
            )
        reason = _last_error(done.stderr)
        raise FetchError(f"{requirement} could not be downloaded ({reason}); {_advice(shown)}")
    files = [path for path in dest.iterdir() if path.is_file()]
    if len(files) != 1:
        raise FetchError(
            f"pip left {len(files)} files for {requirement} where one was due; {_advice(shown)}"
        )
    _check_hash(files[0], sha256, requirement)
    return files[0]


def _format_options(requirement: str, kind: Literal["wheel", "sdist"]) -> list[str]:
    if kind == "wheel":
        return ["--only-binary=:all:"]
    return ["--no-binary", requirement.split("==", 1)[0]]


def _advice(command: str) -> str:
    return (
        f"check the network with `{command}`, or put the file into a folder and set "
        "PIP_FIND_LINKS to that folder"
    )


def _last_error(stderr: str) -> str:
    """The most telling line of pip's stderr, shortened to one clause."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    chosen = (errors or lines or ["pip gave no reason"])[0]
    return chosen if len(chosen) <= 200 else chosen[:199] + "…"


def _check_hash(path: Path, sha256: str | None, requirement: str) -> None:
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256:
        raise FetchError(
            f"{path.name} for {requirement} has SHA-256 {found}, but {sha256} was expected; "
            "it is not the published file, so clear pip's cache (`python -m pip cache purge`) "
            "and any PIP_FIND_LINKS folder and try again"
        )
