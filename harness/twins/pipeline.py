"""The whole pipeline on a miniature: load, train, fuse, convert, run, and the logits compared.

Three runtimes compute the same texts (transformers, MLX, llama.cpp), so that a disagreement
also says who is alone with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from harness.checkpoints.converter import ConversionJob, convert_all, read_gguf_metadata
from harness.engines.protocol import Logits
from harness.errors import ConversionError, ModelError
from harness.parity import parity
from harness.records import Finding, Scalar
from harness.registry import TrainingSettings
from harness.twins.build import (
    TEXT_TOKENS,
    Reference,
    random_texts,
    read_reference,
    reference_process,
)
from harness.twins.shrink import Miniature, text_part

LONG_TEXT_TOKENS = 72
"""Beyond the context where longrope changes its factors."""

APART_NATS = 1e-3
"""Mean KL that no rounding explains: measured are 1e-11, and 2e-7 for table look-ups."""

MULTIPLIERS: Mapping[str, str] = MappingProxyType(
    {
        "embedding_multiplier": "embedding_scale",
        "attention_multiplier": "attention.scale",
        "residual_multiplier": "residual_scale",
        "logits_scaling": "logit_scale",
    }
)
"""Key of config.json → key of the GGUF file, after the architecture's name."""

BASE, FUSED, QLORA, REQUANTISED = "base", "fused", "qlora-dequantised", "qlora-requantised"

REFUSED = "requantised_refused_tensor"
"""Number: the tensor for which the converter refuses what was fused without --dequantize."""

Tamper = Callable[[str, Path], None]
"""Given a folder's name (one of the four above) and the folder, before it is converted."""

_NEWER = "try newer releases of mlx-lm and llama-cpp-python, or choose another base"


class Examined(NamedTuple):
    """What the pipeline made of a miniature."""

    numbers: dict[str, Scalar]
    findings: tuple[Finding, ...]
    folder: Path | None
    """The miniature's checkpoint in the published layout, where transformers could write it."""


class Settings(NamedTuple):
    """How a miniature is examined."""

    cache_dir: Path
    training: TrainingSettings
    seed: int = 0
    quantised: bool = True
    """Also from a 4-bit base."""
    tamper: Tamper | None = None
    """Breaks a folder on purpose, for the tests."""


def examine(miniature: Miniature, work: Path, settings: Settings) -> Examined:
    """Run everything; what fails ends its path and is told, the others go on.

    Raises ToolMissingError and FetchError where a runtime is missing.
    """
    return _Examination(miniature, work, settings).run()


