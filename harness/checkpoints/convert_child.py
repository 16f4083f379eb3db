"""Child process: run the reference converter once per job, and end when the harness does.

Run by path with `python -P`. Arguments: the parent's process id, the converter's folder, and a
JSON file with the jobs, a list of {"arguments": the converter's own arguments, "vocabulary":
"real" or "none", "writes": whether it writes weights, "log": file for what it prints, "result":
file for how it ended}. A result is written when its job is over: {"code": exit status, "seconds":
wall time}.
"""

import importlib
import json
import os
import resource
import runpy
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

POLL_S = 0.5
LIGHT_BYTES = 6 << 30
"""Memory for jobs that only look at names, shapes and tokens: ten times what they take."""


def main() -> None:
    parent, folder, jobs_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    # Polling, since no system call for this exists on both Linux and macOS.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.path[:0] = [folder, os.path.join(folder, "gguf-py")]  # noqa: PTH118 (starts faster)
    script = os.path.join(folder, "convert_hf_to_gguf.py")  # noqa: PTH118
    with open(jobs_file, encoding="utf-8") as file:  # noqa: PTH123
        jobs = json.load(file)
    if sys.platform == "linux" and not any(job["writes"] for job in jobs):
        # A header can promise weights that would fill the memory of any machine.
        resource.setrlimit(resource.RLIMIT_DATA, (LIGHT_BYTES, LIGHT_BYTES))
    for job in jobs:
        _print_to(job["log"])
        started = time.monotonic()
        code = _run(script, job["arguments"], job["vocabulary"])
        result = {"code": code, "seconds": time.monotonic() - started}
        with open(job["result"] + ".new", "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(result, file)
        os.replace(job["result"] + ".new", job["result"])  # noqa: PTH105


def _print_to(log: str) -> None:
    """Send stdout and stderr to the log, whatever already holds those streams."""
    sys.stdout.flush()
    sys.stderr.flush()
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)


def _run(script: str, arguments: list[str], vocabulary: str) -> int:
    """Exit status of one run. Importing torch is what takes long, and happens once."""
    sys.argv = [script, *arguments]
    undo: Callable[[], None] | None = None
    try:
        if vocabulary == "none":
            undo = _leave_the_vocabulary_out()
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 (whatever it is, the log is what explains it)
        traceback.print_exc()
        return 1
    finally:
        if undo is not None:
            undo()
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _leave_the_vocabulary_out() -> Callable[[], None]:
    """Have every model class write a vocabulary of type "none"; returns what undoes it.

    All else, tensors and hyper-parameters, goes the converter's own way.
    """
    conversion: Any = importlib.import_module("conversion")
    look_up = conversion.get_model_class

    def without_vocabulary(name: str, mmproj: bool = False) -> Any:
        return _without_vocabulary(look_up(name, mmproj))

    def undo() -> None:
        conversion.get_model_class = look_up

    conversion.get_model_class = without_vocabulary
    return undo


def _without_vocabulary(model_class: Any) -> Any:
    """A subclass of a converter's model class that needs no tokenizer."""

    def set_vocab(self: Any) -> None:
        self._set_vocab_none()
        embedding = self.gguf_writer.tensors[0].get("token_embd.weight")
        # llama.cpp holds the embedding against this number, so it is the embedding that counts.
        rows = self.hparams["vocab_size"] if embedding is None else embedding.shape[0]
        self.gguf_writer.remove_key(f"{self.gguf_writer.arch}.vocab_size")
        self.gguf_writer.add_vocab_size(rows)

    def pieces(self: Any) -> tuple[list[bytes], list[float], list[int]]:
        # Gemma 3 counts them to cut the embedding; nothing is cut here.
        rows = self.hparams["vocab_size"]
        return [b""] * rows, [0.0] * rows, [1] * rows

    members = {
        "model_arch": model_class.model_arch,
        "set_vocab": set_vocab,
        "_create_vocab_sentencepiece": pieces,
    }
    return type(model_class.__name__, (model_class,), members)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main()
