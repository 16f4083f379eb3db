"""The memory model: exact counts, sound predictions, and one sentence for every nonsense config."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ModelError
from harness.memory_model import (
    OLD_KEYS,
    Prediction,
    Settings,
    is_modelled,
    predict,
    read_architecture,
)

DATA = ROOT / "benchmarks" / "data"
TWINS: dict[str, dict[str, Any]] = json.loads((DATA / "memory_configs.json").read_text())
PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (DATA / "memory_published_configs.json").read_text()
)

GRANITE_H: dict[str, Any] = {
    "model_type": "granitemoehybrid",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 100352,
    "layer_types": ["attention" if i in (5, 15, 25, 35) else "mamba" for i in range(40)],
    "mamba_n_heads": 64,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_conv_bias": True,
    "num_local_experts": 0,
    "tie_word_embeddings": True,
}
GRANITE_TINY = {
    **GRANITE_H,
    "hidden_size": 1536,
    "intermediate_size": 512,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "mamba_n_heads": 48,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "shared_intermediate_size": 1024,
}
MEDGEMMA = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
    "torch_dtype": "bfloat16",
}


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def of(config: dict[str, Any], **chosen: Any) -> Prediction:
    return predict(read_architecture(config), Settings(**chosen))


# ---- counting ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (TWINS["smollm2-135m-instruct"], 134_515_008),
        (PUBLISHED["TinyLlama"], 1_100_048_384),
        (PUBLISHED["Llama-3.2-3B"], 3_212_749_824),
        (PUBLISHED["Mistral-7B-v0.2"], 7_241_732_096),
        (PUBLISHED["Qwen2.5-3B"], 3_085_938_688),
        (PUBLISHED["Qwen3-4B"], 4_022_468_096),
        (PUBLISHED["Phi-3-mini"], 3_821_079_552),
        (GRANITE_H, 3_191_396_096),
        (GRANITE_TINY, 6_939_037_248),
        (MEDGEMMA, 3_880_263_168),
    ],
)
def test_parameters_are_exact(config: dict[str, Any], parameters: int) -> None:
    """Totals of the safetensors files, or of mlx-lm's own logs (medgemma: its language part)."""
    assert read_architecture(config).parameters == parameters


@pytest.mark.parametrize(
    ("model", "layers", "keys", "millions"),
    [
        ("Qwen2.5-1.5B", 16, None, 5.276),
        ("Qwen2.5-3B", 16, None, 6.652),
        ("Qwen3-4B", 16, None, 7.340),
        ("gemma-2-2b", 16, None, 6.390),
        ("Mistral-7B-v0.3", 16, None, 10.486),
        ("TinyLlama", 16, OLD_KEYS, 0.819),
        ("gemma-2b", 4, OLD_KEYS, 0.205),
        ("Llama-3.2-3B", 28, OLD_KEYS, 2.294),
        ("Phi-3-mini", 32, ("self_attn.qkv_proj",), 3.146),
        ("Qwen2.5-14B", 4, OLD_KEYS, 0.524),
    ],
)
def test_trainable_parameters_are_those_of_mlx_lms_logs(
    model: str, layers: int, keys: tuple[str, ...] | None, millions: float
) -> None:
    seen = of(PUBLISHED[model], lora_layers=layers, lora_keys=keys)
    assert round(seen.trainable_parameters / 1e6, 3) == millions


def test_stored_measurements_have_the_counted_weights_and_adapters() -> None:
    """Every family as mlx-lm built it: bytes of weights, and elements of the adapter."""
    rows = benchmark("memory_model").predictions(
        "memory_measured.csv", "memory_configs.json", "cpu"
    )
    assert {row.stored["model"] for row in rows} == set(TWINS)
    for row in rows:
        name = row.stored["id"]
        assert row.prediction.weights_gb == pytest.approx(
            float(row.stored["weights_gb"]), abs=1e-4
        ), name
        if row.training:
            trained = int(row.stored["trainable_parameters"])
            assert row.prediction.trainable_parameters == trained, name


@pytest.mark.parametrize("model", sorted(PUBLISHED))
def test_four_bits_take_half_a_byte_and_a_scale_and_a_bias_for_each_group(model: str) -> None:
    """4 bits + 2 × 16 bits per 64 weights: 4.5 bits; what little is not packed costs more."""
    seen = of(PUBLISHED[model], bits=4)
    assert 4.5 <= 8e9 * seen.weights_gb / seen.parameters < 4.55
    assert of(PUBLISHED[model], bits=4, group_size=32).weights_gb > seen.weights_gb


