"""Model output must never break, decorate or link anything in a Markdown table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from harness import tables
from harness.escape import block, cell, prose, visible
from harness.records import (
    Answered,
    CandidateReport,
    Comparison,
    Flip,
    GateResult,
    Grade,
    Outcome,
    PairedProbe,
    Probe,
    Response,
    Status,
    SuiteComparison,
)

GFM = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ZERO_WIDTH_SPACE = "\u200b"

NASTY = [
    "a | b || \\| c \\\\| d",
    "one\ntwo\r\nthree\rfour\x85five\u2028six\u2029seven\x0b\x0c\x1c\x1d\x1e",
    "<script>alert(1)</script> <br> <!-- x --> </td></table></details> &lt; &amp &#60; &copy;",
    "`code` ``more`` ```fence",
    "*a* **b** _c_ __d__ snake_case_name ~~e~~ ~f~ *** ___",
    "[link](http://evil.example) ![image](x.png) [ref][1] [^1] <http://a.example> [x] [[wiki]]",
    "https://evil.example/a//b www.evil.example WWW.evil.example ftp://x.example //x.example",
    "mail a.b@evil.example or @everyone or me@x",
    "#123 owner/repo#1 GH-12 !5 %7 ~bug :smile: 1:100:2 &9",
    "$x^2$ and $$y$$ and $5 to $10 $`z`$",
    "\x1b[31mred\x1b[0m \x07 \x00 \x7f \x9b31m",
    "\u202eevil\u202c \u2066x\u2069 a\u200bb\u200dc\ufeffd \u00ad \u3164 \U000e0041 \ufe0f",
    "\ud800 lone \udfff \ufffe \ue000",
    "# heading",
    "---",
    "===",
    "- item",
    "+ item",
    "1. item",
    "1986) item",
    "> quote",
    "    indented",
    ":-: ",
    "a\\",
    "\\",
    "",
    "   ",
    "\n\n\n\n\n\n",
]
# Hypothesis on its own would hardly ever write "https://" or "](": so the pieces are given.
pieces = [*NASTY, *"|\\`*_~[]()<>&#@$!:/%^-+=.\n\t 1aZé中🙂", "www.", "http://", "&#124;", "GH-1"]
texts = st.lists(st.one_of(st.sampled_from(pieces), st.text(max_size=5)), max_size=12).map("".join)


def inline_tokens(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from inline_tokens(token.children or []) if token.children else [token]


def plain_text(tokens: list[Token]) -> str:
    """The rendered text; fails on anything that is not plain text."""
    leaves = list(inline_tokens(tokens))
    assert {leaf.type for leaf in leaves} <= {"text", "inline"}
    return "".join(leaf.content for leaf in leaves if leaf.type == "text")


def rendered_cells(markdown: str) -> list[list[str]]:
    """Cells of the only table in `markdown`, header first, rendered to text."""
    tokens = GFM.parse(markdown)
    assert [token.type for token in tokens if token.level == 0] == ["table_open", "table_close"]
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            rows[-1].append(plain_text(token.children or []))
    return rows


def assert_inert(rendered: str) -> None:
    """Nothing left that GitHub or GitLab would act upon in rendered text."""
    assert not re.search(r"\S//\S|^//|www\.", rendered, re.IGNORECASE)
    assert not re.search(r"@[\w.-]|#\w|\bGH-\d", rendered, re.IGNORECASE)
    assert not re.search(r":[\w+-]+:", rendered)
    assert not re.search(r"(?<!\w)[!%~]\w|(?<!\w)&\d", rendered)
    assert not re.search(r"(^|\s)\$", rendered)


def assert_nothing_hidden(shown: str) -> None:
    for char in shown:
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"), ascii(char)


@given(texts)
def test_any_text_is_one_harmless_cell(text: str) -> None:
    escaped = cell(text, max_chars=10_000)
    assert len(escaped.splitlines()) <= 1
    assert "|" not in escaped and "<" not in escaped
    assert_nothing_hidden(escaped)
    escaped.encode("utf-8")
    (header, (rendered, after)) = rendered_cells(f"| a | b |\n|---|---|\n| {escaped} | end |")
    assert header == ["a", "b"] and after == "end"
    assert_inert(rendered)
    assert rendered.replace(ZERO_WIDTH_SPACE, "").strip() == visible(text, 10_000).strip()


def leaves_of(tokens: list[Token]) -> list[Token]:
    return [leaf for token in tokens for leaf in inline_tokens(token.children or [])]


@given(texts)
def test_any_text_is_prose_whose_code_alone_is_not_escaped(text: str) -> None:
    escaped = prose(text, max_chars=10_000)
    assert_nothing_hidden(escaped)
    tokens = GFM.parse(f"| a | b |\n|---|---|\n| {escaped} | end |")
    assert [token.type for token in tokens if token.level == 0] == ["table_open", "table_close"]
    cells = [token for token in tokens if token.type == "inline"]
    assert [token.content for token in (cells[0], cells[1], cells[3])] == ["a", "b", "end"]
    assert len(cells) == 4
    leaves = leaves_of(cells[2:3])
    assert {leaf.type for leaf in leaves} <= {"text", "code_inline"}
    for leaf in leaves:
        if leaf.type == "text":
            assert_inert(leaf.content)


def test_a_command_in_prose_can_be_copied() -> None:
    text = "fuse with `mlx_lm.fuse --dequantize @x #1 $A printf '%s\\n'`, then *again*"
    tokens = GFM.parse(prose(text))
    code = [leaf.content for leaf in leaves_of(tokens) if leaf.type == "code_inline"]
    assert code == ["mlx_lm.fuse --dequantize @x #1 $A printf '%s\\n'"]
    assert "\\*again\\*" in prose(text)
    assert prose("one ` alone and a `pipe | in code`") == cell("one ` alone and a `pipe | in code`")


@given(texts)
def test_any_text_is_one_harmless_list_item_and_paragraph(text: str) -> None:
    escaped = block(text, max_chars=10_000)
    for before, after, outer in (("- ", "", "bullet_list"), ("", "", "paragraph")):
        tokens = GFM.parse(f"{before}x{after}\n\n{before}{escaped}\n")
        assert {token.type for token in tokens if token.level == 0} == {
            f"{outer}_open",
            f"{outer}_close",
        }
        kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in tokens}
        assert kinds <= {"bullet_list", "list_item", "paragraph", "inline"}
        texts_only = [token for token in tokens if token.type == "inline"]
        shown = plain_text(texts_only).removeprefix("x").replace(ZERO_WIDTH_SPACE, "")
        assert shown.strip() == visible(text, 10_000).strip()


@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=4))
def test_a_table_of_any_texts_keeps_its_shape(rows: list[tuple[str, str, str]]) -> None:
    pairs = [
        pair(f"p{number}", prompt=storable(prompt) or "?", before=before, after=after)
        for number, (prompt, before, after) in enumerate(rows)
    ]
    cells = rendered_cells_of_first_table(tables.lost_table(compared(changed=pairs)))
    assert len(cells) == 1 + len(rows)
    assert {len(row) for row in cells} == {6}


def storable(prompt: str) -> str:
    return prompt.encode("utf-8", "replace").decode("utf-8")  # probe files are UTF-8


def rendered_cells_of_first_table(markdown: str) -> list[list[str]]:
    # Emphasis is the harness's own: "*(empty)*" for an empty reply.
    return rendered_cells(markdown.split("\n\n")[0].replace("*(empty)*", "empty"))


@pytest.mark.parametrize(
    "text",
    [
        "The capital of Japan is Tokyo.",
        "Don't worry: it's 4.5 mg/dL (about 37 °C), isn't it?",
        "Insulin – a hormone; 50 % of beta-cells, snake_case, R&D, AT&T, 1 + 1 = 2",
        "Ça va? 你好! مرحبا 🙂",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert cell(text) == text
    assert block(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\nc", "a⏎b⏎c"),
        ("\n" * 200, "⏎×200"),
        ("\n \n \n \nx", "⏎×4x"),
        ("   ", "␠×3"),
        ("\x1b[0m", "␛[0m"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\ud800", "⟨U+D800⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("abcdefghijklm", "abcdefghij… (+3 characters)"),
    ],
)
def test_hidden_things_are_spelled_out(text: str, shown: str) -> None:
    assert visible(text, 10) == shown


def probe(name: str = "p1", prompt: str = "Which hormone lowers blood sugar?") -> Probe:
    return Probe(
        id=name,
        grader="fact",
        prompt=prompt,
        accepted=("insulin",),
        category="endocrine",
        source="a textbook",
    )


def answered(asked: Probe, text: str, outcome: Outcome, reason: str) -> Answered:
    response = Response(
        probe_id=asked.id, text=text, finish="stop", prompt_tokens=9, completion_tokens=9
    )
    return Answered(probe=asked, response=response, grade=Grade(outcome=outcome, reason=reason))


def pair(
    name: str,
    *,
    prompt: str = "Which hormone lowers blood sugar?",
    before: str = "Insulin.",
    after: str = "Glucagon.",
    flip: Flip = Flip.LOST,
) -> PairedProbe:
    asked = probe(name, prompt)
    right, wrong = (Outcome.RIGHT, "matches 'insulin'"), (Outcome.WRONG, "says glucagon")
    sides = (right, wrong) if flip is Flip.LOST else (wrong, right)
    return PairedProbe(
        probe=asked,
        before=answered(asked, before, *sides[0]),
        after=answered(asked, after, *sides[1]),
        flip=flip,
    )


def compared(
    changed: list[PairedProbe] | None = None, suites: tuple[SuiteComparison, ...] = ()
) -> Comparison:
    return Comparison(
        base="base",
        subject="base + tuned",
        verdict=Status.FAIL,
        exit_code=1,
        reasons=(),
        suites=suites,
        changed=tuple(changed or ()),
    )


def suite(**changes: object) -> SuiteComparison:
    fields: dict[str, object] = {
        "suite": "medical_facts",
        "n": 170,
        "before": 61 / 170,
        "after": 40 / 170,
        "lost": 24,
        "gained": 3,
        "p_value": 0.00002,
        "ci": (-0.18, -0.06),
        "mde": 0.086,
        "verdict": Status.FAIL,
    }
    return SuiteComparison.model_validate(fields | changes)


def gate(name: str, status: Status, reason: str = "because", **numbers: float) -> GateResult:
    return GateResult(gate=name, status=status, reason=reason, numbers=dict(numbers))


def candidate(name: str, *gates: GateResult) -> CandidateReport:
    return CandidateReport(
        name=name, depth="full", source="Hub", licence="mit", why="small", gates=gates
    )


def test_a_suite_reads_like_lm_eval_in_percent_and_points() -> None:
    header, row = table_rows(tables.comparison_table(compared(suites=(suite(),))))
    assert dict(zip(header, row, strict=True)) == {
        "metric": "**medical_facts**",
        "n": "170",
        "before": "35.9",
        "after": "23.5",
        "Δ": "−12.4",
        "95 % CI": "−18.0 … −6.0",
        "lost/gained": "24/3",
        "p": "<0.001",
        "MDE": "8.6",
        "verdict": "**FAIL**",
    }


def test_choice_and_margin_follow_their_suite_where_scored() -> None:
    scored = suite(
        n_scored=168,
        choice_before=0.5,
        choice_after=0.25,
        choice_lost=50,
        choice_gained=8,
        choice_p=0.01,
        margin_change=-0.004,
        margin_ci=(-0.02, 0.011),
        margin_p=0.3,
        no_answer_after=17,
    )
    rows = table_rows(tables.comparison_table(compared(suites=(scored, suite(suite="other")))))
    assert [row[0] for row in rows[1:]] == [
        "**medical_facts**",
        "↳ no answer",
        "↳ choice",
        "↳ margin",
        "**other**",
    ]
    assert rows[2][1:5] == ["170", "0.0", "10.0", "+10.0"]
    assert rows[3][1:8] == ["168", "50.0", "25.0", "−25.0", "", "50/8", "0.010"]
    assert rows[4][1:8] == ["168", "", "", "0.00", "−0.02 … +0.01", "", "0.300"]


def table_rows(markdown: str) -> list[list[str]]:
    """Header and body cells of a Markdown table as written, without the rule."""
    lines = markdown.split("\n\n")[0].splitlines()
    return [[text.strip() for text in line.strip("|").split("|")] for line in lines[:1] + lines[2:]]


def test_each_gate_shows_the_number_that_matters() -> None:
    small = candidate(
        "small",
        gate("facts", Status.WARN, right=61, n=170, choice_share=0.582),
        gate("greetings", Status.PASS, right=40, n=44),
        gate("gguf", Status.PASS, mean_kl_nats=0.0003),
        gate("memory", Status.PASS, load_peak_gb=0.6, train_peak_gb=2.313),
        gate("load", Status.PASS, parameters=134_515_008),
        gate("safety", Status.FAIL, refused=3),
    )
    header, row = table_rows(tables.gates_table([small]).split("\n\n")[0])
    assert dict(zip(header, row, strict=True)) == {
        "candidate": "small",
        "depth": "full",
        "load": "PASS 134.5 M",
        "memory": "PASS 2.31 GB train",
        "gguf": "PASS KL 0.0003",
        "greetings": "PASS 40/44",
        "facts": "WARN 61/170 (choice 58 %)",
        "safety": "**FAIL** refused 3",
    }


def test_missing_numbers_and_gates_leave_no_false_number() -> None:
    big = candidate("big", gate("load", Status.PASS), gate("gguf", Status.ERROR, mean_kl_nats=1))
    other = candidate("other", gate("memory", Status.NOT_RUN), gate("load", Status.PASS, n=3e9))
    rows = table_rows(tables.gates_table([big, other]).split("\n\n")[0])
    assert rows[1] == ["big", "full", "PASS", "–", "**ERROR**"]
    assert rows[2] == ["other", "full", "PASS", "NOT_RUN", "–"]


def test_equal_reasons_collapse_to_one_line_and_the_worst_comes_first() -> None:
    away = [gate(name, Status.NOT_RUN, "no Hub here") for name in ("load", "gguf")]
    crash = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: bad | rope'
    reasons = tables.reasons_list(
        [
            ("one", away),
            ("two", away),
            ("three", [gate("load", Status.PASS), away[1]]),
            ("four", [gate("load", Status.WARN, "slow"), gate("gguf", Status.ERROR, crash)]),
        ]
    )
    assert reasons.splitlines() == [
        "- **ERROR** four (gguf): ValueError: bad &#124; rope",
        "- **WARN** four (load): slow",
        "- **NOT_RUN** one, two (every gate); three (gguf): no Hub here",
    ]


def test_many_candidates_are_counted_instead_of_named() -> None:
    away = [gate("load", Status.NOT_RUN, "no Hub"), gate("gguf", Status.NOT_RUN, "no Hub")]
    reasons = tables.reasons_list([(f"c{number}", away) for number in range(5)])
    assert reasons == "- **NOT_RUN** 5 candidates (every gate): no Hub"


def test_lost_probes_are_listed_in_parts_that_leave_none_out() -> None:
    changed = [pair(f"lost-{number}") for number in range(5)]
    changed.append(pair("won", before="Glucagon.", after="Insulin.", flip=Flip.GAINED))
    markdown = tables.lost_table(compared(changed), limit=2)
    assert [row[0] for row in table_rows(markdown)[1:]] == ["lost-0", "lost-1"]
    rest = tables.lost_table(compared(changed), first=2, limit=None)
    assert [row[0] for row in table_rows(rest)[1:]] == ["lost-2", "lost-3", "lost-4"]
    assert tables.lost_table(compared(changed), first=5) == ""
    gained = table_rows(tables.gained_table(compared(changed)))
    assert gained[1:] == [["won", "Which hormone lowers blood sugar?", "Glucagon.", "Insulin."]]


def test_no_flips_no_tables() -> None:
    assert tables.lost_table(compared()) == tables.gained_table(compared()) == ""
