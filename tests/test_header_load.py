"""The load gate at depth header: real lazy loads by mlx-lm of ghosts, good and broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from header_context import context, no_tools

from harness.checkpoints.ghost import TensorShape, tensors_of, write_ghost
from harness.checkpoints.load_failures import Mismatch, Misshapen, explain_mismatch
from harness.errors import ModelError
from harness.gates import header_load
from harness.gates.context import GateContext
from harness.judges.header_load import judge
from harness.policy import load_policy
from harness.records import HeaderFacts, Known, Observation, Scalar, Status
from harness.registry import load_registry
from harness.snapshots import ghost_of, load_snapshot

ROOT = Path(__file__).parents[1]
GATES = load_policy(None).gates
NUMBERS: dict[str, Scalar] = {
    "parameters": 3_212_749_824,
    "tensors": 254,
    "weights_gb": 6.4255,
    "dtype": "bfloat16",
    "model_type": "llama",
    "dropped_parameters": 0,
    "weight_format": "safetensors",
    "config_standing": "published",
    "tensors_standing": "assembled",
    "weights_standing": "published",
}
Tensors = dict[str, TensorShape]


def look(folder: Path, facts: HeaderFacts | None = None) -> Observation:
    seen = header_load.observe(context(folder, folder, facts), no_tools())
    assert (seen.gate, seen.depth) == ("load", "header")
    assert all(one.message.isprintable() for one in seen.findings)
    assert all(one.fix for one in seen.findings if one.severity == "fail")
    return seen


def fails(seen: Observation) -> list[str]:
    return [f"{one.message} -> {one.fix}" for one in seen.findings if one.severity == "fail"]


def llama() -> tuple[dict[str, Any], Tensors]:
    one = load_snapshot(ROOT / "snapshots" / "llama-3.2-1b-instruct.json")
    return dict(one.config), dict(one.tensor_list())


def quantised(tensors: Tensors, bits: int = 4, group: int = 64) -> Tensors:
    """What mlx_lm.convert stores: words, scales and biases for every matrix."""
    packed: Tensors = {}
    for name, (dtype, shape) in tensors.items():
        if len(shape) != 2:
            packed[name] = TensorShape(dtype, shape)
            continue
        rows, columns = shape
        stem = name.removesuffix("weight")
        packed[name] = TensorShape("U32", (rows, columns * bits // 32))
        packed[f"{stem}scales"] = TensorShape(dtype, (rows, columns // group))
        packed[f"{stem}biases"] = TensorShape(dtype, (rows, columns // group))
    return packed


@pytest.mark.real
class TestRegistry:
    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("smollm2-135m-instruct", Status.PASS),
            ("llama-3.2-1b-instruct", Status.PASS),
            ("llama-3.2-3b-instruct", Status.PASS),
            ("granite-3.3-2b-instruct", Status.PASS),
            ("granite-4.0-micro", Status.WARN),
            ("granite-4.0-h-micro", Status.PASS),
            ("biomistral-7b", Status.FAIL),
            ("medgemma-4b-it", Status.WARN),
            ("bio-medical-llama-3.2-1b-cot", Status.WARN),
            ("openbiollm-8b", Status.WARN),
            ("meditron-7b", Status.WARN),
            ("biomedlm", Status.FAIL),
        ],
    )
    def test_every_candidate_without_evaluating_anything(
        self, tmp_path: Path, name: str, status: Status
    ) -> None:
        import mlx.core as mx

        mx.reset_peak_memory()
        before = mx.get_active_memory()
        folder, facts = ghost_of(
            load_snapshot(ROOT / "snapshots" / f"{name}.json"), tmp_path / name
        )
        seen = look(folder, facts)
        assert mx.get_peak_memory() - before < 1 << 20
        if status is Status.FAIL:
            assert fails(seen)
            return
        assert not fails(seen)
        judged = judge(seen.numbers, GATES)
        assert [p.status for p in judged.problems] == ([status] if status is Status.WARN else [])

    def test_names_are_those_of_the_registry(self) -> None:
        marks = TestRegistry.test_every_candidate_without_evaluating_anything.pytestmark  # type: ignore[attr-defined]
        named = [row[0] for mark in marks if mark.name == "parametrize" for row in mark.args[1]]
        registry = load_registry(ROOT / "model_registry.yaml")
        assert named == [candidate.name for candidate in registry.candidates]

    def test_llama_3b(self, tmp_path: Path) -> None:
        one = load_snapshot(ROOT / "snapshots" / "llama-3.2-3b-instruct.json")
        seen = look(*ghost_of(one, tmp_path / "llama"))
        assert seen.numbers["parameters"] == seen.numbers["loaded_parameters"] == 3_212_749_824
        assert (seen.numbers["tensors"], seen.numbers["weights_gb"]) == (254, 6.4255)
        assert seen.numbers["has_tokenizer"] is False

    def test_biomedlm_says_layout_and_pickle(self, tmp_path: Path) -> None:
        one = load_snapshot(ROOT / "snapshots" / "biomedlm.json")
        layout, pickled = fails(look(*ghost_of(one, tmp_path / "x")))
        assert "388 are missing (first model.h.0.attn.c_attn.bias)" in layout
        assert "begin with model.transformer where mlx-lm's begin with model" in layout
        assert "only pickled (pytorch_model.bin)" in pickled and "save_pretrained" in pickled

    def test_vision_tower_is_left_out_and_told(self, tmp_path: Path) -> None:
        one = load_snapshot(ROOT / "snapshots" / "medgemma-4b-it.json")
        seen = look(*ghost_of(one, tmp_path / "x"))
        assert seen.numbers["parameters"] == 4_300_079_472
        assert (
            seen.numbers["loaded_parameters"] == 4_300_079_472 - seen.numbers["dropped_parameters"]
        )  # type: ignore[operator]
        assert "vision_tower (437 tensors)" in seen.findings[0].message


@pytest.mark.real
class TestQuantised:
    def test_mlx_4_bit_model_loads(self, tmp_path: Path) -> None:
        config, tensors = llama()
        config["quantization"] = {"group_size": 64, "bits": 4}
        seen = look(write_ghost(tmp_path / "q", config, quantised(tensors)))
        assert not fails(seen)
        assert seen.numbers["parameters"] == seen.numbers["loaded_parameters"] == 1_235_814_400
        assert seen.numbers["quantised"] is True and seen.numbers["dtype"] == "packed"
        assert seen.numbers["weights_gb"] == 0.6952

    def test_without_its_settings_it_does_not(self, tmp_path: Path) -> None:
        config, tensors = llama()
        (said,) = fails(look(write_ghost(tmp_path / "q", config, quantised(tensors))))
        assert "does not say with how many bits model.embed_tokens.weight is packed" in said

    def test_with_other_settings_mlx_lm_trusts_the_shapes(self, tmp_path: Path) -> None:
        config, tensors = llama()
        config["quantization"] = {"group_size": 32, "bits": 8}
        seen = look(write_ghost(tmp_path / "q", config, quantised(tensors)))
        assert not fails(seen)
        assert seen.numbers["parameters"] == 1_235_814_400


def _without(*names: str) -> Callable[[dict[str, Any], Tensors], None]:
    def change(_: dict[str, Any], tensors: Tensors) -> None:
        for name in list(tensors):
            if any(part in name for part in names):
                del tensors[name]

    return change


def _with(**more: TensorShape) -> Callable[[dict[str, Any], Tensors], None]:
    return lambda _, tensors: tensors.update({k.replace("__", "."): v for k, v in more.items()})


def _config(**changes: Any) -> Callable[[dict[str, Any], Tensors], None]:
    return lambda config, _: config.update(changes)


def _rename(config: dict[str, Any], tensors: Tensors) -> None:
    del config
    for name in list(tensors):
        tensors[f"base.{name}"] = tensors.pop(name)


SMALL = TensorShape("BF16", (4, 4))


@pytest.mark.real
@pytest.mark.parametrize(
    ("change", "says", "do"),
    [
        (_without("layers.3.self_attn.q_proj"), "1 is missing (first model.layers.3.self_attn.q_",
         "copy config.json"),
        (_without("layers.15."), "layers 15 are not complete", "download the model again"),
        (_config(num_hidden_layers=12), "layers 12 to 15, more than config.json promises",
         '"num_hidden_layers": 16'),
        (_with(surprise__weight=SMALL), "1 is unexpected (first surprise.weight)", "copy config"),
        (_with(model__norm__weight=SMALL), "1 has another shape (first model.norm.weight, [4, 4] "
         "instead of [2048])", "copy config.json"),
        (_config(vocab_size=128_300), "has 128256 rows, but vocab_size makes 128300",
         '"vocab_size": 128256'),
        (_config(tie_word_embeddings=False), "the output layer is not stored",
         '"tie_word_embeddings": true'),
        (_with(model__layers__0__mlp__up_proj__lora_a=SMALL), "a LoRA that was not fused",
         "mlx_lm.fuse"),
        (_with(model__layers__0__mlp__up_proj__weight__absmax=SMALL), "quantised in a way",
         "bfloat16 release"),
        (_with(model__layers__0__mlp__up_proj__scales=SMALL), "no `quantization`",
         "copy the `quantization` section"),
        (_rename, "their names begin with base.model where mlx-lm's begin with model",
         "mlx-community"),
        (_config(model_type="nonsense"), "no architecture nonsense", "pip install -U mlx-lm"),
        (_config(model_type="../../etc/passwd"), "no name of an architecture", "copy config.json"),
        (_config(num_attention_heads=0), "cannot build llama", "copy config.json"),
        (_config(hidden_size="big"), "cannot build llama", "copy config.json"),
        (lambda c, _: c.pop("vocab_size"), "lacks vocab_size", "copy config.json"),
        (_config(num_hidden_layers=10**9), "more than any model", "copy config.json"),
        (_config(layer_types=["a"] * 20_000), "more than any model", "another source"),
        (_config(auto_map={"AutoModel": "x.Y"}, model_type="own_code"), "the model's own code",
         "built-in architecture"),
        (_config(model_file="model.py"), "Python code that loading would run", "built in"),
    ],
)  # fmt: skip
def test_what_does_not_load_is_named_with_cause_and_fix(
    tmp_path: Path, change: Callable[[dict[str, Any], Tensors], None], says: str, do: str
) -> None:
    config, tensors = llama()
    change(config, tensors)
    (said,) = fails(look(write_ghost(tmp_path / "x", config, tensors)))
    assert says in said and do in said.split(" -> ")[1]
    assert str(tmp_path) not in said


@pytest.mark.real
def test_known_architecture_with_its_own_code_is_built_in(tmp_path: Path) -> None:
    config, tensors = llama()
    seen = look(write_ghost(tmp_path / "x", config | {"auto_map": {"AutoModel": "x.Y"}}, tensors))
    assert not fails(seen)
    assert any("auto_map" in one.message for one in seen.findings)


def facts(**changes: Any) -> HeaderFacts:
    read = Known(standing="read", source="a test")
    values: dict[str, Any] = {
        "origin": "hub",
        "parts": dict.fromkeys(("config", "tensors", "tokenizer", "weights"), read),
        "weight_format": "safetensors",
    }
    return HeaderFacts(**values | changes)


class TestFormat:
    def test_pickles_fail_without_looking_further(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "x", {"model_type": "llama"}, {})
        (said,) = fails(look(folder, facts(weight_format="pickle", files=("a.bin",))))
        assert "only pickled (a.bin)" in said and "from_pretrained" in said

    def test_names_that_mlx_lm_does_not_look_for(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "x", {"model_type": "llama"}, {})
        files = ("config.json", "weights.safetensors")
        (said,) = fails(look(folder, facts(files=files)))
        assert "called weights.safetensors, but mlx-lm loads only" in said
        assert "mv weights.safetensors model.safetensors" in said

    def test_unknown_tensors_are_not_run(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "x", {"model_type": "llama"}, {})
        parts = facts().parts | {"tensors": Known(standing="missing", source="nobody")}
        seen = look(folder, facts(parts=parts, origin="snapshot"))
        assert seen.not_run and "harness snapshot tiny" in seen.not_run

    def test_header_that_the_hub_sent_and_nobody_trusts(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "x", {"model_type": "llama"}, {})
        why = "model.safetensors of org/x claims a header of 53687 MB; get another"
        parts = facts().parts | {"tensors": Known(standing="missing", source="Hub", note=why)}
        assert fails(look(folder, facts(parts=parts))) == [why.replace("; ", " -> ")]

    def test_hostile_header_in_a_folder(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "x", {"model_type": "llama"}, {})
        (folder / "model.safetensors").write_bytes(b"\xff" * 8 + b'{"a":1}')
        (said,) = fails(look(folder))
        assert said.startswith("x/model.safetensors is not a safetensors file")

    def test_local_pickles_and_empty_folders(self, tmp_path: Path) -> None:
        folder = write_ghost(tmp_path / "x", {"model_type": "llama"}, {})
        assert "no weights" in fails(look(folder))[0]
        (folder / "pytorch_model.bin").write_bytes(b"")
        assert "only pickled weights (pytorch_model.bin)" in fails(look(folder))[0]

    def test_settings_that_decide_the_observation(self) -> None:
        context = GateContext.model_construct(facts=facts())
        asked = header_load.asked(context)
        json.dumps(asked)
        other = GateContext.model_construct(facts=facts(weight_format="unknown"))
        assert header_load.asked(other) != asked
        away = Known(standing="read", source="a test", note="no network today")
        same = facts(parts=facts().parts | {"tokenizer": away})
        assert header_load.asked(GateContext.model_construct(facts=same)) == asked


class TestJudge:
    def test_pass_shows_what_is_not_published(self) -> None:
        judged = judge(NUMBERS, GATES)
        assert judged.problems == []
        assert judged.summary == (
            "llama with 3.21 B parameters in 254 tensors (6.43 GB, bfloat16); tensors assembled"
        )
        read = judge(NUMBERS | {"tensors_standing": "read"}, GATES)
        assert read.summary.endswith("bfloat16)")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"config_standing": "unverified"}, "config is taken on trust"),
            ({"tensors_standing": "unverified"}, "tensors are taken on trust"),
            (
                {"config_standing": "unverified", "weights_standing": "unverified"},
                "config and weight files are taken on trust",
            ),
            ({"weight_format": "unknown"}, "whether it has safetensors"),
        ],
    )
    def test_what_is_taken_on_trust_warns(self, changes: Mapping[str, str], says: str) -> None:
        (problem,) = judge({**NUMBERS, **changes}, GATES).problems
        assert problem.status is Status.WARN and says in problem.text and problem.fix

    def test_missing_numbers_are_no_pass(self) -> None:
        with pytest.raises(ValueError, match="parameters"):
            judge({k: v for k, v in NUMBERS.items() if k != "parameters"}, GATES)


class TestExplain:
    def test_unknown_causes_name_the_tensors(self) -> None:
        said = explain_mismatch(
            Mismatch(missing=("a.b",), unexpected=("c\n",)), {"model_type": "x"}
        )
        assert "1 is missing (first a.b), 1 is unexpected (first c\\n)" in said.message
        assert "mlx-lm's x" in said.message

    def test_another_width_is_not_another_vocabulary(self) -> None:
        other = Misshapen("model.embed_tokens.weight", (10, 8), (10, 4))
        assert "rows" not in explain_mismatch(Mismatch(misshapen=(other,)), {}).message


@pytest.mark.real
def test_engine_says_one_sentence(tmp_path: Path) -> None:
    from harness.engines.mlx_header import lazy_load

    config, tensors = llama()
    folder = write_ghost(tmp_path / "x", config | {"rope_scaling": {"rope_type": "?"}}, tensors)
    assert len(tensors_of(folder)) == 146
    with pytest.raises(ModelError) as caught:
        lazy_load(folder)
    assert str(caught.value).isprintable() and "; " in str(caught.value)
