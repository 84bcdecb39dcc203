"""Splits captions into words as the COCO caption evaluation does, without Java.

First step of the caption metrics (`mmllm.evaluate.metrics.caption`). It follows the Stanford
Penn-Treebank tokenizer with lower-casing and then drops punctuation, so that CIDEr-D and BLEU
are comparable with published scores.
"""

import re

DROPPED = frozenset("' ` . ? ! , : - -- ... ; \" \u2019 \u2026 \u2013 \u2014".split())
"""Tokens the COCO evaluation removes. Brackets stay, as `-lrb-`: its list names them in capitals,
the tokenizer writes them lower-cased."""

_CHARACTERS = str.maketrans(
    {"\u201c": '"', "\u201d": '"', "\u2018": " ' ", "\u00ab": '"', "\u00bb": '"', "\u20ac": "$"}
)
_FRACTIONS = {"\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_BRACKETS = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
}  # fmt: skip
_SPLIT_WORDS = {
    "cannot": "can not", "gonna": "gon na", "gotta": "got ta", "gimme": "gim me",
    "lemme": "lem me", "wanna": "wan na", "'tis": "'t is", "'twas": "'t was",
}  # fmt: skip
_TITLES = (
    "adj adm adv ave blvd brig bros capt cie cmdr co col comdr corp cpl dr dept det est etc ext "
    "fig gen gov hon inc insp jr lt ltd maj messrs mme mr mrs ms mt mtn mts pp prof pvt rd rep "
    "reps rev sen sens sgt sr st ste supt univ vs jan feb mar apr jun jul aug sep sept oct nov dec"
)
_LETTER = r"[^\W\d_]"  # any script, which [a-z] is not
_APOSTROPHE = "['\u2019]"
# In this order: the first alternative that matches takes the text, so the special cases (addresses,
# titles, clitics) stand before the plain word.
_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<address>https?://\S*[\w/]|[\w.%+-]+@[\w-]+(?:\.[\w-]+)+)",
            rf"(?P<initials>(?:{_LETTER}\.)+{_LETTER}\.(?!\w)|ph\.d\.)",
            rf"(?P<title>\b(?:{_TITLES.replace(' ', '|')})\.(?=\s))",
            r"(?P<split>\b(?:cannot|gonna|gotta|gimme|lemme|wanna)\b|(?<!\w)'(?:tis|twas)\b)",
            rf"(?P<elided>(?<!\w)'\d\ds?\b|'n(?:'|\b)|\b[dlno]\u2019{_LETTER}{{2,}}(?:-\w+)*)",
            rf"(?P<negated>{_LETTER}+?(?=n{_APOSTROPHE}t\b))",
            rf"(?P<clitic>n{_APOSTROPHE}t\b|{_APOSTROPHE}(?:s|m|re|ve|ll|d)(?!\w))",
            rf"(?P<initial>(?<![\w.]){_LETTER}\.(?=\s+{_LETTER}))",
            r"(?P<number>(?<![\w.])[-+]?\d*[.,:/]?\d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?(?![\w]|-\w))",
            r"(?P<word>@?\w+(?:(?:[-/.&_]|'(?!(?:s|m|re|ve|ll|d|n)(?!\w)))"
            rf"(?!\w+?n{_APOSTROPHE}t\b)\w+)*(?:\+\+)?)",
            r"(?P<dots>\.{2,})",
            r"(?P<marks>[!?]{2,})",
            r"(?P<tag></?\w+>)",
            r"(?P<other>\S)",
        )
    )
)


def tokenize(text: str) -> list[str]:
    """Splits a caption into lower-case tokens without punctuation.

    Args:
      text: one caption; line breaks count as spaces.

    Returns:
      Tokens in order. Clitics stand alone (`isn't` -> `is`, `n't`; `dog's` -> `dog`, `'s`),
      hyphenated words stay whole, quotation marks and sentence punctuation are gone.

    Source: coco-caption's tokenizer step (Stanford CoreNLP 3.4.1 PTBTokenizer, -lowerCase).
    """
    text = text.lower().translate(_CHARACTERS)
    tokens: list[str] = []
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "split":
            tokens += _SPLIT_WORDS[token].split()
        elif kind == "clitic":
            tokens.append(token.replace("\u2019", "'"))
        elif kind != "dots":
            tokens.append(_BRACKETS.get(token) or _FRACTIONS.get(token) or token)
    return [token for token in tokens if token not in DROPPED]
