"""Cleans the texts of a request: one spelling for what looks the same, nothing that is invisible.

The first step of every question, search and embedding; what it lets through, the model takes.
"""

import re
import unicodedata

from mmllm.serve import problems

MAX_WORK = 8
"""Times as many characters as allowed that are still normalised; white space may shrink them."""

_LINE_BREAKS = "\t\n\r"
_SOFT_HYPHEN, _MARK_OF_ORDER = "\u00ad", "\ufeff"
_JOINER, _NON_JOINER = "\u200d", "\u200c"
_UNSEEN = {"Cc", "Cf", "Cs"}
# "Cn": emoji that are younger than this Python.
_JOINED_BEFORE = {"So", "Sk", "Lo", "Mn", "Mc", "Me", "Cn"}
_JOINED_AFTER = {"So", "Sm", "Lo", "Cn"}
_PARTED = {"Lo", "Mn", "Mc"}
_BLANK_LETTERS = set("\u115f\u1160\u17b4\u17b5\u3164\uffa0")  # letters without a shape
# The flags of England, Scotland and Wales: a black flag, invisible letters, an end.
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f")
_TIDY = re.compile(r"\s+")


def clean(field: str, text: str, limit: int) -> str:
    """Returns a text in NFC, white space tidied, that consists of visible characters.

    Invisible ones are refused rather than dropped, since they change what a reader believes to have
    asked: control characters, lone surrogates, marks of direction, zero widths, tags. Allowed are
    the joiner in emoji and Indic letters, and line breaks, which become blanks.

    Args:
      field: of the request, for the error.
      text: what the client wrote.
      limit: characters that it may have once it is clean.

    Raises:
      problems.Problem: text-too-long, text-control or text-empty.
    """
    if len(text) > MAX_WORK * limit:
        raise problems.Problem("text-too-long", field=field, limit=limit)
    text = text.removeprefix(_MARK_OF_ORDER).replace(_SOFT_HYPHEN, "")
    if (sign := forbidden(text)) is not None:
        raise problems.Problem("text-control", field=field, character=f"U+{ord(sign):04X}")
    text = _TIDY.sub(" ", unicodedata.normalize("NFC", text)).strip()
    if not any(map(_visible, text)):
        raise problems.Problem("text-empty", field=field)
    if len(text) > limit:
        raise problems.Problem("text-too-long", field=field, limit=limit)
    return text


def forbidden(text: str) -> str | None:
    """The first character that may not stand where it stands."""
    flags = {i for found in _FLAG.finditer(text) for i in range(*found.span())}
    for place, sign in enumerate(text):
        if sign.isascii() and sign.isprintable():
            continue
        kind = unicodedata.category(sign)
        if sign in _LINE_BREAKS or place in flags:
            continue
        if sign in (_JOINER, _NON_JOINER):
            if not _joins(text, place):
                return sign
        elif kind in _UNSEEN or _never_a_character(sign):
            return sign
    return None


def _joins(text: str, place: int) -> bool:
    if not 0 < place < len(text) - 1:
        return False
    before, after = (unicodedata.category(text[i]) for i in (place - 1, place + 1))
    if text[place] == _NON_JOINER:
        return before in _PARTED and after in _PARTED
    return before in _JOINED_BEFORE and after in _JOINED_AFTER


def _never_a_character(sign: str) -> bool:
    """The 66 places that Unicode keeps free for programs' own use."""
    return ord(sign) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(sign) <= 0xFDEF


def _visible(sign: str) -> bool:
    kind = unicodedata.category(sign)
    return kind[0] not in "ZM" and kind not in _UNSEEN and sign not in _BLANK_LETTERS