class _Examination:
    def __init__(self, miniature: Miniature, work: Path, settings: Settings) -> None:
        self.miniature = miniature
        self.work = work
        self.settings = settings
        lengths: tuple[int, ...] = TEXT_TOKENS
        if miniature.switch:
            lengths = (*lengths, miniature.switch + LONG_TEXT_TOKENS)
        self.texts = random_texts(settings.seed, lengths)
        self.numbers: dict[str, Scalar] = {
            "architecture": miniature.model_type,
            "layer_kinds": ", ".join(miniature.kinds),
            "texts": len(self.texts),
            "tokens": sum(lengths),
        }
        if miniature.original_window:
            self.numbers["window_tokens"] = miniature.original_window
        if miniature.original_switch:
            self.numbers["switch_tokens"] = miniature.original_switch
        self.findings: list[Finding] = []

    def run(self) -> Examined:
        reference = self._build()
        folder = self.work / BASE
        try:
            mlx = self._mlx(reference) if (folder / "config.json").exists() else {}
        except ModelError as error:
            self._fail(str(error), _NEWER)
            mlx = {}
        if (folder / "config.json").exists():
            self._gguf(reference, mlx)
        written = folder if reference.logits is not None else None
        return Examined(self.numbers, tuple(self.findings), written)

    # -- the checkpoint -------------------------------------------------------------------

    def _build(self) -> Reference:
        """The checkpoint by transformers, or by MLX where transformers cannot."""
        base, config = self.work / BASE, self.miniature.config
        with reference_process(config, self.texts, self.work, base, self.settings.seed) as child:
            # Imported while the child works: each takes seconds.
            from harness.engines import mlx_twin

            reference = read_reference(child, self.work, base)
        if reference.logits is not None:
            self._finite("transformers", reference.logits)
            self.numbers["twin_parameters"] = reference.parameters
            return reference
        kind = "has no such architecture" if reference.unknown else "cannot build a miniature"
        self.findings.append(
            Finding(
                severity="warn",
                message=f"transformers {kind} ({reference.problem}), so MLX is compared with "
                "llama.cpp alone",
            )
        )
        try:
            self.numbers["twin_parameters"] = mlx_twin.write_twin(config, base, self.settings.seed)
        except ModelError as error:
            self._fail(str(error), _NEWER)
        return reference

    # -- MLX ------------------------------------------------------------------------------

    def _mlx(self, reference: Reference) -> dict[str, list[Logits]]:
        """MLX's logits of every folder that is converted; the folders are written on the way."""
        from harness.engines import mlx_twin

        base = self.work / BASE
        logits = {BASE: mlx_twin.twin_logits(base, self.texts)}
        self._finite("MLX", logits[BASE])
        spread = float(np.concatenate(logits[BASE]).std())
        if np.isfinite(spread):
            self.numbers["logit_spread_nats"] = _short(spread)
        if reference.logits is not None:
            self._compare("mlx_vs_reference", reference.logits, logits[BASE])
        adapter = self._adapter(BASE)
        self._effect("adapter_effect_nats", logits[BASE], adapter)
        mlx_twin.fuse(base, self._adapter_dir(BASE), self.work / FUSED, dequantise=False)
        logits[FUSED] = mlx_twin.twin_logits(self.work / FUSED, self.texts)
        self._compare("fused_vs_adapter", adapter, logits[FUSED])
        logits["adapter"] = adapter
        if self.settings.quantised:
            logits |= self._mlx_quantised(logits[BASE])
        return logits

    def _mlx_quantised(self, base_logits: list[Logits]) -> dict[str, list[Logits]]:
        from harness.engines import mlx_twin

        quantised = self.work / "quantised"
        try:
            mlx_twin.quantise(self.work / BASE, quantised)
            base = mlx_twin.twin_logits(quantised, self.texts)
            self._effect("quantisation_kl_nats", base_logits, base)
            adapter = self._adapter("quantised")
            self._effect("qlora_adapter_effect_nats", base, adapter)
            logits = {"qlora-adapter": adapter}
            for name in (QLORA, REQUANTISED):
                folder = self.work / name
                adapter_dir = self._adapter_dir("quantised")
                mlx_twin.fuse(quantised, adapter_dir, folder, dequantise=name == QLORA)
                logits[name] = mlx_twin.twin_logits(folder, self.texts)
        except ModelError as error:
            self._fail(f"from a 4-bit base: {error}", "train the adapter on the bf16 model")
            return {}
        self._compare("qlora_fused_vs_adapter", adapter, logits[QLORA])
        self._requantised(base, adapter, logits[REQUANTISED])
        return logits

    def _requantised(self, base: list[Logits], adapter: list[Logits], fused: list[Logits]) -> None:
        """How much of an adapter is left when it is fused into a model that stays at 4 bits."""
        lost = parity(adapter, fused).mean_kl_nats
        whole = parity(adapter, base).mean_kl_nats
        if np.isfinite(lost) and np.isfinite(whole) and whole > 0:
            self.numbers |= {
                "requantised_kl_nats": _short(lost),
                "requantised_adapter_kept": _short(min(1.0, max(0.0, 1.0 - lost / whole))),
            }

    def _adapter(self, name: str) -> list[Logits]:
        from harness.engines import mlx_twin

        trained = mlx_twin.train_adapter(
            self.work / name, self._adapter_dir(name), self.texts, self.settings.training,
            self.settings.seed,
        )  # fmt: skip
        self._finite("MLX with an adapter", trained.logits)
        self.numbers["trainable_parameters"] = trained.trainable_parameters
        return trained.logits

    def _adapter_dir(self, name: str) -> Path:
        return self.work / f"adapter-{name}"

    # -- llama.cpp ------------------------------------------------------------------------

    def _gguf(self, reference: Reference, mlx: dict[str, list[Logits]]) -> None:
        """Convert what was written, all in one process, and compare the files' logits."""
        names = [n for n in (BASE, FUSED, QLORA, REQUANTISED) if (self.work / n).is_dir()]
        if self.settings.tamper is not None:
            for name in names:
                self.settings.tamper(name, self.work / name)
        jobs = [
            ConversionJob(
                model_dir=self.work / name,
                out_file=self._file(name),
                outtype="f32",
                vocabulary="none",
            )
            for name in names
        ]
        ended = convert_all(jobs, cache_dir=self.settings.cache_dir)
        outcomes = dict(zip(names, ended, strict=True))
        refused = outcomes.pop(REQUANTISED, None)
        if isinstance(refused, ConversionError):
            self.numbers[REFUSED] = refused.tensor or "none named"
        elif refused is not None:
            self.numbers[REFUSED] = None
        for name, outcome in outcomes.items():
            if isinstance(outcome, ConversionError):
                if name == BASE:  # the others fail for the same reason
                    self._fail(f"converting {_SAID[name]}: {outcome}", outcome.fix)
                    return
                why = f"it knows no tensor {outcome.tensor}" if outcome.tensor else str(outcome)
                self._fail(
                    f"converting {_SAID[name]}: the GGUF converter refuses the layout that MLX "
                    "saves this architecture in, though the published one can be converted "
                    f"({why})",
                    "choose a model without this layer (for Granite a dense one), or train and "
                    "merge the adapter with transformers instead of MLX",
                )
        self._files(
            [n for n, o in outcomes.items() if not isinstance(o, Exception)], reference, mlx
        )

    def _files(
        self, names: Sequence[str], reference: Reference, mlx: dict[str, list[Logits]]
    ) -> None:
        self._multipliers(FUSED if FUSED in names else BASE)
        gguf: dict[str, list[Logits]] = {}
        for name in names:
            try:
                gguf[name] = self._llama_logits(name)
            except ModelError as error:
                self._fail(f"the GGUF file of {_SAID[name]}: {error}", _NEWER)
                return
            self._finite(f"llama.cpp with the GGUF file of {_SAID[name]}", gguf[name])
        if reference.logits is not None:
            self._compare("gguf_vs_reference", reference.logits, gguf[BASE])
            if not mlx:
                self._alone()
        pairs = (
            ("base_gguf_vs_mlx", BASE, BASE),
            ("gguf_vs_mlx", FUSED, FUSED),
            ("gguf_vs_adapter", "adapter", FUSED),
            ("qlora_gguf_vs_mlx", QLORA, QLORA),
            ("qlora_gguf_vs_adapter", "qlora-adapter", QLORA),
        )
        for stage, ours, theirs in pairs:
            if ours in mlx and theirs in gguf:
                self._compare(stage, mlx[ours], gguf[theirs])

    def _alone(self) -> None:
        """Without MLX nothing is judged, but that the file is wrong too is worth telling."""
        apart = self.numbers.get("gguf_vs_reference_kl_nats")
        if isinstance(apart, float) and apart > APART_NATS:
            self._fail(
                f"the GGUF file computes otherwise than transformers too (KL {apart:.2g} "
                "nats/token): the converter or llama.cpp leaves something of config.json out",
                "choose another base",
            )

    def _file(self, name: str) -> Path:
        return self.work / f"{name}.gguf"

    def _llama_logits(self, name: str) -> list[Logits]:
        from harness.engines.llamacpp import LlamaCppEngine

        # Longrope's factors depend on the context that the file is opened with.
        short = self.miniature.switch or 2 * max(TEXT_TOKENS)
        groups = [(short, self.texts[: len(TEXT_TOKENS)])]
        if self.miniature.switch:
            groups.append((2 * self.miniature.switch, self.texts[len(TEXT_TOKENS) :]))
        logits = []
        for context, texts in groups:
            engine = LlamaCppEngine(self._file(name), exact=True, context_tokens=context)
            logits += [engine.logits(text) for text in texts]
            engine.close()
        return logits

    def _multipliers(self, name: str) -> None:
        """Do Granite's multipliers arrive in the file? The logits tell; this says which one."""
        config = text_part(self.miniature.config)
        wanted = {key: config[key] for key in MULTIPLIERS if config.get(key) is not None}
        if not wanted:
            return
        found = read_gguf_metadata(self._file(name))
        architecture = found.get("general.architecture")
        for key, value in wanted.items():
            stored = found.get(f"{architecture}.{MULTIPLIERS[key]}")
            self.numbers[f"gguf_{MULTIPLIERS[key].replace('.', '_')}"] = stored
            same = isinstance(stored, float | int) and np.isclose(float(stored), float(value))
            if not same:
                self._fail(
                    f"the GGUF file says {MULTIPLIERS[key]} = {stored} where config.json says "
                    f"{key} = {value}",
                    "convert with a newer llama-cpp-python",
                )

    # -- numbers --------------------------------------------------------------------------

    def _compare(self, stage: str, original: Sequence[Logits], other: Sequence[Logits]) -> None:
        for prefix, a, b in self._groups(original, other):
            seen = parity(a, b)
            if np.isfinite(seen.mean_kl_nats):
                self.numbers |= {
                    f"{prefix}{stage}_max_logit_difference": _short(seen.max_logit_difference),
                    f"{prefix}{stage}_kl_nats": _short(max(0.0, seen.mean_kl_nats)),
                    f"{prefix}{stage}_top1_agreement": _short(seen.top1_agreement),
                }

    def _groups(
        self, original: Sequence[Logits], other: Sequence[Logits]
    ) -> list[tuple[str, list[Logits], list[Logits]]]:
        """What may differ only in long texts is counted apart: ("" or a prefix, ours, theirs)."""
        a, b, window = list(original), list(other), self.miniature.window
        if window:
            return [
                ("", [rows[:window] for rows in a], [rows[:window] for rows in b]),
                ("beyond_window_", _after(a, window), _after(b, window)),
            ]
        if self.miniature.switch:
            n = len(TEXT_TOKENS)
            return [("", a[:n], b[:n]), ("long_context_", a[n:], b[n:])]
        return [("", a, b)]

    def _effect(self, name: str, before: Sequence[Logits], after: Sequence[Logits]) -> None:
        effect = parity(before, after).mean_kl_nats
        if np.isfinite(effect):
            self.numbers[name] = _short(effect)

    def _finite(self, who: str, logits: Sequence[Logits]) -> None:
        if not all(np.isfinite(rows).all() for rows in logits):
            self._fail(f"{who} computes logits that are not finite", _NEWER)

    def _fail(self, message: str, fix: str | None) -> None:
        self.findings.append(Finding(severity="fail", message=message, fix=fix))


_SAID: Mapping[str, str] = MappingProxyType(
    {
        BASE: "the base",
        FUSED: "the fused model",
        QLORA: "the model fused from 4 bits with --dequantize",
    }
)


def _after(logits: Sequence[Logits], start: int) -> list[Logits]:
    return [rows[start:] for rows in logits if len(rows) > start]


def _short(value: float) -> float:
    return float(f"{value:.3g}")
