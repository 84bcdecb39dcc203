"""Prepares a training run once: vocabulary, tables, text lines, sentence embeddings and stem cells.

Everything that is frozen is computed here and memory-mapped (float16); the training loop never sees
a pixel of a picture. Each file is written whole and skipped when it is there, so an interrupted
preparation goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.data import pipeline, sources, tables, wordnet
from mmllm.data.tokenizer import Tokenizer
from mmllm.train import stem_cells, teacher

CORPORA = ("emoji", "stamps", "ocr_lines", "composites", "easy_vqa")
CAPTIONED = ("emoji", "stamps", "composites")
NAMED = ("emoji", "stamps")  # their captions are the names of the bank
QUESTIONED = ("composites", "easy_vqa")
TOKENIZER = "tokenizer.model"
TEXTS = "texts.npz"
TOKENIZER_LINES = 20_000
STATISTICS_PICTURES = 4096
REPORT_EVERY = 40  # batches
Report = Callable[[str], None]


def cache_folder(config: Config) -> Path:
    """Where the cache of a config lies: keyed by what it depends on, corpora included.

    Raises:
      FileNotFoundError: a corpus that has not been built.
    """
    missing = [name for name in CORPORA if not sources.is_built(name)]
    if missing:
        raise FileNotFoundError(
            f"corpora not built: {', '.join(missing)}; run: mmllm data build {' '.join(missing)}"
        )
    model = config.model
    key = {
        "data": config_lib.to_dict(config.data),
        "seed": config.seed,
        "stem": [model.stem, model.tap, model.patch, model.image_side],
        "line": [model.line_height, model.line_width],
        "vocab_size": model.vocab_size,
        "corpora": {name: sources.data_hash(name) for name in CORPORA},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return paths.data_dir() / "tokens" / digest


def prepare(config: Config, report: Report = print) -> Path:
    """Builds what is missing of a config's cache and returns its folder.

    Raises:
      FileNotFoundError: a corpus that has not been built.
    """
    folder = cache_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    builder = _Builder(config, folder, report)
    tokenizer = builder.tokenizer()
    builder.captions(tokenizer)
    builder.questions(tokenizer)
    builder.lines()
    data = config.data
    for corpus, views in (
        ("composites", data.scene_views),
        ("easy_vqa", 0),
        ("stamps", data.stamp_views),
        ("emoji", data.emoji_views),
    ):
        builder.cells(corpus, views)
    return folder


class _Builder:
    """The steps of a preparation, in order; each leaves files that the next ones read."""

    def __init__(self, config: Config, folder: Path, report: Report) -> None:
        self.config, self.folder, self.report = config, folder, report
        self._stem: Callable[[np.ndarray], np.ndarray] | None = None

    def elements(self, corpus: str, *, images: bool = False) -> Any:
        """The training split of a corpus; without images only its texts are read, which is fast."""
        source = sources.load(corpus, "train", images=images)
        limit = self.config.data.limit
        return source if limit is None else [source[i] for i in range(min(limit, len(source)))]

    def tokenizer(self) -> Tokenizer:
        path = self.folder / TOKENIZER
        if path.exists():
            return Tokenizer(path)
        self.report("training the vocabulary")
        lines = self.elements("ocr_lines")
        texts = tables.tokenizer_texts(
            [element for corpus in CAPTIONED for element in self.elements(corpus)],
            [element for corpus in QUESTIONED for element in self.elements(corpus)],
            (lines[i]["text"] for i in range(min(TOKENIZER_LINES, len(lines)))),
            dictionary(self.config.data.dictionary_words),
        )
        return tables.train_tokenizer(texts, path, self.config.model.vocab_size)

    def captions(self, tokenizer: Tokenizer) -> None:
        """The captions of each corpus, and the texts made from them."""
        files = {corpus: self.folder / f"{corpus}_captions.npz" for corpus in CAPTIONED}
        if all(path.exists() for path in (*files.values(), self.folder / TEXTS)):
            return
        captioned = {}
        for corpus, path in files.items():
            table = tables.caption_table(self.elements(corpus), tokenizer, self.config.data)
            left_out = int(np.sum(table.weight == 0))
            if left_out:
                self.report(f"{corpus}: {left_out} pictures whose caption is too long left out")
            _save(path, ids=table.ids, first=table.first, weight=table.weight)
            captioned[corpus] = table
        self._texts(tokenizer, [captioned[corpus] for corpus in NAMED])

    def _texts(self, tokenizer: Tokenizer, captioned: Sequence[tables.CaptionTable]) -> None:
        """The caption bank with its sentence embeddings, and the text tower's inputs."""
        bank, labels, spoken = caption_bank(captioned)
        data = self.config.data
        words = dictionary(data.dictionary_words)
        self.report(f"embedding {len(bank)} captions and {len(words)} dictionary words")
        model = teacher.SentenceTeacher.load()
        known = len(bank) + len(spoken)
        rows = [*bank, *(text for _, text in spoken), *(lemma for lemma, _ in words)]
        # English and the other languages, all together, are drawn equally often.
        share = np.repeat([len(spoken) / len(bank), 1.0, 0.0], [len(bank), len(spoken), len(words)])
        word_teacher = mean_embedding(model, words)
        caption_teacher = np.zeros((known, word_teacher.shape[1]))  # theirs is the bank's
        _save(
            self.folder / TEXTS,
            ids=tables.text_rows(tokenizer, rows, data.text_tokens),
            label=np.array(
                [*range(len(bank)), *spoken.values(), *([pipeline.NO_LABEL] * len(words))]
            ),
            weight=share.astype(np.float32),
            teacher=np.concatenate([caption_teacher, word_teacher]).astype(np.float16),
            bank_teacher=mean_embedding(model, list(bank.items())).astype(np.float16),
            **{f"{corpus}_label": label for corpus, label in zip(NAMED, labels, strict=True)},
        )

    def questions(self, tokenizer: Tokenizer) -> None:
        for corpus in QUESTIONED:
            path = self.folder / f"{corpus}_questions.npz"
            if path.exists():
                continue
            table = tables.question_table(self.elements(corpus), tokenizer, self.config.data)
            if table.left_out:
                self.report(
                    f"{corpus}: {table.left_out} questions longer than data.decoder_tokens left out"
                )
            _save(path, ids=table.ids, answer=table.answer, picture=table.picture)

    def lines(self) -> None:
        pixels_path, ids_path = self.folder / "lines_pixels.npy", self.folder / "lines_ids.npy"
        if pixels_path.exists() and ids_path.exists():
            return
        source = self.elements("ocr_lines", images=True)
        self.report(f"packing {len(source)} text lines")
        model, length = self.config.model, self.config.data.line_chars
        elements = (source[i] for i in range(len(source)))
        pixels, ids = tables.line_arrays(
            elements, len(source), model.line_height, model.line_width, length
        )
        for path, array in ((pixels_path, pixels), (ids_path, ids)):
            with paths.written_whole(path) as partial, partial.open("wb") as file:
                np.save(file, array)

    def cells(self, corpus: str, views: int) -> None:
        """Stem cells of the plain view and `views` augmented ones, a file each."""
        for view in range(views + 1):
            path = self.folder / f"{corpus}_cells_{view}.npy"
            if not path.exists():
                self.report(f"{corpus}: stem cells of view {view} of {views}")
                with paths.written_whole(path) as partial:
                    self._write_cells(partial, corpus, view)

    def _write_cells(self, path: Path, corpus: str, view: int) -> None:
        model = self.config.model
        self._stem = self._stem or stem_cells.stem_function(self.config)
        source = self.elements(corpus, images=True)
        shape = (len(source), model.stem_grid, model.stem_grid, model.stem_channels)
        out = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        key = (self.config.seed, CORPORA.index(corpus), view)
        batches = stem_cells.view_batches(source, view, key, model.image_side)
        for count, (start, pixels) in enumerate(batches):
            out[start : start + len(pixels)] = self._stem(pixels)
            if count and count % REPORT_EVERY == 0:
                self.report(f"{corpus} view {view}: {start}/{len(source)} pictures")
        out.flush()


