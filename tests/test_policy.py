from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import PolicyError
from harness.marked_yaml import load_marked_yaml
from harness.policy import DEFAULT_POLICY, Policy, load_policy


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def test_the_shipped_policy_loads_and_survives_json() -> None:
    policy = load_policy()
    assert Policy.model_validate_json(policy.model_dump_json()) == policy
    assert policy.suite("medical_facts") == policy.suites["default"]
    assert policy.suite("greetings").fail_drop > policy.suite("medical_facts").fail_drop
    assert policy.suite("greetings").alpha_fail == policy.suite("medical_facts").alpha_fail


def test_every_shipped_key_of_default_and_gates_is_explained() -> None:
    lines = DEFAULT_POLICY.read_text(encoding="utf-8").splitlines()
    data = load_marked_yaml(DEFAULT_POLICY, PolicyError).data
    keys = {key for gate in data["gates"].values() for key in gate} | set(data["suites"]["default"])
    for key in keys:
        assert any(f"{key}:" in line and "#" in line for line in lines), key


def test_one_line_changes_one_threshold(write) -> None:
    mine = load_policy(write("suites: {medical_facts: {fail_drop: 0.05}}"))
    assert mine.suite("medical_facts").fail_drop == 0.05
    shipped = load_policy()
    assert mine.suite("medical_facts").alpha_fail == shipped.suite("medical_facts").alpha_fail
    assert mine.suite("greetings") == shipped.suite("greetings")
    assert mine.gates == shipped.gates


def test_default_reaches_suites_that_do_not_say_otherwise(write) -> None:
    mine = load_policy(write("suites: {default: {min_known: 3, fail_drop: 0.2}}"))
    assert mine.suite("greetings").min_known == 3
    assert mine.suite("greetings").fail_drop == load_policy().suite("greetings").fail_drop
    assert mine.suite("anything").fail_drop == 0.2


def test_hash_follows_values_not_layout(write) -> None:
    shipped = load_policy().sha256
    same = load_policy().suites["default"].alpha_fail
    assert load_policy(write(f"# mine\nsuites: {{default: {{alpha_fail: {same}}}}}")).sha256 == (
        shipped
    )
    assert load_policy(write("suites: {default: {alpha_fail: 0.02}}")).sha256 != shipped


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "suites:\n  default:\n    fail_dorp: 0.1",
            r":3:5: unknown key 'suites\.default\.fail_dor",
        ),
        ("suites: {x: {fail_dorp: 0.1}}", r"did you mean 'fail_drop'\?"),
        ("gate: {}", r":1:1: unknown key 'gate'; did you mean 'gates'\?"),
        ("gates:\n  zzz: 1", r":2:3: unknown key 'gates\.zzz'; known are facts, gguf"),
        ("suites:\n  greetings:\n    alpha_fail: '0.1'", r":3:5: .*alpha_fail' is '0\.1'"),
        ("suites: {default: {alpha_fail: true}}", r"alpha_fail' is True"),
        ("suites: {default: {alpha_fail: 2}}", r"alpha_fail' is 2: .*less than or equal to 1"),
        ("suites: {default: {min_known: 2.5}}", r"min_known' is 2\.5"),
        ("gates: {memory: {warn_share: .nan}}", r"warn_share' is nan: .*finite"),
        ("suites:\n  greetings:\n    alpha_fail: 0.2", r":2:3: .*must not exceed alpha_warn"),
        ("gates: {gguf: {top1_fail: 0.95}}", r"top1_fail \(0\.95\) must not exceed top1_warn"),
        ("gates: {facts: {choice_fail: 0.5}}", r"choice_fail \(0\.5\) must not exceed choice_warn"),
        ("suites: {x: null}", r"'suites\.x' must be a section"),
        ("suites: 3", r"'suites' must be a section"),
        ("suites: {1: {fail_drop: 0.1}}", r"'suites\.1' is 1"),
        ("[1, 2]", r"a policy is a mapping .* not a list"),
        ("suites: [1", r"mine\.yaml:1:11: .*cannot be read"),
        ("a: 1\na: 2", r":2:1: .*already given on line 1"),
        ("suites: &a {x: *a}", r"contains itself"),
        ("", r"is empty"),
    ],
)
def test_mistakes_are_named_with_their_place(write, text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        load_policy(write(text))


def test_a_missing_file_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"nowhere\.yaml"):
        load_policy(tmp_path / "nowhere.yaml")
