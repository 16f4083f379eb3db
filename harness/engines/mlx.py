"""The MLX engine; with `mlx_training` beside it, the only importer of mlx_lm.

One set of weights serves the base and every adapter. A batch shares work wherever the
mathematics allows: the tokens that all prompts have in common (system prompt, template head)
are processed once per adapter, each prompt once per batch, and its options and its generated
reply both continue from there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import Any, cast

import numpy as np

from harness.engines.protocol import PLAIN_PROMPT, PROMPT_DATE, Logits
from harness.errors import AdapterError, ModelError, ToolMissingError
from harness.records import Finish, Question, Response

try:
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_flatten, tree_unflatten
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.tuner.utils import load_adapters
    from mlx_lm.utils import get_total_parameters, load_model, load_tokenizer
    from transformers.utils import chat_template_utils
except ImportError as missing:  # pragma: no cover - depends on the machine
    raise ToolMissingError(
        f"MLX is not installed here ({missing}); install it with: pip install mlx-lm 'mlx[cpu]'"
    ) from missing


CACHE_STEP = 32
"""Tokens by which a batch's cache grows: probes are short, and every branch copies all of it."""

BROKEN_LOGPROB = -10_000.0
"""Per token, for an option whose log-probability is not a number (diverged weights): then no
option is preferred, which is what such a model knows."""


def compute_dtype() -> mx.Dtype | None:
    """float32 on a CPU (bfloat16 is several times slower there), as stored on Metal."""
    return None if mx.metal.is_available() else mx.float32