def dictionary(words: int) -> list[tuple[str, str]]:
    """WordNet's nouns for things one can draw, with a gloss: several senses first, then short."""
    senses: dict[str, list[str]] = {}
    for lemma, gloss in wordnet.noun_glosses(max_senses=2, categories=wordnet.PICTURABLE):
        senses.setdefault(lemma, []).append(gloss)
    plain = [lemma for lemma in senses if lemma.replace(" ", "").isalpha() and lemma.count(" ") < 2]
    plain.sort(key=lambda lemma: (-len(senses[lemma]), lemma.count(" "), len(lemma), lemma))
    return [(lemma, senses[lemma][0]) for lemma in plain[:words]]


def caption_bank(
    captioned: Sequence[tables.CaptionTable],
) -> tuple[dict[str, str], list[np.ndarray], dict[tuple[str, str], int]]:
    """Joins the captions of several corpora.

    Returns:
      Unique English captions in lower case with their keywords; for each corpus the place in the
      bank of each picture's caption; and the place that a (language, caption) stands for.
    """
    bank: dict[str, str] = {}
    for table in captioned:
        for text, keywords in zip(table.english, table.keywords, strict=True):
            bank.setdefault(text.lower(), ", ".join(keywords.split("|")))
    index = {text: place for place, text in enumerate(bank)}
    labels, spoken = [], {}
    for table in captioned:
        label = np.array([index[text.lower()] for text in table.english])
        for place, others in zip(label, table.others, strict=True):
            spoken |= {(language, text.lower()): int(place) for language, text in others}
        labels.append(label)
    return bank, labels, spoken


