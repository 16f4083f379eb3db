"""A repository's headers from the Hub: config, tokenizer, file list, tensor headers. No weights.

Every answer is read up to a limit that is known before, whatever the server says or sends.
"""

from __future__ import annotations

import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from harness.checkpoints.folder import has_tokenizer, read_config
from harness.checkpoints.ghost import TOKENIZER_FILES, TensorShape, write_ghost
from harness.checkpoints.safetensors import (
    ELSEWHERE,
    MAX_TENSORS,
    Header,
    header_length,
    parse_header,
    shown,
)
from harness.errors import ModelError
from harness.records import HeaderFacts, Known
from harness.snapshots import weight_format
from harness.sources import CONTACT_TIMEOUT_S, NotHere, hub_endpoint, refused

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

FIRST_READ = 128 << 10
"""Most headers are shorter than this, so that one request is enough."""
MAX_HEADERS = 64 << 20
"""Bytes of headers of all files of a repository; real ones have a few hundred kilobytes."""
MAX_SHARDS = 1000
SMALL_FILES: dict[str, int] = {
    "config.json": 16 << 20,
    "generation_config.json": 1 << 20,
    **dict.fromkeys(TOKENIZER_FILES, 16 << 20),
    "tokenizer.json": 100 << 20,
    "vocab.json": 100 << 20,
}
"""Files fetched whole, with the most bytes each may have."""


class _NotServed(Exception):
    """The Hub answered, but not with the bytes asked for."""

    def __init__(self, file: str, status: int) -> None:
        super().__init__(file, status)
        self.file, self.status = file, status


def fetch_headers(repo: str, commit: str, info: ModelInfo, folder: Path) -> HeaderFacts | NotHere:
    """Write the ghost of a repository to `folder`; say what is known of it.

    A damaged or hostile header makes a ghost without weights, and the note of "tensors" says why.

    Args:
        info: what `ask_hub` said of this commit, with the files' sizes.

    Raises:
        ModelError: config.json is damaged or hostile, or a small file is far too large.
        OperationalError: the disk cannot hold a ghost.
    """
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    if "config.json" not in sizes:
        return NotHere(
            reason=f"{repo} has no config.json, so nothing says what it is",
            fix="name the repository of a whole model, not of an adapter or a GGUF file",
        )
    try:
        with tempfile.TemporaryDirectory() as work:
            files = _small_files(repo, commit, sizes, Path(work))
            config = read_config(Path(work))
            tensors, refusal = _tensors_or_why(repo, commit, sizes)
            extra = {name: path for name, path in files.items() if name != "config.json"}
            write_ghost(folder, config, tensors, extra_files=extra)
    except _NotServed as error:
        if error.status in (401, 403):
            return refused(repo, hub_endpoint(), error.status)
        return NotHere(
            reason=f"the Hub answered {error.status} when asked for {shown(error.file)} of {repo}",
            fix="try again in a while",
        )
    except HTTPError as error:
        cause = shown(str(error), 100) or type(error).__name__
        return NotHere(
            reason=f"the Hub broke off while the headers of {repo} were fetched ({cause})",
            fix="check the network, then run the same command again",
        )
    return _facts(repo, commit, sizes, refusal, folder)


def _tensors_or_why(
    repo: str, commit: str, sizes: dict[str, int]
) -> tuple[dict[str, TensorShape], str]:
    """The tensors of all weight files; none, and the sentence why, where a header is refused."""
    try:
        return _tensors(_headers(repo, commit, sizes, _weight_files(sizes))), ""
    except ModelError as error:
        return {}, str(error)


