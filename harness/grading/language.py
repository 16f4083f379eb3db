"""Is this text English? Function words and scripts, made for replies of a few words."""

from __future__ import annotations

import re
import unicodedata

from harness.grading.normalise import strip_accents, word_set

ENGLISH = word_set(
    """a about after all also am an and any are aren't as at be because been before being between
    both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during
    each few for from further had has have having he her here hers him his how i i'm i'll i've if
    in into is isn't it it's its just let's like many may me might more most must my no nor not of
    off on once one only or other our out over own same she should so some such than that that's
    the their them then there these they they're this those through to too under until up us very
    was wasn't we we're were what what's when where which while who whom whose why will with
    without won't would you you're you've your yours hello hi hey thank thanks welcome yes please
    good great day help today called made found used known body blood answer bye goodbye
    die come son plus war hat pour os men van sale pain main tag"""
)
"""Common words of English text, some of which are words of other languages too."""

_FOREIGN = {
    "French": """le la les l' d' qu' c' j' n' s' un une des du de et est sont que qui dans pour par
        avec sur pas ne plus ou où mais ce cette ces il elle ils elles nous vous je tu se sa ses son
        au aux en être été avoir ont fait comme aussi très bien oui non merci bonjour bonsoir salut
        votre mon ma mes leur leurs puis donc comment aujourd'hui aider peux puis-je c'est
        qu'il plaît désolé revoir""",
    "Spanish": """el la los las un una unos unas de del y es son que en por para con no se su sus al
        lo le les como más pero o este esta estos estas ese esa yo tú él ella nosotros usted ustedes
        muy también ya hay ser estar está están fue ha han hola gracias buenos buenas días tardes
        noches sí puedo ayudarte ayudar cómo qué cuál hoy tu entre cuando sobre siento""",
    "German": """der die das den dem des ein eine einen einem einer eines und ist sind war nicht mit
        von zu zum zur im in auf für als auch es er sie wir ihr ich du sich wird werden wurde hat
        haben kann können wie was oder aber bei nach aus durch über unter so sehr mein dein ihnen
        ihre hallo danke bitte guten tag morgen abend ja nein heute helfen mir dir wenn dass kein
        keine tut leid""",
    "Italian": """il lo la i gli le un uno una di del della dello dei degli delle e è sono che non
        con da dal dalla nel nella in su al alla come più ma anche si ci questo questa quello
        essere ha hanno io tu lui lei noi voi loro ciao grazie buongiorno buonasera sì oggi posso
        aiutarti aiutare molto bene ti prego dispiace l' dell' nell' all' un' quest'""",
    "Portuguese": """o a os as um uma uns umas de do da dos das e é são que não em no nos nas por
        para com se seu sua ao à como mais mas ou este esta isso eu você ele ela nós eles muito
        também já há ser estar está foi tem olá obrigado obrigada bom boa dia tarde noite sim posso
        ajudar hoje pelo pela desculpe""",
    "Dutch": """de het een en van is zijn dat die in op te met voor niet aan er om door als ook bij
        maar of uit dan naar over je jij ik hij zij wij we u uw mijn wordt worden werd heeft hebben
        kan kunnen wat wie hoe deze dit geen hallo dank bedankt goedemorgen goedenavond ja nee
        vandaag helpen goed alstublieft spijt""",
}  # fmt: skip
_WORDS = {name: word_set(words) for name, words in _FOREIGN.items()}

_PARTICLES = word_set("da de di del della van von der den la le el du dos das do y e al")
"""Words that are also parts of names; between two capitalised words they prove nothing."""

_ROMANCE_ARTICLES = frozenset({"la", "le", "el", "los", "las", "de"})
"""Before a capital they open a name (Las Vegas, Le Mans); before a small letter, a noun phrase."""

_WORD = re.compile(r"(?:\b(?:[cdjlmnst]|qu|dell|nell|all|un|quest)')?[^\W\d_]+(?:'[^\W\d_]+)?")
_ELIDED = re.compile(r"((?:[cdjlns]|qu|dell|nell|all|un|quest)')([^\W\d_]{2,}.*)")
_WIDE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def foreign_language(text: str, *, known: re.Pattern[str] | None = None) -> str | None:
    """Name of the language `text` is in where that is not English, else None.

    Undecidable text (one word, a name, figures) counts as English, since graders then compare it
    with English aliases anyway. What `known` matches (accepted answers) proves nothing either way.
    """
    script = _foreign_script(text)
    if script:
        return script
    words = _split(known.sub(" ", text) if known else text)
    english = sum(word.casefold() in ENGLISH for word in words)
    best, hits = _best_foreign(words)
    if hits > english:
        return best
    if english == 0 and len(words) >= 4 and _accented_share(words) >= 0.25:
        return "another language"
    return None


def accented_spelling(raw: str, alias: str) -> bool:
    """True where `raw` is an accented spelling of the uncapitalised English word `alias`.

    "Pancréas" is French for "pancreas"; "Guillain-Barré" is also how English writes the name.
    """
    spelled = raw.casefold().replace("œ", "oe").replace("æ", "ae")
    return (
        not spelled.isascii()
        and strip_accents(spelled) != spelled
        and alias.islower()
        and alias.isascii()
    )


def _split(text: str) -> list[str]:
    words: list[str] = []
    for word in _WORD.findall(text.replace("’", "'")):
        elided = _ELIDED.fullmatch(word.casefold())
        if elided and word.casefold() not in ENGLISH:
            words += [elided.group(1), word[len(elided.group(1)) :]]
        else:
            words.append(word)
    return words


def _best_foreign(words: list[str]) -> tuple[str | None, int]:
    counted = [w.casefold() for i, w in enumerate(words) if not _no_evidence(words, i)]
    best: str | None = None
    most = 0
    for name, vocabulary in _WORDS.items():
        hits = sum(word in vocabulary for word in counted)
        if hits > most:
            best, most = name, hits
    return best, most


def _no_evidence(words: list[str], i: int) -> bool:
    word = words[i].casefold()
    following = words[i + 1][:1] if i + 1 < len(words) else ""
    if len(word) == 1 and word.isascii() and (words[i].isupper() or not following):
        return True  # a letter standing for something, such as vitamin E
    if len(word) <= 3 and words[i].isupper() and not "".join(words).isupper():
        return True  # an abbreviation: SA node
    if word in _ROMANCE_ARTICLES and i == 0 and following.isupper():
        return True
    return word in _PARTICLES and i > 0 and words[i - 1][:1].isupper() and following.isupper()


def _accented_share(words: list[str]) -> float:
    return sum(not w.isascii() for w in words) / len(words)


def _foreign_script(text: str) -> str | None:
    if text.isascii():
        return None
    latin = 0
    other: dict[str, int] = {}
    for char in text:
        if not char.isalpha():
            continue
        name = unicodedata.name(char, "")
        script = name.split(" ")[0].split("-")[0]
        if script in {"LATIN", "FEMININE", "MASCULINE", "MICRO", "DEGREE"}:
            latin += 1
        else:
            # One ideograph or syllable block carries about as much as two letters.
            other[script] = other.get(script, 0) + (2 if script in _WIDE else 1)
    total = sum(other.values())
    if total < 2 or total <= 0.5 * (latin + total):
        return None
    return f"{max(other, key=lambda script: other[script]).title()} script"