def test_stored_quantisation_with_overrides_is_read() -> None:
    packed = {"bits": 4, "group_size": 64, "model.embed_tokens": {"bits": 8, "group_size": 64}}
    config = PUBLISHED["Llama-3.2-3B"]
    plain, mixed = of(config, bits=4), of({**config, "quantization": packed})
    assert mixed.bits == 4
    rows = config["vocab_size"] * config["hidden_size"]
    assert mixed.weights_gb - plain.weights_gb == pytest.approx(rows * 0.5e-9)
    left = {"bits": 4, "group_size": 64, "model.embed_tokens": False}
    plainer = of({**config, "quantization": left})
    assert plainer.weights_gb - plain.weights_gb == pytest.approx(rows * (2 - 0.5625) * 1e-9)


def test_kinds_of_layers() -> None:
    kinds = [layer.kind for layer in read_architecture(GRANITE_TINY).layers]
    assert kinds.count("mamba + experts") == 36
    assert kinds[5] == "attention + experts"
    kinds = [layer.kind for layer in read_architecture(MEDGEMMA).layers]
    assert kinds[:6] == ["sliding attention"] * 5 + ["attention"]
    assert read_architecture(MEDGEMMA).dropped == "the vision tower"


# ---- predicting ----------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "metal"])
@pytest.mark.parametrize("model", sorted(TWINS))
def test_parts_add_up_and_lie_in_the_interval(model: str, device: str) -> None:
    for chosen in ({}, {"grad_checkpoint": True}, {"dropout": 0.1, "bits": 8}, {"batch": 8}):
        seen = of(TWINS[model], device=device, **chosen)
        assert sum(seen.breakdown_gb.values()) == pytest.approx(seen.train_peak_gb)
        assert sum(seen.inference_breakdown_gb.values()) == pytest.approx(seen.inference_peak_gb)
        assert min(seen.breakdown_gb.values()) >= 0
        assert seen.train_low_gb <= seen.train_peak_gb <= seen.train_high_gb


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"tokens_per_batch": 512}, {"tokens_per_batch": 1024}),
        ({"lora_layers": 2}, {"lora_layers": 4}),
        ({"rank": 8}, {"rank": 64}),
        ({"dropout": 0.0}, {"dropout": 0.1}),
        ({"grad_checkpoint": True}, {"grad_checkpoint": False}),
        ({"bits": 4}, {"bits": 8}),
        ({"bits": 16}, {"bits": 32}),
        ({"lora_keys": OLD_KEYS}, {"lora_keys": None}),
        ({"optimizer": "sgd"}, {"optimizer": "adamw"}),
        # As many tokens in one example: the scores grow with the square of its length.
        ({"batch": 4, "tokens_per_batch": 4096}, {"batch": 1, "tokens_per_batch": 4096}),
    ],
)
def test_more_work_takes_more(less: dict[str, Any], more: dict[str, Any]) -> None:
    config = TWINS["llama-wide"]
    assert of(config, **less).train_peak_gb < of(config, **more).train_peak_gb


def test_nothing_is_kept_below_the_lowest_trained_layer() -> None:
    """Layers below only add their weights."""
    deep = {**TWINS["llama-wide"], "num_hidden_layers": 16}
    few, many = of(TWINS["llama-wide"], lora_layers=4), of(deep, lora_layers=4)
    assert many.train_peak_gb - few.train_peak_gb == pytest.approx(many.weights_gb - few.weights_gb)


def test_a_sliding_window_bounds_the_cache() -> None:
    def cache(context: int) -> float:
        return of(MEDGEMMA, context=context).inference_breakdown_gb["cache"]

    # 29 of 34 layers stop growing; 4 more kv heads of 256 in 5 layers, two bytes, keys and values.
    assert cache(65_536) - cache(32_768) == pytest.approx(5 * 2 * 2 * 1024 * 32_768 / 1e9)


def test_max_seq_cuts_the_longest_batch() -> None:
    config = TWINS["qwen2"]
    cut = of(config, batch=2, tokens_per_batch=4096, max_seq=512)
    assert cut == of(config, batch=2, tokens_per_batch=1024, max_seq=512)
    loose = of(config, batch=2, tokens_per_batch=1024, max_seq=4096)
    exact = of(config, batch=2, tokens_per_batch=1024)
    assert loose.train_peak_gb == exact.train_peak_gb
    assert loose.train_high_gb > exact.train_high_gb


def test_an_average_is_not_taken_for_the_longest_batch() -> None:
    config = PUBLISHED["Llama-3.2-3B"]
    longest = of(config, batch=4, tokens_per_batch=1024)
    average = of(config, batch=4, tokens_per_batch=1024, tokens_are="average")
    assert average.train_peak_gb > longest.train_peak_gb
    assert average.train_high_gb > 2 * longest.train_high_gb - longest.weights_gb


def test_metal_fuses_the_attention_of_a_prompt_only_for_usual_heads() -> None:
    assert "attention scores" not in of(PUBLISHED["Qwen3-4B"]).inference_breakdown_gb
    assert "attention scores" in of(PUBLISHED["gemma-2b"]).inference_breakdown_gb
    assert "attention scores" in of(PUBLISHED["Qwen3-4B"], device="cpu").inference_breakdown_gb