def _facts(
    repo: str, commit: str, sizes: dict[str, int], refusal: str, folder: Path
) -> HeaderFacts:
    source = f"Hub {repo}@{commit[:12]}"
    read, missing = Known(standing="read", source=source), Known(standing="missing", source=source)
    weights = _weight_files(sizes)
    stored = [n for n in sizes if n.endswith((".safetensors", ".bin", ".pt", ".pth"))]
    return HeaderFacts(
        origin="hub",
        parts={
            "config": read,
            "tensors": (
                read if weights and not refusal else missing.model_copy(update={"note": refusal})
            ),
            "tokenizer": read if has_tokenizer(folder) else missing,
            "weights": read if stored else missing,
        },
        weight_format=weight_format(sizes),
        weight_bytes=sum(sizes[name] for name in weights or stored) or None,
        files=tuple(sorted(sizes)),
    )


def _small_files(repo: str, commit: str, sizes: dict[str, int], work: Path) -> dict[str, Path]:
    """The config and tokenizer files, fetched whole into `work`; name → path."""
    fetched = {}
    for name, most in SMALL_FILES.items():
        if name not in sizes:
            continue
        content = _read(repo, commit, name, 0, most + 1)
        if len(content) > most:
            raise ModelError(
                f"{name} of {repo} has more than {most >> 20} MB, far more than any model needs; "
                f"{ELSEWHERE}"
            )
        fetched[name] = work / name
        fetched[name].write_bytes(content)
    return fetched


def _weight_files(sizes: dict[str, int]) -> list[str]:
    """The safetensors files at the top: those that mlx-lm loads, else all."""
    top = sorted(n for n in sizes if "/" not in n and n.endswith(".safetensors"))
    return [name for name in top if fnmatch(name, "model*.safetensors")] or [
        name for name in top if not name.startswith("adapter")
    ]


def _headers(
    repo: str, commit: str, sizes: dict[str, int], weights: list[str]
) -> dict[str, Header]:
    if len(weights) > MAX_SHARDS:
        raise ModelError(f"{repo} has {len(weights)} weight files; {ELSEWHERE}")
    headers, total = {}, 0
    for name in weights:
        label = f"{name} of {repo}"
        start = _read(repo, commit, name, 0, min(FIRST_READ, sizes[name]))
        length = header_length(label, start[:64], sizes[name])
        total += length
        if total > MAX_HEADERS:
            raise ModelError(f"{repo} has more than {MAX_HEADERS >> 20} MB of headers; {ELSEWHERE}")
        raw = start[8 : 8 + length]
        if len(raw) < length:
            raw += _read(repo, commit, name, 8 + len(raw), length - len(raw))
        headers[name] = parse_header(label, raw, length, sizes[name])
    return headers


def _tensors(headers: dict[str, Header]) -> dict[str, TensorShape]:
    tensors: dict[str, TensorShape] = {}
    for file, header in headers.items():
        for name, info in header.tensors.items():
            if name in tensors:
                raise ModelError(f"{file} holds tensor {shown(name)}, as a file before it does")
            tensors[name] = TensorShape(info.dtype, info.shape)
    if len(tensors) > MAX_TENSORS:
        raise ModelError(f"{len(tensors)} tensors are more than this harness looks at")
    return {name: tensors[name] for name in sorted(tensors)}


def _read(repo: str, commit: str, name: str, first: int, count: int) -> bytes:
    """At most `count` bytes of a file, from byte `first` on; fewer only where it ends."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    if count <= 0:
        return b""
    url = hf_hub_url(repo, name, revision=commit, endpoint=hub_endpoint())
    headers = build_hf_headers() | {
        "Range": f"bytes={first}-{first + count - 1}",
        "Accept-Encoding": "identity",
    }
    with get_session().stream(
        "GET", url, headers=headers, timeout=CONTACT_TIMEOUT_S, follow_redirects=True
    ) as response:
        if response.status_code == 416:  # the file ends before `first`
            return b""
        if response.status_code not in (200, 206):
            raise _NotServed(name, response.status_code)
        # A server may ignore the range and send the file from its start.
        skip = first
        if response.status_code == 206:
            span = re.match(r"bytes (\d{1,20})-", response.headers.get("content-range", ""))
            if span is None or int(span[1]) != first:
                raise _NotServed(name, response.status_code)
            skip = 0
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) >= skip + count:
                break
    return bytes(content[skip : skip + count])
