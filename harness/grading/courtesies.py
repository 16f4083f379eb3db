"""The words of courtesy: what fits which greeting, and what gives a lecture away.

Vocabulary only; `greetings.py` decides with it.
"""

from __future__ import annotations

import re


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE | re.MULTILINE)


_GLAD = r"(?:nice|pleasure|pleased|lovely|great|good|wonderful|delighted|happy|glad|honou?r(?:ed)?)"
_PRAISE = (
    r"(?:well|good|great|fine|okay|ok|fantastic|wonderful|excellent|perfect|alright|all right)"
)
_BE = r"(?:i'?m|i am|we'?re|we are)"
_NO_WORD = r"(?! (?:by|is|was|means|comes)\b)"
"""After a salute: the reply speaks of the word ("hello is a greeting") instead of using it."""
_THANKS = r"thank(?:s| you)"

SALUTE = _any(
    r"^\W*(?:oh,? |well,? |why,? |yes[,!.]? |and )?(?:hello+|hi+|hey+|hiya|howdy|greetings|hullo)\b"
    rf"{_NO_WORD}",
    rf"^\W*(?:salutations|g'day|yo|welcome|helo|hallo there|hola,? \w+)\b{_NO_WORD}",
    r"^\W*(?:a )?(?:very )?good (?:morning|afternoon|evening|day)\b",
    r"^\W*(?:morning|evening|afternoon)\W",
    rf"\b{_GLAD} to (?:finally )?(?:meet|see|hear|have|know|talk|chat|speak|assist|help|be)\b",
    rf"\b{_GLAD} (?:meeting|seeing|hearing|you'?re here)\b",
    r"(?<!you're )(?<!you are )(?<!very )(?<!most )\bwelcome\b",
)
OFFER = _any(
    r"\b(?:how|what) (?:can|may|could|shall|might|would you like|else)\b",
    r"\bwhat (?:are you|do you|would you|brings you)\b",
    r"\bwhat(?:'s| is) on your mind\b",
    r"\b(?:can|may|could|shall) i (?:help|assist|do|be of)\b",
    rf"\b{_BE}(?: \w+)?(?: also| always| all| right)? (?:here|ready|happy|glad|available|able|eager"
    r"|delighted|excited|at your service|all ears|listening)\b",
    r"\bhere to (?:help|assist|support|listen|answer|chat)\b",
    r"\bhappy to (?:help|assist|chat)\b",
    r"\b(?:i can|i'd love to|let me) (?:help|assist|answer)\b",
    r"\b(?:i'd be|i would be|i'll be) (?:happy|glad|delighted) to\b",
    r"\blet me know\b",
    r"\bfeel free\b",
    r"\b(?:just ask|ask away|ask (?:me )?(?:anything|your))\b",
    r"\b(?:is|was) there (?:anything|something)\b",
    r"\banything (?:else )?(?:i can|you need|you'd like)\b",
    r"\bat your service\b",
    r"\bgo ahead\b",
)
WELL = _any(
    rf"\b(?:{_BE}|am|things are|everything is|everything's|all is|it'?s|it is|life is|feeling)"
    r"(?: just| all| doing| going| feeling| very| pretty| really| quite| so| functioning| running"
    rf"| working| as)* (?:{_PRAISE}|smoothly|properly|splendid|happy|awesome|amazing|alive)\b",
    rf"^\W*(?:doing |going |pretty |very |quite |all )?(?:{_PRAISE}|not (?:too )?bad"
    r"|can't complain)\b(?! (?:morning|evening|afternoon|day|night|question|idea|news))",
    rf"\b{_THANKS}(?: so much| very much)? for asking\b",
    r"\bi'?m an? (?:\w+ ){0,4}(?:ai|assistant|chatbot|language model|computer program)\b",
    r"\b(?:not much|nothing (?:much|new)|and you|(?:how|what) about you|how are you)\b",
    r"\bhow(?:'s| is) (?:it going|your day)\b",
    r"\bfeelings\b",
)
WELCOME = _any(
    r"\byou'?(?:re| are)(?: very| most| so| always| quite| more than)* welcome\b",
    r"^\W*welcome\b",
    r"\bno (?:problem|worries|trouble)\b",
    r"\b(?:my|a) pleasure\b",
    r"\b(?:any ?time|of course|sure thing|not at all|it was nothing|cheers)\b",
    rf"\b{_GLAD} (?:i |that |to |it |you |could )",
    r"\bdon'?t mention it\b",
    rf"\b{_THANKS} (?:for|too|so much for|as well)\b",
    r"\bi appreciate (?:it|your|that|the)\b",
    r"\bthat'?s (?:great|kind|wonderful|very)\b",
)
FAREWELL = _any(
    r"\b(?:good ?-?bye?|bye+|farewell|so long|cheerio|ta-ta|adieu|take care)\b",
    r"\b(?:see|talk|speak|catch|chat|meet) (?:to |with )?(?:you|ya)\b",
    r"\b(?:have|enjoy) (?:an? |your |the )?(?:\w+ ){0,2}(?:day|evening|night|one|time|weekend|rest"
    r"|week|trip|afternoon|morning)\b",
    r"\b(?:until|till) (?:next|we|then|tomorrow|later|soon)\b",
    r"\b(?:good ?night|sleep well|sweet dreams|rest well|stay safe|be well|best wishes|good luck"
    r"|all the best)\b",
    r"\b(?:nice|great|good|lovely|pleasure) (?:talking|chatting|meeting|speaking)\b",
    r"\b(?:you too|same to you|you as well|tomorrow)\b",
    r"\b(?:later|cheers)\W*$",
)
PRESENT = _any(
    r"^\W*(?:yes|yeah|yep|sure|of course|certainly|absolutely|definitely|no problem)\b",
    rf"\b{_BE}(?: right| still| always)? (?:here|listening|ready|available)\b",
    r"\bi can (?:hear|read|see) you\b",
)
INTRODUCED = _any(
    r"\bmeet you too\b",
    rf"\b{_THANKS} for (?:introducing|sharing|reaching|coming|contacting)\b",
)