class _PromptClock(datetime):
    """The clock that chat templates read; transformers offers no other way to set it."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003
        return PROMPT_DATE


chat_template_utils.datetime = _PromptClock


class MlxEngine:
    """A Hugging Face folder loaded by mlx-lm. See `engines.protocol.Engine`."""

    name = "mlx"

    def __init__(self, model: Path) -> None:
        """Load strictly: a missing, unexpected or misshapen tensor is an error.

        Raises:
            ModelError: unsupported architecture, broken weights or tokenizer.
        """
        try:
            self.model, config = load_model(model, lazy=False, strict=True)
            self.tokenizer = load_tokenizer(model, eos_token_ids=config.get("eos_token_id"))
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ModelError(
                f"MLX cannot load '{model.name}': {reason}. "
                "Choose a base whose architecture mlx-lm supports, or download it again."
            ) from error
        _set_dtype(self.model)
        self.model.eval()
        mx.eval(self.model.parameters())
        # What an adapter may replace: LoRA swaps modules, a "full" adapter swaps parameters.
        leaves = tree_flatten(self.model.leaf_modules(), is_leaf=nn.Module.is_module)
        self._base_modules = tree_unflatten(leaves)
        self._base_parameters = tree_flatten(self.model.parameters())
        self._prefix: tuple[list[int], list[Any]] | None = None

    # -- asking ---------------------------------------------------------------------------

    def ask(self, questions: Sequence[Question]) -> list[Response]:
        """See `Engine.ask`."""
        prompts = [self._prompt_ids(q) for q in questions]
        cache, start = self._shared_prefix(prompts)
        logits, cache = self._prefill([p[start:] for p in prompts], cache)
        scores = self._score(questions, logits, cache)
        replies = self._generate(logits, cache, [q.max_tokens for q in questions])
        return [
            Response(
                probe_id=q.id,
                text=self.tokenizer.decode(tokens, skip_special_tokens=True),
                finish=finish,
                prompt_tokens=len(prompt),
                completion_tokens=len(tokens),
                option_logprobs=tuple(s for s, _ in score),
                option_tokens=tuple(n for _, n in score),
            )
            for q, prompt, (tokens, finish), score in zip(
                questions, prompts, replies, scores, strict=True
            )
        ]

    def render(self, question: Question) -> str:
        """See `Engine.render`."""
        messages = [{"role": role, "content": content} for role, content in question.messages]
        if not self.tokenizer.has_chat_template:
            return PLAIN_PROMPT.format(question=messages[-1]["content"])
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return text

    def tokenize(self, text: str) -> list[int]:
        """See `Engine.tokenize`."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """See `Engine.logits`."""
        out = self.model(mx.array([list(token_ids)]))[0].astype(mx.float32)
        return np.array(out)

    def facts(self) -> dict[str, Any]:
        """See `Engine.facts`."""
        parameters = tree_flatten(self.model.parameters())
        dtypes = {str(v.dtype).removeprefix("mlx.core.") for _, v in parameters}
        return {
            "parameters": get_total_parameters(self.model),
            "weights_gb": round(sum(v.nbytes for _, v in parameters) / 1e9, 3),
            "dtype": "+".join(sorted(dtypes)),
            "has_chat_template": bool(self.tokenizer.has_chat_template),
        }

    def close(self) -> None:
        """See `Engine.close`."""
        self._prefix = None
        mx.clear_cache()

    # -- adapters -------------------------------------------------------------------------

    def use_adapter(self, adapter_dir: Path | None) -> None:
        """See `Engine.use_adapter`."""
        self._prefix = None
        self._restore_base()
        if adapter_dir is None:
            return
        try:
            load_adapters(self.model, str(adapter_dir))
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, AttributeError) as error:
            self._restore_base()
            reason = " ".join(str(error).split())[:300]
            raise AdapterError(
                f"The adapter '{adapter_dir.name}' does not fit this model: {reason}. "
                "Use an adapter that was trained on this very base."
            ) from error
        _set_dtype(self.model)
        self.model.eval()
        mx.eval(self.model.parameters())

    def _restore_base(self) -> None:
        self.model.update_modules(self._base_modules)
        self.model.load_weights(self._base_parameters, strict=True)

    # -- internals ------------------------------------------------------------------------

    def _prompt_ids(self, question: Question) -> list[int]:
        text = self.render(question)
        ids = self.tokenize(text)
        bos = self.tokenizer.bos_token_id
        if not self.tokenizer.has_chat_template and bos is not None and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def _shared_prefix(self, prompts: list[list[int]]) -> tuple[list[Any], int]:
        """Batched cache holding the first tokens that all prompts share, and how many.

        The prefix is kept for the following batches; it must not depend on who is in this
        batch, or a resumed run would round differently: it is the head of the chat template.
        """
        if self._prefix is None:
            self._prefix = self._template_head()
        head, cache = self._prefix
        usable = head and all(p[: len(head)] == head and len(p) > len(head) for p in prompts)
        if not usable:
            return _merged([make_prompt_cache(self.model) for _ in prompts]), 0
        return _merged([cache] * len(prompts)), len(head)

    def _template_head(self) -> tuple[list[int], list[Any]]:
        a, b = (
            self._prompt_ids(Question(id="head", messages=(("user", text),), max_tokens=1))
            for text in ("apple", "Why?")
        )
        same = 0
        while same < min(len(a), len(b)) and a[same] == b[same]:
            same += 1
        head, cache = a[:same], make_prompt_cache(self.model)
        if head:
            self.model(mx.array([head]), cache=cache)
            mx.eval([c.state for c in cache])
        return head, cache

    def _prefill(self, prompts: list[list[int]], cache: list[Any]) -> tuple[mx.array, list[Any]]:
        """Logits after each prompt's last token [batch, vocabulary], and the filled cache."""
        logits = self._forward(prompts, cache)
        last = mx.array([len(p) - 1 for p in prompts])
        logits = mx.take_along_axis(logits, last[:, None, None], axis=1)[:, 0]
        mx.eval(logits, [c.state for c in cache])
        return logits, cache

    def _forward(self, rows: list[list[int]], cache: list[Any]) -> mx.array:
        """Logits [batch, longest, vocabulary] of right-padded rows; the cache ends aligned."""
        longest = max(len(r) for r in rows)
        padding = [longest - len(r) for r in rows]
        if any(padding):
            for c in cache:
                c.prepare(lengths=[len(r) for r in rows], right_padding=padding)
        logits = self.model(
            mx.array([r + [0] * p for r, p in zip(rows, padding, strict=True)]), cache=cache
        )
        if any(padding):
            for c in cache:
                c.finalize()
        return cast(mx.array, logits.astype(mx.float32))

    def _score(
        self, questions: Sequence[Question], logits: mx.array, cache: list[Any]
    ) -> list[list[tuple[float, int]]]:
        """(sum log-probability in nats, tokens) of every option of every question."""
        options = [self.tokenize(o) for q in questions for o in q.options]
        owner = [i for i, q in enumerate(questions) for _ in q.options]
        scores: list[list[tuple[float, int]]] = [[] for _ in questions]
        if not options:
            return scores
        first = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        rows, heads = mx.array(owner), mx.array([o[0] for o in options])
        totals = cast(list[float], first[rows, heads].tolist())
        # Options of one length go together: without padding most of the work is saved.
        for length in sorted({len(o) for o in options} - {1}):
            at = [i for i, o in enumerate(options) if len(o) == length]
            branch = [_rows_of(c, mx.array([owner[i] for i in at])) for c in cache]
            rest = self._continue([options[i] for i in at], branch)
            for i, value in zip(at, rest, strict=True):
                totals[i] += value
        for i, option, value in zip(owner, options, totals, strict=True):
            scores[i].append(
                (value if isfinite(value) else BROKEN_LOGPROB * len(option), len(option))
            )
        return scores

    def _continue(self, options: list[list[int]], cache: list[Any]) -> list[float]:
        """Sum log-probability of each option's tokens after its first, all of one length."""
        tokens = mx.array(options)
        logits = self.model(tokens[:, :-1], cache=cache).astype(mx.float32)
        picked = mx.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
        total = (picked - mx.logsumexp(logits, axis=-1)).sum(axis=-1)
        return cast(list[float], total.tolist())

    def _generate(
        self, logits: mx.array, cache: list[Any], limits: list[int]
    ) -> list[tuple[list[int], Finish]]:
        """Greedy continuation of every row: (tokens without the end token, why it ended)."""
        stops = set(self.tokenizer.eos_token_ids)
        out: list[list[int]] = [[] for _ in limits]
        finish: list[Finish] = ["length"] * len(limits)
        rows = list(range(len(limits)))
        tokens = mx.argmax(logits, axis=-1)
        while rows:
            keep = []
            for at, (row, token) in enumerate(
                zip(rows, cast(list[int], tokens.tolist()), strict=True)
            ):
                if token in stops:
                    finish[row] = "stop"
                    continue
                out[row].append(token)
                if len(out[row]) < limits[row]:
                    keep.append(at)
            if len(keep) < len(rows):
                rows = [rows[at] for at in keep]
                if not rows:
                    break
                for c in cache:
                    c.filter(mx.array(keep))
                tokens = tokens[mx.array(keep)]
            tokens = mx.argmax(self.model(tokens[:, None], cache=cache)[:, -1], axis=-1)
            mx.eval(tokens)
        mx.clear_cache()
        return list(zip(out, finish, strict=True))


def _merged(caches: list[list[Any]]) -> list[Any]:
    """One batched cache per layer from one single cache per row and layer."""
    for c in caches[0]:
        if not hasattr(c, "merge"):
            raise ModelError(
                f"mlx-lm cannot batch this architecture yet (its {type(c).__name__} has no "
                "merge); upgrade mlx-lm, or choose another base."
            )
    merged = [caches[0][i].merge([c[i] for c in caches]) for i in range(len(caches[0]))]
    for cache in merged:
        if hasattr(cache, "step"):
            cache.step = CACHE_STEP
    return merged


def _rows_of(cache: Any, rows: mx.array) -> Any:
    """A batched cache holding the given rows, which may repeat; the original stays as it is."""
    branch = copy.copy(cache)
    if hasattr(branch, "caches"):
        branch.caches = [copy.copy(c) for c in branch.caches]
    branch.filter(rows)
    return branch


def _set_dtype(model: Any) -> None:
    dtype = compute_dtype()
    if dtype is not None:
        model.set_dtype(dtype)
