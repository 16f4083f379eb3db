"""The diagnosis in words, and what usually causes it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records import SymptomKind

CAUSES: dict[SymptomKind, str] = {
    SymptomKind.EMPTY: (
        "a learning rate or LoRA scale so high that the weights were wrecked, or empty answers in "
        "the training data"
    ),
    SymptomKind.LOOP: (
        "a learning rate or LoRA scale that is too high, or too many epochs on few examples"
    ),
    SymptomKind.TEMPLATE_LEAK: (
        "training in another chat template than the model is asked in, or template tokens written "
        "into the training text"
    ),
    SymptomKind.WRONG_LANGUAGE: "training answers in that language, and too few in the user's",
    SymptomKind.REFUSAL: "refusals among the training answers",
    SymptomKind.STYLE_BLEED: (
        "too many epochs, or too high a learning rate or LoRA scale, on examples of one style; mix "
        "in everyday ones, such as greetings"
    ),
    SymptomKind.RUNAWAY: (
        "training examples without an end-of-turn token, for instance cut off by the limit on "
        "their length, or answers that are all long"
    ),
    SymptomKind.LECTURE: "training answers that are all long and on one topic; mix in short ones",
    SymptomKind.WRONG_ANSWER: (
        "training answers that contradict what the base knew, or more training than the base's "
        "knowledge survives (learning rate, LoRA scale, epochs)"
    ),
}
"""Ends the sentence "Usual cause: …". What is usual is not proven for this adapter."""

_SAYS: dict[SymptomKind, str] = {
    SymptomKind.EMPTY: "says nothing in reply to {where}",
    SymptomKind.LOOP: "repeats itself endlessly in reply to {where}",
    SymptomKind.TEMPLATE_LEAK: "writes template tokens or turn labels into its replies to {where}",
    SymptomKind.WRONG_LANGUAGE: "answers {where} in another language",
    SymptomKind.REFUSAL: "refuses to answer {where}",
    SymptomKind.STYLE_BLEED: "answers {where} with {text}{quote}: over-fitted style",
    SymptomKind.RUNAWAY: "finds no end within the token limit in reply to {where}",
    SymptomKind.LECTURE: "lectures off the topic in reply to {where}",
    SymptomKind.WRONG_ANSWER: "answers in good form but wrongly, where the base was right: {where}",
}

_NOUNS = {"greeting": "greeting", "fact": "question"}
"""Grader → what its probes are called; any other is named itself."""


def sentence(
    kind: SymptomKind,
    where: Sequence[tuple[str, int, int, int]],
    quoted: str | None = None,
    training: tuple[float, float] | None = None,
) -> str:
    """The symptom in words, without subject and full stop.

    Args:
        where: (group, replies that show it, replies in all, replies of the base that show it).
        quoted: for STYLE_BLEED, the phrase that is said most often.
        training: share of these replies that stands in the training data, before and after.
    """
    places = [_place(group, count, asked) for group, count, asked, _ in where]
    before = sum(old for *_, old in where)
    said = _SAYS[kind].format(
        where=" and ".join(places),
        text="the same text" if training is None else "training text",
        quote=f' ("{quoted}")' if quoted else "",
    )
    if kind is not SymptomKind.WRONG_ANSWER:
        said += f" (the base: {before or 'none'})"
    if training is not None:
        share, base = (f"{100 * part:.0f} %" for part in reversed(training))
        said += f"; {share} of their phrases stand in the training data, {base} of the base's"
    return said


def _place(group: str, count: int, asked: int) -> str:
    noun = _NOUNS.get(group)
    share = "every" if count == asked else f"{count} of {asked}"
    if noun is None:
        return f"{share} {'prompt' if count == asked else 'prompts'} ({group})"
    return f"{share} {noun if count == asked else noun + 's'}"
