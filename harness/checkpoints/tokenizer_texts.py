"""Texts on which two tokenizers are compared: chosen to find differences, not to be typical.

What tells tokenizers apart is what their rules disagree on: runs of spaces and newlines, digits,
contractions, letters of many scripts, marks that combine, symbols outside the basic plane, and
words that are the name of a special token.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_MEDICINE = (
    "The heart pumps blood through the arteries, and the veins bring it back.",
    "Insulin is made by the beta cells of the pancreas; glucagon by the alpha cells.",
    "hydroxychloroquine acetylsalicylic methylprednisolone",
    "HbA1c 48 mmol/mol, LDL-C 2.6 mmol/L, K+ 4.1 mEq/L, pO2 95 mmHg",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "Amoxicillin/clavulanate 875 mg/125 mg PO BID x 7 d",
    "NaCl 0.9% 1000 mL IV over 8h (125 mL/h)",
    "levothyroxine 88 µg p.o. q.d. a.c.",
    "BP 120/80 mmHg, HR 72/min, SpO₂ 98 %, T 36.6°C",
    "esophagogastroduodenoscopy, cholangiopancreatography, laryngopharyngectomy",
    "Henoch–Schönlein purpura; Guillain-Barré; Sjögren's; Ménière's disease",
    "α-synuclein, β₂-microglobulin, γ-GT, Δ9-THC, κ-opioid, TNF-α, IL-1β",
    "p<0.001 (95% CI 1.24–3.87; I²=42%)",
    "c.1521_1523delCTT p.(Phe508del) rs113993960 chr7:117559590",
    "ICD-10: E11.9, I21.4, J45.909; SNOMED 44054006",
    "Rx: 2 tabs t.i.d. p.r.n.; max. 8/24h!",
    "eGFR≥60 mL/min/1.73m²  Cr=1.1mg/dL",
    "ΔG°′ = −30.5 kJ/mol; pH≈7.4; [Ca²⁺]ᵢ ~100 nM",
    "Trimethoprim-sulfamethoxazole DS 1-0-1, stop on day 5.",
    "WBC 11.2×10⁹/L ↑, Hb 9.8 g/dL ↓, Plt 180 ↔",
)

_NUMBERS = (
    "0", "7", "42", "100", "1234", "12345", "123456", "1234567", "12345678901234567890",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F 6.022e23",
    "In 1928 a mould in a forgotten dish killed the bacteria around it.",
    "Water boils at 100 °C (212 °F) at sea level, and at about 93 °C at 2,000 metres.",
    "3.5 - 2 = 1.5; 7×8=56; 10÷4=2.5; 2^10=1024; √2≈1.414",
    "$1,299.99 €1.299,99 £0.50 ¥5000 ₹10,00,000",
    "2026-11-23T07:15:00Z 23/11/2026 11-23-26 7:05pm 19:05:59.123",
    "+49 (0)89 1234-5678 ext. 90",
    "v1.2.3-rc.4+build.567", "192.168.0.1:8080", "fe80::1ff:fe23:4567:890a",
    "1st 2nd 3rd 4th 21st 100th", "½ ¼ ¾ ⅓ ⅔ ⅛", "Ⅳ Ⅸ ⅻ MCMXCIX",
    "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５", "x² + y³ = z⁴, a₁b₂c₃",
    "1000000000 1_000_000 1'000'000 1 000 000", "-1 - 1 -- 1 --- 1", "1.2.3.4.5.6.7.8.9",
    "00000000", "1e-10 1E+5 .5 5. 0.0001", "007 is not 7", "a1b2c3 1a2b3c",
)  # fmt: skip

_SPACES = (
    "   leading and trailing spaces   ",
    "tabs\tand\nnewlines\r\n\r\nand more\n\n\n",
    " ", "  ", "   ", "    ", "        ", " " * 33,
    "\n", "\n\n", "\n\n\n", "\n" * 9, "\r\n", "\r", "\r\r\n\n",
    "\t", "\t\t", "\t\t\t\t", " \t \t ", "\n \n", " \n", "\n ", "  \n  \n  ",
    "a b  c   d    e     f      g", "a\nb\n\nc\n\n\nd", "a\tb\t\tc\t\t\td",
    "one \ntwo  \n\nthree\t\n", "word   \n   word", "end with spaces   ", "end with newline\n",
    "   start", "\n\nstart", "\t indented", "no\u00a0break and\u202fnarrow",
    "em\u2003space, thin\u2009space, hair\u200aspace, ideographic\u3000space",
    "zero\u200bwidth, joiner\u200d, non-joiner\u200c, mark\ufeff, word\u2060joiner",
    "line\u2028separator and paragraph\u2029separator", "vertical\x0btab and form\x0cfeed",
    "next\x85line", "mixed\r\nnew\nlines\rof\n\rall kinds",
)  # fmt: skip

_PUNCTUATION = (
    "Hello, world!", "hello", "Hello", "HELLO", " hello", "hello ", "?!?!... ;;; :: ((()))",
    "…—–“quotes”‘single’", "don't can't I'm we've they'll it's she'd you're",
    "DON'T CAN'T I'M WE'VE THEY'LL IT'S", "don’t can’t I’m we’ve", "'tis 'twas rock 'n' roll",
    "CamelCase snake_case kebab-case SCREAMING_CASE", "well-known, re-enter, co-operate",
    "Mr. Smith vs. Dr. Jones, Ph.D., e.g. U.S.A.", "(a) [b] {c} <d> «e» ‹f› „g“ 「h」",
    "a,b;c:d.e!f?g", "a , b ; c : d . e", "!!!", "...", "----", "____", "####", "****", "====",
    "~!@#$%^&*()_+`-={}|[]\\:\";'<>?,./", "50% off & more @ home #1", "C++ C# F# .NET",
    "end.Start", "end. Start", "end.\nStart", '"Quoted," she said.', "“Nested ‘quotes’ here”",
    "hyphen‐soft\u00adnon‑breaking", "§ 5 ¶ 2 † ‡ • ‣ ⁂", "© ® ™ ° ′ ″ ‰", "← ↑ → ↓ ⇒ ⇔",
    "∀x∈ℝ: ∃y ≤ x² ∧ ¬(x≠y)", "a/b\\c|d", "user@example.org",
    "https://example.org/a?b=c&d=e#f", "www.example.co.uk/~user/index.html",
    "/usr/local/bin:/opt/x", "C:\\Users\\name\\file.txt",
)  # fmt: skip

_CODE = (
    "def mean(values):\n    return sum(values) / len(values)\n",
    '{"json": [1, 2, null, true], "nested": {"a": "b"}}',
    "<b>html</b> &amp; entities <!-- comment -->",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }",
    "if x != y and not z:\n\tpass\nelse:\n\t\treturn None",
    "SELECT name, COUNT(*) FROM t WHERE a >= 1 GROUP BY name;",
    "#!/bin/sh\nset -eu\necho \"$HOME\" | grep -v '^#' > /dev/null 2>&1",
    "const f = (x) => x?.y ?? `${x}`;", "let s: &'static str = \"a\\n\\t\\u{1F600}\";",
    "\\begin{equation} E = mc^2 \\end{equation} $\\alpha_{i}^{2}$",
    "| a | b |\n|---|:-:|\n| 1 | 2 |", "# Title\n\n- item\n  - nested\n\n1. one\n2. two\n\n> quote",
    "```python\nprint('hi')\n```", "import numpy as np  # noqa", "x=1;y=2;z=x+y",
    "__init__ __name__ self._private", "0b1010 0o17 0xDEADBEEF 1j", "a && b || !c ? d : e",
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a b='c'/>", "key: value\nlist:\n  - a\n  - b: 1",
    "\\x00 \\n \\\\ \\' \\\"", "{{ template }} {% if x %}y{% endif %}", "%s %d %05.2f %%",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "aGVsbG8gd29ybGQhIFRoaXMgaXMgYmFzZTY0Lg==",
)  # fmt: skip

_SCRIPTS = (
    "naïve café Übergröße señor façade", "Ελληνικά: Η καρδιά αντλεί αίμα.",
    "Русский: Сердце качает кровь по артериям.", "Українська: їжак, ґанок, є",
    "中文：心脏通过动脉输送血液。", "繁體中文：胰島素由胰臟製造。",
    "日本語：心臓は血液を送り出す。", "ひらがなとカタカナ、漢字。ﾊﾝｶｸ",
    "한국어: 심장은 혈액을 펌프질한다.", "العربية: القلب يضخ الدم.",
    "עברית: הלב שואב דם", "فارسی: قلب خون را پمپ می‌کند", "हिन्दी: हृदय रक्त पंप करता है।",
    "বাংলা: হৃদপিণ্ড রক্ত পাম্প করে", "தமிழ்: இதயம் இரத்தத்தை செலுத்துகிறது", "ไทย: หัวใจสูบฉีดเลือด",
    "Tiếng Việt: Tim bơm máu qua các động mạch.", "Türkçe: İstanbul'da ılık ığıl ığıl",
    "Polski: zażółć gęślą jaźń", "Čeština: příliš žluťoučký kůň", "Íslenska: þúsund ær og ð",
    "ქართული: გული", "Հայերեն: սիրտ", "አማርኛ: ልብ", "ខ្មែរ: បេះដូង", "မြန်မာ: နှလုံး",
    "བོད་ཡིག: སྙིང་", "ᏣᎳᎩ ᎠᏂᏴᏫᏯ", "𐍈𐌰𐌹𐍂𐍄𐍉", "𝕳𝖊𝖑𝖑𝖔 𝓌𝑜𝓇𝓁𝒹 𝟙𝟚𝟛", "ǅ ǈ ǋ ß ẞ ſ ﬁ ﬂ",
    "Straße STRASSE straße", "English与中文mixed日本語テキスト", "fullwidth ＡＢＣ ａｂｃ！？",
)  # fmt: skip

_MARKS = (
    "e\u0301 vs é", "a\u0308o\u0308u\u0308 vs äöü", "n\u0303 vs ñ", "A\u030a vs Å vs \u212b",
    "Z\u0351\u036b\u0343a\u0363\u0349l\u0348g\u031e\u0360o\u0358", "\u0301leading mark",
    "क\u094dष\u0940 क्षी", "각 \u1100\u1161\u11a8", "q\u0307\u0323 and q\u0323\u0307",
    "bell\x07 backspace\x08 escape\x1b[0m delete\x7f", "\x01\x02\x03", "c1\x80\x9f controls",
    "bidi \u202eright to left\u202c and \u2066isolate\u2069", "private \ue000 \uf8ff use",
    "\ufffd replacement \ufffd\ufffd", "unassigned \u0378 \u0530", "tag \U000e0041\U000e007f",
    "variation ☺\ufe0e ☺\ufe0f",
)  # fmt: skip

_EMOJI = (
    "🙂👍🏽 emoji 👨‍👩‍👧 family", "🏳️‍🌈 🇩🇪🇫🇷🇯🇵", "❤️ ♥ ❣", "👩🏿‍⚕️ doctor, 🧑‍🔬 scientist",
    "😀😃😄😁😆😅🤣😂", "text🙂text", "🫀 🧠 🦴 🩸 💊 💉", "1️⃣ 2️⃣ #️⃣", "©️™️‼️⁉️", "🂡🀄♟️♞",
)  # fmt: skip

_LONG = (
    "x" * 60, "a" * 300, "ab" * 100, "aA" * 50, "=" * 120, "-" * 77, "." * 50, "🙂" * 20,
    "0" * 100, "supercalifragilisticexpialidocious",
    "Donaudampfschifffahrtsgesellschaftskapitän", "antidisestablishmentarianism" * 3,
    "ACGTTGCAAGCTTAGCCGATCGATTACGGCTA" * 4, "мама" * 30, "心" * 40, "the " * 40, "\n-" * 20,
)  # fmt: skip

_LETTERS = (
    "Dear Sir or Madam,\n\nI write to ask whether my order of 12 May has been sent.\n",
    "user: Hello!\nassistant: Hi, how can I help?\nuser: Thanks.",
    "### Instruction:\nSay hello.\n\n### Response:\n", "[INST] Hello [/INST] Hi </s>",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>",
    "<|start_of_role|>user<|end_of_role|>Hello<|end_of_text|>\n",
    "<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n",
    "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]",
    "<|user|>\nHello<|end|>\n<|assistant|>\n",
    "<bos> <eos> <pad> <unk> <mask> <s> </s> [CLS] [SEP]", "<|endoftext|>",
    "<think>\nhm\n</think>", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
    "< |im_start| >", "<|im_start", "im_end|>",
    "System: You are a helpful assistant.",
    "Question: What is the capital of Japan? Answer: Tokyo.",
    "A: yes B: no C: maybe D: none of these",
)  # fmt: skip

TEXTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "medicine": _MEDICINE,
        "numbers": _NUMBERS,
        "spaces": _SPACES,
        "punctuation": _PUNCTUATION,
        "code": _CODE,
        "scripts": _SCRIPTS,
        "marks": _MARKS,
        "emoji": _EMOJI,
        "long": _LONG,
        "conversations": _LETTERS,
    }
)
"""Kind → texts; none occurs twice."""


def all_texts() -> tuple[str, ...]:
    """Every text, in a fixed order."""
    return tuple(text for texts in TEXTS.values() for text in texts)


def texts_around(token: str) -> tuple[str, ...]:
    """Texts that hold a special token of the model: alone, within words, and doubled."""
    return (token, f"a {token} b", f"word{token}word", f"{token}{token}", f"\n{token}\n")
