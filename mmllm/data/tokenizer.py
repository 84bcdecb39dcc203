"""One SentencePiece vocabulary for every task and language: training it, and using it.

Trained once on the captions, questions and answers of the training splits; the file travels in
the bundle. Task and place tokens are control symbols: only this program can write them, so a
question that contains "<cap:de>" stays plain text.
"""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from mmllm.common import paths

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "tr", "ja", "zh")
TASKS = (*(f"cap:{language}" for language in LANGUAGES), "ocr", "vqa", "ans", "emb")
PLACES = 64  # <loc000> to <loc063>: the sides of a box in 64ths of the picture
CONTROL_SYMBOLS = tuple(
    f"<{name}>" for name in (*TASKS, *(f"loc{place:03d}" for place in range(PLACES)))
)
PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3
MIN_VOCAB_SIZE = 4 + len(CONTROL_SYMBOLS) + 256 + 32  # the last: room for some letters

_LONGEST_LINE_BYTES = 1 << 16  # SentencePiece drops longer ones, so they are refused
# All but a few of the Han and Kana signs of the captions get a piece; the rest become bytes.
_CHARACTER_COVERAGE = 0.9999


def train(texts: Iterable[str], path: str | os.PathLike, vocab_size: int = 8000) -> None:
    """Trains a vocabulary and writes it; the same texts in the same order give the same bytes.

    Args:
      texts: training texts only, never those of a held-out split. White space is collapsed.
      path: the file to write.
      vocab_size: the number of pieces, with the control symbols and the 256 bytes.

    Raises:
      ValueError: a vocabulary too small for its symbols or too large for the texts, no text,
        or a text over 65536 bytes.

    Source: Kudo, Subword Regularization (2018), the unigram model; SentencePiece 0.2.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"vocab_size must be at least {MIN_VOCAB_SIZE}, got {vocab_size}")
    lines = [line for line in (_plain(text) for text in texts) if line]
    if not lines:
        raise ValueError("texts holds nothing but white space; a vocabulary needs some text")
    longest = max(len(line.encode()) for line in lines)
    if longest > _LONGEST_LINE_BYTES:
        raise ValueError(
            f"texts has one of {longest} bytes, more than {_LONGEST_LINE_BYTES}; split it"
        )
    written = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            model_type="unigram",
            vocab_size=vocab_size,
            byte_fallback=True,  # no text is out of vocabulary, whatever its script
            character_coverage=_CHARACTER_COVERAGE,
            normalization_rule_name="nfkc",
            split_digits=True,  # numbers are unbounded: digits are learnt, pieces of them not
            control_symbols=list(CONTROL_SYMBOLS),
            pad_id=PAD_ID,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            max_sentence_length=_LONGEST_LINE_BYTES,
            shuffle_input_sentence=False,
            num_threads=1,  # more would change the order of the sums
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("] ")[2]
        raise ValueError(f"vocab_size={vocab_size} does not fit the texts: {reason}") from error
    with paths.written_whole(Path(path)) as temporary:
        temporary.write_bytes(written.getvalue())


class Tokenizer:
    """Turns text into ids and back. Picklable, so grain workers can carry it.

    Args:
      path: a file that `train` wrote.

    Raises:
      FileNotFoundError: no file at the path.
      ValueError: a damaged file, or a vocabulary without the task tokens.
    """

    def __init__(self, path: str | os.PathLike):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"tokenizer {str(path)!r} does not exist")
        data = path.read_bytes()
        try:
            if not data:
                raise RuntimeError("0 bytes")
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError as error:
            raise ValueError(f"tokenizer {str(path)!r} is damaged") from error
        self._symbols = {symbol: self._pieces.piece_to_id(symbol) for symbol in CONTROL_SYMBOLS}
        missing = [name for name, id_ in self._symbols.items() if not self._pieces.is_control(id_)]
        if missing or self._pieces.pad_id() != PAD_ID or self._pieces.eos_id() != EOS_ID:
            raise ValueError(
                f"tokenizer {str(path)!r} was not made by mmllm: it lacks {missing[:3] or '<pad>'}"
            )

    @property
    def vocab_size(self) -> int:
        """Number of pieces, tasks and places among them."""
        return self._pieces.get_piece_size()

    @property
    def pad_id(self) -> int:
        """Fills short rows."""
        return PAD_ID

    @property
    def bos_id(self) -> int:
        """Begins an answer."""
        return BOS_ID

    @property
    def eos_id(self) -> int:
        """Ends every text."""
        return EOS_ID

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without start, end or task tokens, whatever it contains.

        Raises:
          TypeError: not a string.
          ValueError: a string that is not valid Unicode.
        """
        return self._pieces.encode(_plain(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some ids; padding, end and task tokens become nothing.

        Raises:
          ValueError: an id outside the vocabulary.
        """
        ids = [int(id_) for id_ in ids]
        if ids and not (min(ids) >= 0 and max(ids) < self.vocab_size):
            outside = next(id_ for id_ in ids if not 0 <= id_ < self.vocab_size)
            raise ValueError(f"ids must lie in 0 to {self.vocab_size - 1}, got {outside}")
        return self._pieces.decode(ids)

    def task_id(self, task: str) -> int:
        """Returns the id of a task token: "cap:en", "ocr", "vqa", "ans" or "emb".

        Raises:
          ValueError: a task or a language that the vocabulary does not have.
        """
        if task not in TASKS:
            kind, _, language = str(task).partition(":")
            if kind == "cap":
                allowed = ", ".join(LANGUAGES)
                raise ValueError(f"language must be one of {allowed}; got {language!r}")
            raise ValueError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
        return self._symbols[f"<{task}>"]

    def place_id(self, place: int) -> int:
        """Returns the id of the place token <locNNN>.

        Raises:
          ValueError: a place outside 0 to 63.
        """
        if not 0 <= place < PLACES:
            raise ValueError(f"place must lie in 0 to {PLACES - 1}, got {place}")
        return self._symbols[f"<loc{place:03d}>"]


def _plain(text: str) -> str:
    """Collapses white space, and refuses what cannot be written as UTF-8."""
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text is not valid Unicode: lone surrogate at character {error.start}"
        ) from error
    return " ".join(text.split())
