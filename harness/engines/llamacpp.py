"""The llama.cpp engine, in process through llama-cpp-python; the only importer of llama_cpp.

It runs the file that LM Studio would run, with the chat template stored in that file.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.engines.protocol import PLAIN_PROMPT, Logits, strftime_now
from harness.errors import AdapterError, ModelError, ToolMissingError
from harness.records import Question, Response

try:
    import llama_cpp
    from llama_cpp._logger import set_verbose
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter
except ImportError as missing:  # pragma: no cover - depends on the machine
    raise ToolMissingError(
        f"llama.cpp is not installed here ({missing}); install it with: "
        "pip install llama-cpp-python"
    ) from missing

CONTEXT_TOKENS = 1024
"""Room for a probe and its reply; logits of every position are kept, so more would cost memory."""


class LlamaCppEngine:
    """A GGUF file loaded by llama.cpp. See `engines.protocol.Engine`."""

    name = "llamacpp"

    def __init__(
        self, model: Path, *, exact: bool = False, context_tokens: int = CONTEXT_TOKENS
    ) -> None:
        """Open the file; `exact` keeps the KV cache in float32 and the work on the CPU.

        Raises:
            ModelError: llama.cpp refuses it.
        """
        try:
            self._llm = llama_cpp.Llama(
                str(model),
                n_ctx=context_tokens,
                logits_all=True,
                verbose=False,
                n_gpu_layers=0 if exact else -1,
                type_k=llama_cpp.GGML_TYPE_F32 if exact else None,
                type_v=llama_cpp.GGML_TYPE_F32 if exact else None,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise ModelError(
                f"llama.cpp cannot open '{model.name}': {' '.join(str(error).split())[:200]}. "
                "Convert the model again."
            ) from error
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._llm.model)
        self._template = self._llm.metadata.get("tokenizer.chat_template")

    def ask(self, questions: Sequence[Question]) -> list[Response]:
        """See `Engine.ask`. One after the other; a shared beginning is evaluated once."""
        return [self._answer(q) for q in questions]

    def use_adapter(self, adapter_dir: Path | None) -> None:
        """A GGUF file has its adapter fused in.

        Raises:
            AdapterError: an adapter was asked for.
        """
        if adapter_dir is not None:
            raise AdapterError(
                "A GGUF file cannot take an MLX adapter; fuse it into the model and convert that."
            )

    def render(self, question: Question) -> str:
        """See `Engine.render`."""
        messages = [{"role": role, "content": content} for role, content in question.messages]
        if not self._template:
            return PLAIN_PROMPT.format(question=messages[-1]["content"])
        return str(self._formatter()(messages=messages).prompt)

    def tokenize(self, text: str) -> list[int]:
        """See `Engine.tokenize`."""
        return list(self._llm.tokenize(text.encode(), add_bos=False, special=True))

    def logits(self, token_ids: Sequence[int]) -> Logits:
        """See `Engine.logits`."""
        self._llm.reset()
        self._llm.eval(list(token_ids))
        return np.array(self._llm.scores[: len(token_ids)], dtype=np.float32)

    def facts(self) -> dict[str, Any]:
        """See `Engine.facts`."""
        return {
            "parameters": int(llama_cpp.llama_model_n_params(self._llm.model)),
            "weights_gb": round(llama_cpp.llama_model_size(self._llm.model) / 1e9, 3),
            "has_chat_template": bool(self._template),
        }

    def close(self) -> None:
        """See `Engine.close`."""
        self._llm.close()

    # -- internals ------------------------------------------------------------------------

    def _formatter(self) -> Jinja2ChatFormatter:
        formatter = Jinja2ChatFormatter(
            template=self._template or "",
            eos_token=self._piece(self._llm.token_eos()),
            bos_token=self._piece(self._llm.token_bos()),
        )
        formatter.strftime_now = strftime_now
        return formatter

    def _piece(self, token: int) -> str:
        if token < 0:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self._vocabulary, token).decode())

    def _answer(self, question: Question) -> Response:
        prompt = self._llm.tokenize(
            self.render(question).encode(), add_bos=not self._template, special=True
        )
        if len(prompt) + question.max_tokens >= CONTEXT_TOKENS:
            raise ModelError(
                f"Probe '{question.id}' needs {len(prompt)} tokens of prompt, too many for the "
                f"{CONTEXT_TOKENS} that the llama.cpp engine holds; shorten it."
            )
        self._rewind_to(prompt)
        scores = [self._score(len(prompt), o) for o in question.options]
        self._llm.n_tokens = len(prompt)
        tokens, finish = self._generate(len(prompt), question.max_tokens)
        return Response(
            probe_id=question.id,
            text=self._llm.detokenize(tokens).decode(errors="replace"),
            finish="stop" if finish else "length",
            prompt_tokens=len(prompt),
            completion_tokens=len(tokens),
            option_logprobs=tuple(s for s, _ in scores),
            option_tokens=tuple(n for _, n in scores),
        )

    def _rewind_to(self, prompt: list[int]) -> None:
        """Evaluate the prompt, keeping what the cache already holds of it."""
        have = self._llm.input_ids[: self._llm.n_tokens].tolist()
        same = 0
        while same < min(len(have), len(prompt) - 1) and have[same] == prompt[same]:
            same += 1
        self._llm.n_tokens = same
        self._llm.eval(prompt[same:])

    def _score(self, start: int, option: str) -> tuple[float, int]:
        """(sum log-probability in nats, tokens) of `option` after the first `start` tokens."""
        tokens = self.tokenize(option)
        self._llm.n_tokens = start
        if len(tokens) > 1:
            self._llm.eval(tokens[:-1])
        rows = self._llm.scores[start - 1 : start - 1 + len(tokens)].astype(np.float64)
        picked = rows[np.arange(len(tokens)), tokens] - _logsumexp(rows)
        return float(picked.sum()), len(tokens)

    def _generate(self, start: int, limit: int) -> tuple[list[int], bool]:
        """Greedy reply, and whether the model ended it itself."""
        out: list[int] = []
        token = int(self._llm.scores[start - 1].argmax())
        while True:
            if llama_cpp.llama_vocab_is_eog(self._vocabulary, token):
                return out, True
            out.append(token)
            if len(out) >= limit:
                return out, False
            self._llm.eval([token])
            token = int(self._llm.scores[self._llm.n_tokens - 1].argmax())


class LlamaCppVocabulary:
    """The tokenizer of a GGUF file, opened without its weights, which may be missing."""

    def __init__(self, file: Path) -> None:
        """Open the file.

        Raises:
            ModelError: llama.cpp refuses its vocabulary.
        """
        # Not `Llama`, which also makes a context for a model that is not there.
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        set_verbose(False)
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise ModelError(
                f"llama.cpp refuses the vocabulary of '{file.name}'; put back the tokenizer files "
                "of the original base"
            )
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)

    @property
    def size(self) -> int:
        """Number of tokens, padding included."""
        return int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))

    @property
    def bos(self) -> int | None:
        """Id of the token that begins a text, as llama.cpp sees it."""
        return _id(llama_cpp.llama_vocab_bos(self._vocabulary))

    @property
    def eos(self) -> int | None:
        """Id of the token that ends a text."""
        return _id(llama_cpp.llama_vocab_eos(self._vocabulary))

    def metadata(self, key: str) -> str | None:
        """What the file says under a key, as text; None where it says nothing."""
        need = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), None, 0)
        if need < 0:
            return None
        text = ctypes.create_string_buffer(need + 1)
        llama_cpp.llama_model_meta_val_str(self._model, key.encode(), text, need + 1)
        return text.value.decode(errors="replace")

    def ends(self, token: int) -> bool:
        """Whether llama.cpp stops at this token."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocabulary, token))

    def tokenize(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens recognised, none added."""
        raw = text.encode()
        room = len(raw) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, raw, len(raw), ids, room, False, True)
        if count < 0:
            raise ModelError(f"llama.cpp makes more than {room} tokens of {len(raw)} bytes")
        return list(ids[:count])

    def close(self) -> None:
        """Free the file."""
        llama_cpp.llama_model_free(self._model)


def open_vocabulary(file: Path) -> LlamaCppVocabulary:
    """The tokenizer of a GGUF file, which may hold nothing else. Raises ModelError."""
    return LlamaCppVocabulary(file)


def _id(token: int) -> int | None:
    return int(token) if token >= 0 else None


def _logsumexp(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    top = rows.max(axis=-1, keepdims=True)
    out: NDArray[np.float64] = np.log(np.exp(rows - top).sum(axis=-1)) + top[..., 0]
    return out