def mean_embedding(model: teacher.SentenceTeacher, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Unit mean of the embeddings of "name" and "name: explanation", (n, 384)."""
    names = np.asarray(model.embed([name for name, _ in pairs]))
    full = np.asarray(model.embed([f"{name}: {more}" if more else name for name, more in pairs]))
    total = names + full
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def _save(path: Path, **arrays: Any) -> None:
    with paths.written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def open_arrays(config: Config, folder: Path) -> pipeline.TrainingArrays:
    """Memory-maps a prepared cache."""
    data = config.data

    def cells(corpus: str, views: int) -> tuple[np.ndarray, ...]:
        return tuple(
            np.load(folder / f"{corpus}_cells_{v}.npy", mmap_mode="r") for v in range(views + 1)
        )

    def questioned(corpus: str, views: int) -> pipeline.Questioned:
        return pipeline.Questioned(
            cells(corpus, views), **np.load(folder / f"{corpus}_questions.npz")
        )

    texts = dict(np.load(folder / TEXTS))
    labels = {name: texts.pop(f"{name}_label") for name in NAMED}

    def captioned(corpus: str, views: int) -> pipeline.Captioned:
        table = np.load(folder / f"{corpus}_captions.npz")
        label = labels.get(corpus, np.full(len(table["weight"]), pipeline.NO_LABEL))
        return pipeline.Captioned(cells(corpus, views), label=label, **table)

    return pipeline.TrainingArrays(
        emoji=captioned("emoji", data.emoji_views),
        stamps=captioned("stamps", data.stamp_views),
        composites=captioned("composites", data.scene_views),
        composites_vqa=questioned("composites", data.scene_views),
        easy_vqa=questioned("easy_vqa", 0),
        lines=pipeline.Lines(
            np.load(folder / "lines_pixels.npy", mmap_mode="r"), np.load(folder / "lines_ids.npy")
        ),
        texts=pipeline.Texts(**texts),
    )


def channel_statistics(arrays: pipeline.TrainingArrays) -> dict[str, np.ndarray]:
    """Scale and bias that give the stem's channels mean 0 and deviation 1 over the emoji."""
    plain = np.asarray(arrays.emoji.cells[0][:STATISTICS_PICTURES], np.float32)
    plain = plain.reshape(-1, plain.shape[-1])
    scale = 1.0 / (plain.std(axis=0) + 1e-3)
    bias = -plain.mean(axis=0) * scale
    return {"scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}