def test_stored_rows_are_as_close_as_promised() -> None:
    """The limits of docs/memory.md, on the rows that were kept out of the fit as well."""
    module = benchmark("memory_model")
    for summary in module.all_summaries():
        assert summary.kept, module.show(summary)
    held_out = [
        abs(row.error)
        for row in module.predictions("memory_measured.csv", "memory_configs.json", "cpu")
        if row.stored["part"] == "held out"
    ]
    assert len(held_out) >= 20
    assert sorted(held_out)[len(held_out) // 2] <= 0.10


def test_the_documentation_tells_the_errors_as_they_are() -> None:
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    for summary in benchmark("memory_model").all_summaries():
        worst = max(summary.rows, key=lambda row: abs(row.error)).error
        [line] = [line for line in page.splitlines() if line.startswith(f"| {summary.title} |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:3] == [str(len(summary.rows)), f"{summary.median_error:.1%}"]
        assert cells[4] == f"{worst:+.1%}"
        assert cells[5] == ("" if summary.coverage is None else f"{summary.coverage:.0%}")


# ---- nonsense ------------------------------------------------------------------------------

NONSENSE = [None, "", "abc", -1, 0, 10**30, 1.5, float("nan"), float("inf"), True, [], {}, [1], "1"]


@pytest.mark.parametrize("model", [*sorted(TWINS), "medgemma"])
def test_nonsense_in_any_key_is_one_sentence(model: str) -> None:
    config = {**TWINS, "medgemma": MEDGEMMA}[model]
    for key in config:
        for value in NONSENSE:
            survives_or_says_why({**config, key: value})
        survives_or_says_why({k: v for k, v in config.items() if k != key})


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted({key for config in TWINS.values() for key in config})),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=5,
        ),
    ),
    st.sampled_from(sorted(TWINS)),
)
def test_random_nonsense_is_one_sentence(changes: dict[str, Any], model: str) -> None:
    survives_or_says_why({**TWINS[model], **changes})


@pytest.mark.parametrize(
    "section",
    [
        "4 bits",
        4,
        {"bits": 7, "group_size": 64},
        {"bits": "4", "group_size": 64},
        {"bits": 4, "group_size": 63},
    ],
)
def test_a_nonsense_quantisation_is_refused(section: object) -> None:
    with pytest.raises(ModelError):
        read_architecture({**TWINS["qwen2"], "quantization": section})


def survives_or_says_why(config: dict[str, Any]) -> None:
    try:
        seen = of(config)
    except ModelError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 500
        return
    assert seen.train_peak_gb > 0


def test_an_unknown_family_is_named() -> None:
    config = {"model_type": "biogpt", "hidden_size": 1024}
    assert not is_modelled(config)
    with pytest.raises(ModelError, match="biogpt"):
        read_architecture(config)
    with pytest.raises(ModelError, match="model_type"):
        read_architecture({})


def test_nothing_here_imports_a_runtime() -> None:
    import subprocess

    code = (
        "import sys, harness.memory_model; "
        "sys.exit(any(m.split('.')[0] in ('mlx', 'mlx_lm', 'torch') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- the real thing ------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("row", ["t13", "i06"])
def test_a_real_run_peaks_where_it_is_predicted(row: str) -> None:
    """One training run and one prompt, measured now, against stored peak and prediction."""
    measure, model = benchmark("measure_memory"), benchmark("memory_model")
    stored = {r["id"]: r for r in measure.read_rows(measure.SETTINGS)}[row]
    peak = measure.in_own_process(stored)["peak_gb"]
    expected = {
        r.stored["id"]: r
        for r in model.predictions("memory_measured.csv", "memory_configs.json", "cpu")
    }[row]
    assert peak == pytest.approx(expected.measured_gb, rel=0.10)
    assert peak == pytest.approx(expected.predicted_gb, rel=0.20)


@pytest.mark.real
def test_parameters_are_those_of_mlx_lms_own_classes(tmp_path: Path) -> None:
    """Every twin built by mlx-lm, in a process of its own: as many elements as counted."""
    import subprocess

    script = tmp_path / "count.py"
    script.write_text(
        "import json, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
        "import measure_memory as m\n"
        "from mlx.utils import tree_flatten\n"
        "found = {}\n"
        "for name in json.loads(m.CONFIGS.read_text()):\n"
        "    if name != 'smollm2-135m-instruct':\n"
        "        model = m.build({'model': name, 'bits': '32', 'group_size': ''})\n"
        "        found[name] = sum(v.size for _, v in tree_flatten(model.parameters()))\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 12
    for name, elements in found.items():
        assert read_architecture(TWINS[name]).parameters == elements, name
