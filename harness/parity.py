"""How far two runtimes of one model are apart on the same tokens. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""Logits of one text, [tokens, vocabulary]."""


class Parity(NamedTuple):
    """Two runtimes of one model on the same tokens."""

    tokens: int
    mean_kl_nats: float
    max_kl_nats: float
    top1_agreement: float
    max_logit_difference: float


def parity(original: Sequence[Rows], other: Sequence[Rows]) -> Parity:
    """KL(original‖other) per token in nats, and agreement of the likeliest next token.

    Both hold the logits of the same texts, [tokens, vocabulary] each. NaN where a logit is not
    finite.
    """
    kls, agree, gaps = [], [], []
    for a, b in zip(original, other, strict=True):
        # A padded embedding may be cut by one side: compare what both can say.
        width = min(a.shape[1], b.shape[1])
        p, q = _log_softmax(a[:, :width]), _log_softmax(b[:, :width])
        kls.append(np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q)).sum(axis=-1))
        agree.append(a[:, :width].argmax(-1) == b[:, :width].argmax(-1))
        gaps.append(float(np.abs(a[:, :width] - b[:, :width]).max()))
    kl, same = np.concatenate(kls), np.concatenate(agree)
    return Parity(
        tokens=int(kl.size),
        mean_kl_nats=float(kl.mean()),
        max_kl_nats=float(kl.max()),
        top1_agreement=float(same.mean()),
        max_logit_difference=float(np.max(gaps)),
    )


def _log_softmax(rows: Rows) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    out: NDArray[np.float64] = wide - top - np.log(np.exp(wide - top).sum(axis=-1, keepdims=True))
    return out
