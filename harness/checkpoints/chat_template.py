"""A chat template is a program by a stranger: find it, and try it where it can do no harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.checkpoints.jsonfile import read_json_object
from harness.checkpoints.safetensors import shown
from harness.errors import ModelError

MEMORY_BYTES = 1 << 30
CPU_S = 5
WALL_S = 10
MAX_CHARACTERS = 1_000_000
"""Of the template, and of what it renders."""

_CHILD = Path(__file__).with_name("chat_render.py")
_QUESTION = "Which city is the capital of Japan?"
_FIX = "replace it with the chat template of the base model"
_COMPLAINTS = {
    "memory": "needs more than 1 GB of memory for a one-line conversation",
    "recursion": "recurses without end",
    "length": "turns a one-line conversation into more than a million characters",
    "attack": "tries to reach outside its sandbox",
    "syntax": "is not valid Jinja",
    "refused": "refuses a plain one-turn conversation",
    "broken": "fails on a plain one-turn conversation",
}


def find_template(folder: Path) -> str | None:
    """The chat template that transformers would use, or None where the model has none.

    chat_template.jinja wins over tokenizer_config.json; of several named templates it is the
    one called "default". Raises ModelError for unreadable files or an entry of another type.
    """
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            if file.stat().st_size > 4 * MAX_CHARACTERS:
                raise ModelError(f"{file} is longer than a million characters; {_FIX}")
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{file} cannot be read as UTF-8 text; {_FIX}") from error
    config_file = folder / "tokenizer_config.json"
    if not config_file.exists():
        return None
    template = read_json_object(config_file, ModelError, _FIX).get("chat_template")
    if isinstance(template, list):
        named = {
            item.get("name"): item.get("template") for item in template if isinstance(item, dict)
        }
        template = named.get("default")
        if template is None:
            return None
    if template is None or isinstance(template, str):
        return template or None
    raise ModelError(
        f"{config_file}: chat_template must be text, not a {type(template).__name__}; {_FIX}"
    )


def check_chat_template(folder: Path) -> str | None:
    """Render the template on a one-turn conversation in a limited child process.

    Returns the rendered prompt, or None for a model without a template (a base model; its
    prompts are then plain text). The child has 5 s of CPU, 10 s of wall time and, except on
    macOS, 1 GB of address space. Raises ModelError when the template loops, eats memory,
    attacks, is broken, or leaves the user's message out. It vouches for this one conversation:
    a template that waits for certain words to misbehave is not caught.
    """
    template = find_template(folder)
    if template is None:
        return None
    subject = f"the chat template of {folder}"
    if len(template) > MAX_CHARACTERS:
        raise ModelError(f"{subject} is longer than a million characters; {_FIX}")
    answer = _render_in_child(template, _special_tokens(folder), subject)
    if "error" in answer:
        detail = f" ({shown(answer['message'], 160)})" if answer["message"] else ""
        raise ModelError(f"{subject} {_COMPLAINTS[answer['error']]}{detail}; {_FIX}")
    text = answer["text"]
    if _QUESTION not in text:
        raise ModelError(f"{subject} leaves out what the user says; {_FIX}")
    return text


def _render_in_child(template: str, tokens: dict[str, str], subject: str) -> dict[str, str]:
    request = {
        "template": template,
        "messages": [{"role": "user", "content": _QUESTION}],
        "variables": {
            **tokens, "tools": None, "documents": None, "add_generation_prompt": True
        },
        "limits": {
            "memory_bytes": MEMORY_BYTES, "cpu_s": CPU_S, "characters": MAX_CHARACTERS
        },
    }  # fmt: skip
    # A preloaded BLAS would eat up the memory limit before the template is read.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    try:
        # Isolated mode: neither this folder nor the current one can shadow a module.
        done = subprocess.run(
            [sys.executable, "-I", str(_CHILD)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{subject} was still rendering after {WALL_S} s; {_FIX}") from error
    if done.returncode == -signal.SIGXCPU:
        raise ModelError(f"{subject} loops: it used more than {CPU_S} s of CPU time; {_FIX}")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelError(f"{subject} crashed the renderer ({shown(last)}); {_FIX}")
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def _special_tokens(folder: Path) -> dict[str, str]:
    """bos_token, eos_token, …: what templates may name besides the messages."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = folder / name
        if not file.exists():
            continue
        for key, value in read_json_object(file, ModelError, _FIX).items():
            text = _token_text(value)
            if key.endswith("_token") and text is not None:
                found[key] = text
    return found


def _token_text(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
