"""Refusals, admissions of ignorance and referrals: clauses that answer nothing."""

from __future__ import annotations

import re

_I = r"\b(?:i|we)(?:'m| am|'re| are)?"
_REFUSAL = re.compile(
    "|".join(
        (
            rf"{_I} (?:really |just |currently )?(?:do not|don't|dont|cannot|can't|cant|can not"
            r"|could not|couldn't|won't|will not|would not|wouldn't|am not able|(?:am )?unable)"
            r" (?:\w+ ){0,2}?(?:know|help|answer|assist|provide|give|tell|offer|say|discuss|comply|"
            r"share|respond|recall|remember|support|engage|fulfil+|do that|advise|diagnose"
            r"|have (?:\w+ ){0,3}?(?:information|access|answer|ability|capability"
            r"|capacity|knowledge|data|details|idea|exact))",
            r"\b(?:i'm|i am|we're|we are) (?:afraid |sorry )?(?:not able|unable|not allowed|not "
            r"qualified|not permitted|not a (?:doctor|medical|physician|health)|not sure|unsure|"
            r"uncertain|not certain|not familiar|not aware|not programmed|not comfortable)",
            r"\b(?:i have|i've got|i had) no (?:idea|information|clue|knowledge)",
            r"\bno idea\b",
            r"\bit (?:is|would be) (?:not appropriate|inappropriate|not possible) (?:for me )?to\b",
            r"\bi (?:must|have to) (?:decline|refuse)",
            r"\b(?:against|violates?) my (?:\w+ )?(?:guidelines|polic|programming)",
            r"\b(?:as an?|i'm (?:just |only )?an?|i am (?:just |only )?an?) (?:ai|artificial "
            r"intelligence|large language|language) ?(?:language )?(?:model|assistant)?"
            r"[^.]{0,60}(?:not|n't|no|unable)\b",
        )
    ),
    re.IGNORECASE,
)
_REFERRAL = re.compile(
    r"\b(?:please|you should|i (?:recommend|suggest|advise)|it is (?:best|advisable) to)"
    r" (?:\w+ ){0,4}?(?:consult|ask|see|seek|contact|speak|talk|visit|consulting|seeking)"
    r" (?:\w+ ){0,5}?(?:doctor|physician|professional|provider|pharmacist|specialist|expert"
    r"|advice|nurse)",
    re.IGNORECASE,
)
_APOLOGY = re.compile(
    r"\W*(?:(?:i'm|i am|we're|we are)? ?(?:so |very |really |truly )?sorry|i apologi[sz]e"
    r"|my apologies|apologies|unfortunately|as an? (?:ai|artificial intelligence|language"
    r" model)[\w ]*)"
    r"(?: about that| for (?:the|any) \w+)?\W*",
    re.IGNORECASE,
)
_CONTRAST = re.compile(
    r"[,;]?\s*\b(?:but|however|although|nevertheless|that said)\b[,:]?\s*"
    r"|[,;]\s*(?=(?:maybe|perhaps|probably|possibly|it's|it is|it might|it could|it may)\b"
    r"|i (?:think|believe|guess|would say)\b)",
    re.IGNORECASE,
)


def is_refusal(clause: str) -> bool:
    """True where the clause declines, admits ignorance or apologises."""
    return bool(_REFUSAL.search(clause)) or bool(_APOLOGY.fullmatch(clause))


def is_referral(clause: str) -> bool:
    """True where the clause sends the reader to a professional: "please ask your doctor"."""
    return bool(_REFERRAL.search(clause))


def without_refusals(sentence: str, *, keep_referrals: bool = False) -> tuple[str, bool]:
    """(what is left of the sentence, whether anything was taken out).

    "I'm not a doctor, but insulin lowers it" → ("insulin lowers it", True). With
    `keep_referrals`, "see a doctor" may itself be the answer and stays.
    """

    def empty(clause: str) -> bool:
        return is_refusal(clause) or (not keep_referrals and is_referral(clause))

    if not empty(sentence):
        return sentence, False
    kept = [c for c in _CONTRAST.split(sentence) if c.strip() and not empty(c)]
    return " ".join(kept), True
