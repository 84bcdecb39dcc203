"""The public face of the package: pictures and words in, captions, text and answers out.

    model = MobileMultiModalLLM.from_pretrained("nano")
    model.caption("cat.png")                                  # "cat"
    model.answer("shapes.png", "how many circles are there?")  # "3"

It prepares inputs, batches them, and leaves the arithmetic to an engine.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from mmllm import bundle as bundle_lib
from mmllm.data import images as images_lib
from mmllm.data import tokenizer as tokenizer_lib
from mmllm.runtime import decode, prompts
from mmllm.runtime import lines as lines_lib
from mmllm.runtime.engines import registry
from mmllm.runtime.engines.base import MAX_ROWS, Engine

ZOO = Path(__file__).parents[1] / "zoo"
CAPTION_TOKENS = 32
ANSWER_TOKENS = 16

Picture = Any
"""What `mmllm.data.images.open_image` takes: a path, bytes, a file, a PIL image or an array."""


class TextRegion(NamedTuple):
    """A line of text: what it says, its box (left, top, right, bottom; pixels), confidence 0..1."""

    text: str
    box: lines_lib.Box
    score: float


class Scored(NamedTuple):
    """Generated text and the geometric mean of its tokens' probabilities, 0..1."""

    text: str
    score: float


def locate(name_or_path: str | Path) -> Path:
    """Finds a bundle: a folder, or the name of one that ships with the package.

    Raises:
      FileNotFoundError: neither; the message lists the names.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    shipped = shipped_names()
    if str(name_or_path) in shipped:
        return ZOO / str(name_or_path)
    raise FileNotFoundError(
        f"no model {str(name_or_path)!r}: neither a folder nor one that ships with mmllm "
        f"({', '.join(shipped) or 'none in this installation'})"
    )


def shipped_names() -> list[str]:
    """Names of the bundles in the package."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{bundle_lib.MANIFEST}"))


def regions_of(found: Sequence[lines_lib.Line], read: Sequence[Scored]) -> list[TextRegion]:
    """Joins what was read in the segments of lines; a line without text is left out.

    Args:
      found: the lines.
      read: one a segment, line by line.
    """
    texts = iter(read)
    regions = []
    for line in found:
        parts = [next(texts) for _ in line.segments]
        joined = zip(line.segments, parts, strict=True)
        text = " ".join("".join(segment.joint + part.text for segment, part in joined).split())
        if not text:
            continue
        # By characters: a segment of one letter must not count as much as a long one.
        weights = [len(part.text) for part in parts]
        score = float(np.average([part.score for part in parts], weights=weights))
        regions.append(TextRegion(text, line.box, score))
    return regions