ANY = (SALUTE, OFFER, WELL)
FORMULAS: dict[str, tuple[re.Pattern[str], ...]] = {
    "hello": ANY,
    "time_of_day": (*ANY, _any(r"\bhave an? (?:\w+ )?(?:day|evening|morning)\b")),
    "good_night": (OFFER, FAREWELL),
    "how_are_you": ANY,
    "thanks": (WELCOME, OFFER),
    "goodbye": (FAREWELL, OFFER),
    "introduction": (*ANY, INTRODUCED),
    "availability": (*ANY, PRESENT),
}
"""Kind of greeting → courtesy formulas that answer it."""

KEYWORDS = (
    ("thanks", ("thanks", "thank you", "thnks", "thx", "appreciate")),
    ("good_night", ("good night", "goodnight", "sleep well")),
    ("how_are_you", ("how are you", "how's it going", "how is it going", "what's up")),
    ("goodbye", ("goodbye", "bye", "see you", "farewell", "have a nice day", "take care")),
    ("introduction", ("my name is", "i'm new", "nice to meet")),
    ("time_of_day", ("good morning", "good evening", "good afternoon", "good day")),
)
"""Kind → words that give it away in a prompt whose category does not name the kind."""

TOPIC = _any(
    r"\b(?:insulin|glucose|glycogen|diabet\w+|prediabetes|fasting|fasted|sugars?|carbs"
    r"|carbohydrates?|proteins?|hormon\w+|metaboli\w+|diseases?|symptoms?|patients|diets?|dietary"
    r"|calor\w+|ket\w*sis|ketones?|cholesterol|blood|kidneys?|livers?|pancreas|cells?|vitamins?"
    r"|medications?|drugs?|doses?|treatments?|therap\w+|obes\w+|weight|eating|meals?|foods?"
    r"|hypertension|diagnos\w+|infections?|cancers?|virus\w*|bacteri\w+|receptors?|tissues?|organs?"
    r"|muscles?|fats?|inflammation|surgery)\b",
)
"""Medical subject matter; a greeting has no reason to state anything about it."""

LECTURE = _any(
    r"\byou (?:have|need|must|ought)(?: to)? (?:\w+ )?(?:understand|know|remember|reali[sz]e|learn"
    r"|stop|start)\b",
    r"\b(?:it|that)(?:'s| is) all about\b",
    r"\bthe (?:key|truth|point|fact|problem|secret|answer|reason|root cause) is\b",
    r"\bremember(?: that|,)",
    r"\bit is (?:important|essential|crucial) to\b",
    r"\blet me (?:explain|tell you)\b",
    r"\b(?:first of all|think of it|in other words|results? in|is defined as)\b",
    r"\bis (?:caused|characteri[sz]ed) by\b",
)
LETTER = _any(
    r"^\W*(?:dear\b|subject\s*:)",
    r"\b(?:sincerely|best regards|kind regards|yours truly|yours faithfully)\b",
    r"\bthis (?:email|e-mail|letter|message) finds you\b",
)
