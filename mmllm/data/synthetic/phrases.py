"""Short texts to draw: dictionary words, numbers, dates, prices, codes; at most 24 characters.

A word is for training, validation or testing by its hash, so the tests hold words the reader has
never seen. Used by the text-line corpus (ocr_lines).
"""

import functools
import random

from mmllm.data import packages, splits
from mmllm.data.charset import CHARSET

MAX_CHARACTERS = 24
WORDS_PACKAGE = "wamerican"
WORDS_FILE = "usr/share/dict/american-english"
TEST_WORDS, VAL_WORDS = 0.10, 0.12  # shares in [0, .10) and [.10, .12); the rest is for training
POSSESSIVE_SHARE = 0.2  # a quarter of the list are forms like "dog's"
SHORT_WORD = 5
SYMBOLS = "".join(c for c in CHARSET if not c.isalnum() and c != " ")
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
UNITS = ("kg", "g", "km", "cm", "mm", "ml", "L", "m", "h", "min", "s", "%", "mph", "GB", "W", "V")


def word_split(word: str) -> str:
    """Returns "train", "val" or "test" for a word, whatever its case or possessive ending."""
    # Else a reader could know "Dog" and "dog's" and be tested on "dog".
    drawn = splits.share(word.casefold().removesuffix("'s"), "word")
    if drawn < TEST_WORDS:
        return splits.TEST
    return splits.VAL if drawn < VAL_WORDS else splits.TRAIN


@functools.cache
def words(split: str) -> tuple[str, ...]:
    """Returns the dictionary's words of a split in printable ASCII, short enough to draw."""
    file = packages.fetch(WORDS_PACKAGE) / WORDS_FILE
    found = file.read_text("utf-8").split()
    fits = (w for w in found if w.isascii() and len(w) <= MAX_CHARACTERS)
    used = (w for w in fits if "'" not in w or splits.share(w, "possessive") < POSSESSIVE_SHARE)
    return tuple(w for w in used if word_split(w) == split)


class Phrases:
    """Draws texts made of the given words; the same random state gives the same text."""

    def __init__(self, vocabulary: tuple[str, ...]):
        """Takes the words to use; some of them must have at most SHORT_WORD letters."""
        self._all = vocabulary
        self._short = tuple(word for word in vocabulary if len(word) <= SHORT_WORD) or vocabulary

    def draw(self, rng: random.Random) -> str:
        """Returns a text of 1 to 24 characters of CHARSET, without spaces at its ends."""
        kind = rng.random()
        if kind < 0.76:
            text = self._sentence(rng)
        elif kind < 0.90:
            text = number(rng)
        elif kind < 0.95:
            text = self._address(rng)
        else:
            # No words at all: a reader that guesses words must still read characters.
            pool = CHARSET[1:] if rng.random() < 0.5 else SYMBOLS + "0123456789" * 2
            text = "".join(rng.choice(pool) for _ in range(rng.randint(2, 10)))
        text = text[:MAX_CHARACTERS].strip()
        return text or "0"

    def word(self, rng: random.Random) -> str:
        """Returns one word; a third of the draws are among the short ones."""
        return rng.choice(self._short if rng.random() < 0.35 else self._all)

    def _sentence(self, rng: random.Random) -> str:
        style = rng.random()
        text = ""
        for _ in range(rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4))):
            word = str(rng.randint(0, 2100)) if rng.random() < 0.05 else self.word(rng)
            joint = "-" if text and rng.random() < 0.03 else " "
            grown = f"{text}{joint}{word}" if text else word
            if len(grown) > MAX_CHARACTERS - 2:  # two for brackets around it
                break
            text = grown
        if not text:
            text = self._short[rng.randrange(len(self._short))]
        return punctuated(cased(text, style), rng)

    def _address(self, rng: random.Random) -> str:
        first, second = (self.word(rng).replace("'", "").lower() for _ in range(2))
        return rng.choice(
            (
                f"{first}@{second}.com",
                f"www.{first}.org",
                f"{first}_{second}",
                f"#{first}",
                f"@{first}{rng.randint(1, 99)}",
                f"{first}.{rng.choice(('py', 'txt', 'pdf', 'jpg', 'html'))}",
                f"/{first}/{second}",
                f"{first}={rng.randint(0, 999)}",
            )
        )


def cased(text: str, style: float) -> str:
    """Returns the text in lower case, sentence case, title case, capitals, or as it is."""
    if style < 0.38:
        return text.lower()
    if style < 0.55:
        return text[:1].upper() + text[1:]
    if style < 0.70:
        return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    return text.upper() if style < 0.88 else text


def punctuated(text: str, rng: random.Random) -> str:
    """Returns the text with, now and then, a mark after it, a comma in it or brackets around it."""
    drawn = rng.random()
    if drawn < 0.14:
        return text + rng.choice((".", ".", ",", ",", ":", ";", "!", "?", "..."))
    if drawn < 0.20 and " " in text:
        return text.replace(" ", rng.choice((", ", " & ", " - ", ": ", " / ")), 1)
    if drawn < 0.27:
        left, right = rng.choice(("()", '""', "[]", "''", "<>", "{}", "**"))
        return f"{left}{text}{right}"
    return text


def number(rng: random.Random) -> str:
    """Returns a number as it stands on signs, bills and screens."""
    n = int(10 ** rng.uniform(0, 6))
    day, month, year = rng.randint(1, 31), rng.randint(1, 12), rng.randint(1900, 2035)
    # Without I, O and Q, as on number plates, where they look like digits.
    code = "".join(rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(rng.randint(1, 3)))
    return rng.choice(
        (
            str(n),
            f"{n:,}",
            f"{n / 100:.2f}",
            f"{rng.choice('$$#+-~')}{n}",
            f"${n / 100:,.2f}",
            f"{rng.randint(0, 100)}%",
            f"{rng.randint(0, 999)} {rng.choice(UNITS)}",
            f"{rng.randint(1, 12)}:{rng.randint(0, 59):02d} {rng.choice(('am', 'pm', 'AM', 'PM'))}",
            f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}",
            f"{day:02d}/{month:02d}/{year}",
            f"{year}-{month:02d}-{day:02d}",
            f"{MONTHS[month - 1]} {day}, {year}",
            str(year),
            f"{rng.randint(200, 999)}-{rng.randint(0, 9999):04d}",
            f"({rng.randint(200, 999)}) {rng.randint(200, 999)}-{rng.randint(0, 9999):04d}",
            f"{code}{rng.choice((' ', '-', ''))}{rng.randint(1, 9999)}",
            f"No. {rng.randint(1, 999)}",
            f"{rng.randint(1, 99)}{rng.choice('+-x=/*<>')}{rng.randint(1, 99)}",
        )
    )