class MobileMultiModalLLM:
    """Captions pictures, reads lines of text, answers questions, and embeds for search.

    Args:
      engine: runs the model.
      tokenizer: of the same bundle.
      manifest: of the same bundle.

    Attributes:
      banned: tokens that no answer holds: padding, unknown, tasks and places.
    """

    def __init__(
        self, engine: Engine, tokenizer: tokenizer_lib.Tokenizer, manifest: dict[str, Any]
    ) -> None:
        if tokenizer.vocab_size != engine.config.vocab_size:
            raise ValueError(
                f"tokenizer must have {engine.config.vocab_size} pieces, as the model has, "
                f"got {tokenizer.vocab_size}"
            )
        self.engine, self.tokenizer, self.manifest = engine, tokenizer, manifest
        self.config = engine.config
        self.languages: tuple[str, ...] = tuple(manifest["languages"])
        self.banned = [tokenizer.pad_id, tokenizer_lib.UNK_ID, tokenizer.bos_id]
        self.banned += [tokenizer.task_id(task) for task in tokenizer_lib.TASKS]
        self.banned += [tokenizer.place_id(place) for place in range(tokenizer_lib.PLACES)]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "nano",
        engine: str | None = None,
        threads: int | None = None,
    ) -> "MobileMultiModalLLM":
        """Loads a bundle.

        Args:
          name_or_path: a shipped name ("nano") or a bundle folder.
          engine: what runs it, "litert" or "jax"; by default LiteRT where the bundle has its file.
          threads: CPU threads of "litert", at most `registry.MAX_THREADS`; by default one a core,
            at most `registry.DEFAULT_THREADS`. "jax" takes what it finds.

        Raises:
          FileNotFoundError: no such bundle, or a part of it is missing.
          ModuleNotFoundError: the engine is not installed.
          ValueError: a damaged bundle, an unknown engine, one that the bundle has no file for, or
            a number of threads that cannot be.
        """
        # Before every file is hashed, which takes longer than any other check.
        threads = registry.checked_threads(threads)
        folder = locate(name_or_path)
        manifest, config = bundle_lib.open_verified(folder)
        tokenizer = tokenizer_lib.Tokenizer(folder / bundle_lib.TOKENIZER)
        chosen = registry.engine_of(manifest, engine)
        return cls(registry.load(chosen, folder, config, threads), tokenizer, manifest)

    @property
    def fingerprint(self) -> str:
        """Changes whenever the model does: the key of stored embeddings."""
        return bundle_lib.fingerprint(self.manifest)

    def caption(self, image: Picture, language: str = "en", *, beam: int = 1) -> str:
        """Names what a picture shows.

        Args:
          image: path, bytes, file, PIL image or array.
          language: one of `languages`.
          beam: beginnings kept while decoding; 1 is greedy.

        Raises:
          FileNotFoundError: no such file.
          ValueError: not a picture, an unknown language, or a beam out of range.
        """
        return self.caption_batch([image], language, beam=beam)[0]

    def caption_batch(
        self, images: Sequence[Picture], language: str = "en", *, beam: int = 1
    ) -> list[str]:
        """Like `caption`, for many pictures."""
        return [scored.text for scored in self.scored_captions(images, language, beam=beam)]

    def scored_captions(
        self, images: Sequence[Picture], language: str = "en", *, beam: int = 1
    ) -> list[Scored]:
        """Like `caption_batch`, with confidences."""
        prompts.checked_language(language, self.languages)
        prompt = prompts.caption(self.tokenizer, language)
        return self._generate(images, [prompt] * len(images), CAPTION_TOKENS, beam)

    def stream_caption(self, image: Picture, language: str = "en") -> Iterator[str]:
        """Yields a caption piece by piece as it is decoded; joined they are `caption`'s answer."""
        prompts.checked_language(language, self.languages)
        # Returned, not yielded from: what is wrong with the language shows at this call already.
        return self._stream(image, prompts.caption(self.tokenizer, language), CAPTION_TOKENS)

    def answer(self, image: Picture, question: str, *, beam: int = 1) -> str:
        """Answers a question about a picture in a word or two.

        Raises:
          FileNotFoundError: no such file.
          ValueError: not a picture; a question that is empty, too long or has control characters.
        """
        return self.answer_batch([image], [question], beam=beam)[0]

    def answer_batch(
        self, images: Sequence[Picture], questions: Sequence[str], *, beam: int = 1
    ) -> list[str]:
        """Like `answer`, for pairs of pictures and questions."""
        return [scored.text for scored in self.scored_answers(images, questions, beam=beam)]

    def stream_answer(self, image: Picture, question: str) -> Iterator[str]:
        """Yields an answer piece by piece as it is decoded; joined they are `answer`'s."""
        prompt = prompts.question(self.tokenizer, question, self.config.max_text)
        return self._stream(image, prompt, ANSWER_TOKENS)

    def scored_answers(
        self, images: Sequence[Picture], questions: Sequence[str], *, beam: int = 1
    ) -> list[Scored]:
        """Like `answer_batch`, with confidences."""
        if len(images) != len(questions):
            raise ValueError(
                f"images and questions must be as many, got {len(images)} and {len(questions)}"
            )
        ids = [prompts.question(self.tokenizer, q, self.config.max_text) for q in questions]
        return self._generate(images, ids, ANSWER_TOKENS, beam)

    def read_text(self, image: Picture) -> list[TextRegion]:
        """Reads the lines of text in a picture with a near-uniform background.

        Returns:
          One region a line, in reading order; none if there is no text.
        """
        picture = images_lib.open_image(image)
        aspect = self.config.line_width / self.config.line_height
        found = lines_lib.find_lines(picture, aspect)
        crops = [picture.crop(segment.box) for line in found for segment in line.segments]
        if not crops:
            return []
        return regions_of(found, self.scored_lines(crops))

    def read_lines_batch(self, line_images: Sequence[Picture]) -> list[str]:
        """Reads pictures that are one line of text each."""
        return [scored.text for scored in self.scored_lines(line_images)]

    def scored_lines(self, line_images: Sequence[Picture]) -> list[Scored]:
        """Like `read_lines_batch`, with confidences."""
        results: list[Scored] = []
        for start in range(0, len(line_images), MAX_ROWS):
            lines = self.line_pixels(line_images[start : start + MAX_ROWS])
            logits = self.engine.read_lines(lines.astype(np.float32))
            read = decode.ctc_greedy(logits, self.manifest["charset"])
            results += [Scored(text, score) for text, score in read]
        return results

    def embed_image(self, image: Picture) -> Float32[np.ndarray, "e"]:
        """Unit vector of a picture."""
        return self.embed_images([image])[0]

    def embed_images(self, images: Sequence[Picture]) -> Float32[np.ndarray, "b e"]:
        """Unit vectors of pictures."""
        # Of no pictures there are no rows, where joining no parts would be an error.
        parts = [np.zeros((0, self.config.embed_dim), np.float32)]
        for start in range(0, len(images), MAX_ROWS):
            pixels = self.pixels(images[start : start + MAX_ROWS])
            parts.append(self.engine.embed_image(pixels.astype(np.float32)))
        return np.concatenate(parts)

    def embed_text(self, text: str) -> Float32[np.ndarray, "e"]:
        """Unit vector of a text, in the same space as the pictures'.

        Raises:
          ValueError: empty, too long, or with control characters in it.
        """
        return self.embed_texts([text])[0]

    def embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "b e"]:
        """Unit vectors of texts."""
        ids = [prompts.embedding(self.tokenizer, text, self.config.max_text) for text in texts]
        parts = [np.zeros((0, self.config.embed_dim), np.float32)]
        for start in range(0, len(ids), MAX_ROWS):
            part = ids[start : start + MAX_ROWS]
            parts.append(self.engine.embed_text(decode.pad_rows(part, self.config.max_text)))
        return np.concatenate(parts)

    def similarity(self, image: Picture, text: str) -> float:
        """Cosine of a picture and a text, -1..1; higher is closer."""
        return float(np.dot(self.embed_text(text), self.embed_image(image)))

    def pixels(self, images: Sequence[Picture]) -> UInt8[np.ndarray, "b y x 3"]:
        """Pictures as the engine takes them, once they are floats."""
        side = self.config.image_side
        return np.stack([images_lib.to_square(images_lib.open_image(i), side) for i in images])

    def line_pixels(self, line_images: Sequence[Picture]) -> UInt8[np.ndarray, "b y x"]:
        """Lines of text as the engine takes them, once they are floats."""
        height, width = self.config.line_height, self.config.line_width
        return np.stack(
            [images_lib.to_line(images_lib.open_image(i), height, width) for i in line_images]
        )

    def _prefixes(self, images: Sequence[Picture]) -> Float[np.ndarray, "b n d"]:
        """Image tokens; a picture that comes with several questions is encoded once."""
        # The same path or the same object: to compare pixels, all would have to be opened first.
        keys = [str(image) if isinstance(image, str | Path) else id(image) for image in images]
        first = {key: keys.index(key) for key in keys}
        pixels = self.pixels([images[i] for i in first.values()])
        encoded = self.engine.encode_image(pixels.astype(np.float32))
        rows = {key: row for row, key in enumerate(first)}
        return encoded[[rows[key] for key in keys]]

    def _generate(
        self, images: Sequence[Picture], prompt_ids: Sequence[Sequence[int]], limit: int, beam: int
    ) -> list[Scored]:
        if not 1 <= beam <= decode.MAX_BEAM:
            raise ValueError(f"beam must be 1 to {decode.MAX_BEAM}, got {beam}")
        answers: list[decode.Decoded] = []
        how = {"end": self.tokenizer.eos_id, "banned": self.banned, "limit": limit}
        for start in range(0, len(images), MAX_ROWS):
            prefix = self._prefixes(images[start : start + MAX_ROWS])
            part = prompt_ids[start : start + MAX_ROWS]
            if beam == 1:
                padded = decode.pad_prompts(part, self.config.max_text)
                answers += decode.greedy(self.engine, prefix, padded, **how)
                continue
            for row, prompt in enumerate(part):
                padded = decode.pad_prompts([prompt], self.config.max_text)
                one = prefix[row : row + 1]
                answers.append(decode.beam(self.engine, one, padded, width=beam, **how))
        return [
            Scored(self.tokenizer.decode(answer.ids).strip(), float(np.exp(answer.score)))
            for answer in answers
        ]

    def _stream(self, image: Picture, prompt: list[int], limit: int) -> Iterator[str]:
        prefix = self.engine.encode_image(self.pixels([image]).astype(np.float32))
        padded = decode.pad_prompts([prompt], self.config.max_text)
        ids: list[int] = []
        shown = text = ""
        how = {"end": self.tokenizer.eos_id, "banned": self.banned, "limit": limit}
        for step in decode.steps(self.engine, prefix, padded, **how):
            if step.token[0] == self.tokenizer.eos_id:
                break
            ids.append(int(step.token[0]))
            text = self.tokenizer.decode(ids).strip()
            # A sign spelled in bytes is shown once its last byte is there.
            if not text.endswith("\N{REPLACEMENT CHARACTER}") and text.startswith(shown):
                yield text[len(shown) :]
                shown = text
        if text != shown:
            yield text[len(shown) :]
