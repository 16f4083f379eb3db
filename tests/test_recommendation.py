"""Which candidate is recommended, and what is said of the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_reports import gate

from harness.recommendation import recommend
from harness.records import CandidateReport, Depth, GateResult, Status


def candidate(name: str, *gates: GateResult, depth: Depth = "header") -> CandidateReport:
    return CandidateReport(
        name=name, depth=depth, source="Hub", licence="Apache-2.0", why="a test", gates=gates
    )


def load(parameters: int, status: Status = Status.PASS) -> GateResult:
    return gate("load", status, "loads", parameters=parameters)


def facts(right: int, n: int = 200) -> GateResult:
    return gate("facts", Status.PASS, "answers", right=right, n=n)


def test_the_biggest_that_passes_is_recommended_and_the_rest_explained() -> None:
    memory = gate("memory", Status.FAIL, "training needs 21.9 GB", "train in 4 bit")
    advice = recommend(
        [
            candidate("small", load(1_200_000_000)),
            candidate("right", load(3_200_000_000), gate("gguf", Status.WARN, "no template")),
            candidate("too-big", load(8_000_000_000), memory),
        ]
    )
    assert advice is not None
    assert (advice.best, advice.measure) == ("right", "parameters")
    assert [(each.name, each.place) for each in advice.ranking] == [
        ("right", 1),
        ("small", 2),
        ("too-big", None),
    ]
    reasons = {each.name: each.reason for each in advice.ranking}
    assert reasons["right"] == "3.20 B parameters; warnings at gguf"
    assert reasons["small"] == "1.20 B parameters; right is larger and passes too"
    assert reasons["too-big"] == "FAIL at memory: training needs 21.9 GB; fix: train in 4 bit"
    assert advice.next_command == "harness vet right --depth twin"


def test_answers_outrank_size_where_all_were_asked() -> None:
    large = candidate("large", load(3_000_000_000), facts(90), depth="full")
    clever = candidate("clever", load(1_000_000_000), facts(120), depth="full")
    advice = recommend([large, clever])
    assert advice is not None
    assert (advice.best, advice.measure) == ("clever", "answers")
    assert advice.ranking[1].reason.startswith("45 % of the facts, 3.00 B parameters; clever ans")
    assert advice.next_command == "harness compare clever --adapter FOLDER --gguf"


def test_one_that_was_not_asked_makes_size_the_measure() -> None:
    asked = candidate("asked", load(1_000_000_000), facts(120), depth="full")
    advice = recommend([asked, candidate("unasked", load(3_000_000_000))])
    assert advice is not None and (advice.best, advice.measure) == ("unasked", "parameters")


@pytest.mark.parametrize("status", [Status.FAIL, Status.ERROR, Status.INCONCLUSIVE])
def test_a_gate_that_did_not_pass_bars_it(status: Status) -> None:
    barred = candidate("barred", load(3), gate("gguf", status, "it went wrong"))
    advice = recommend([barred])
    assert advice is not None
    assert advice.best is None and advice.next_command is None
    assert advice.ranking[0].reason == f"{status.value} at gguf: it went wrong"


def test_gates_that_did_not_run_are_named_and_never_a_pass() -> None:
    unseen = gate("tokenizer", Status.NOT_RUN, "no tokenizer here")
    advice = recommend([candidate("partly", load(3_000_000_000), unseen)])
    assert advice is not None and advice.best == "partly"
    assert advice.ranking[0].reason.endswith("not run: tokenizer")
    advice = recommend([candidate("unseen", unseen)])
    assert advice is not None and advice.best is None
    assert advice.ranking[0].reason == "not run: no tokenizer here"


def test_one_whose_tensors_nobody_saw_is_not_in_the_running() -> None:
    memory = gate("memory", Status.PASS, "fits", train_peak_gb=2.0)
    unseen = gate("load", Status.NOT_RUN, "its tensors are not known here")
    advice = recommend([candidate("ghostly", unseen, memory)])
    assert advice is not None and advice.best is None
    assert advice.ranking[0].reason == "not run: its tensors are not known here"


def test_equals_are_told_apart_by_their_warnings_and_not_by_their_order() -> None:
    clean = candidate("clean", load(1_235_814_400))
    doubtful = candidate("doubtful", load(1_235_814_400, Status.WARN))
    for pair in ([doubtful, clean], [clean, doubtful]):
        advice = recommend(pair)
        assert advice is not None and advice.best == "clean"
        assert "larger" not in advice.ranking[1].reason


def test_greetings_decide_between_equals_in_facts() -> None:
    def asked(name: str, size: int, right: int) -> CandidateReport:
        greetings = gate("greetings", Status.PASS, "answers", right=right, n=50)
        return candidate(name, load(size), greetings, facts(100), depth="full")

    advice = recommend([asked("mute", 3_000_000_000, 30), asked("polite", 1_000_000_000, 49)])
    assert advice is not None and advice.best == "polite"
    assert "answers more greetings" in advice.ranking[1].reason


def test_a_folder_is_named_as_the_command_line_wants_it() -> None:
    local = candidate("my-big", load(3)).model_copy(update={"target": "--model-dir 'My Big'"})
    commands = [
        advice.next_command
        for depth in ("header", "twin", "full")
        if (advice := recommend([local.model_copy(update={"depth": depth})]))
    ]
    assert commands == [
        "harness vet --model-dir 'My Big' --depth twin",
        "harness vet --model-dir 'My Big' --depth full",
        "harness compare 'My Big' --adapter FOLDER --gguf",
    ]


def test_nothing_vetted_is_no_recommendation() -> None:
    assert recommend([]) is None


statuses = st.sampled_from(list(Status))


@given(
    st.lists(
        st.tuples(
            st.integers(1, 10**10),
            st.lists(statuses, max_size=4),
            st.none() | st.integers(0, 200),
            st.sampled_from(["header", "twin", "full"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_candidate_has_one_place_and_the_best_passes(
    drawn: list[tuple[int, list[Status], int | None, Depth]],
) -> None:
    candidates = [
        candidate(
            f"c{number}",
            load(size),
            *(gate(f"g{i}", status, "seen") for i, status in enumerate(found)),
            *([facts(right)] if right is not None else []),
            depth=depth,
        )
        for number, (size, found, right, depth) in enumerate(drawn)
    ]
    advice = recommend(candidates)
    assert advice is not None
    assert sorted(each.name for each in advice.ranking) == sorted(c.name for c in candidates)
    places = [each.place for each in advice.ranking if each.place is not None]
    assert places == list(range(1, len(places) + 1))
    assert all(each.reason for each in advice.ranking)
    if advice.best is not None:
        best = next(c for c in candidates if c.name == advice.best)
        assert advice.ranking[0].name == best.name
        assert all(g.status in (Status.PASS, Status.WARN, Status.NOT_RUN) for g in best.gates)
