"""Child process: run the reference converter, and end when the harness does.

Run by path with `python -P`. Arguments: the parent's process id, the converter's folder, then
the converter's own arguments.
"""

import os
import runpy
import sys
import threading
import time

POLL_S = 0.5


def main() -> None:
    parent, folder = int(sys.argv[1]), sys.argv[2]
    # Polling, since no system call for this exists on both Linux and macOS.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.path[:0] = [folder, os.path.join(folder, "gguf-py")]  # noqa: PTH118 (starts faster)
    script = os.path.join(folder, "convert_hf_to_gguf.py")  # noqa: PTH118
    sys.argv = [script, *sys.argv[3:]]
    runpy.run_path(script, run_name="__main__")


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main()
