"""Phase 1, corpora -> vocabulary, tables of ids, text lines and sentence embeddings.

Reads the built corpora; leaves a folder that all runs with the same texts share. Each file is
written whole and skipped when it is there, so an interrupted preparation goes on where it stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.data import pipeline, sources, tables
from mmllm.data.tokenizer import Tokenizer
from mmllm.train import feature_cache, prototype_texts, teacher
from mmllm.train.run import Run
from mmllm.train.student import start

CORPORA = ("emoji", "stamps", "ocr_lines", "composites", "easy_vqa")
NAMED = ("emoji", "stamps")  # their captions are the names of the prototypes
TEXTS = "texts.npz"
CAPTIONED = ("emoji", "stamps", "composites")
QUESTIONED = ("composites", "easy_vqa")
TOKENIZER = "tokenizer.model"
DRAWN = ("row_tokens", "name_tokens", "answer_tokens")  # how batches are drawn, not what from
NOTE = "cache.txt"
TOKENIZER_LINES = 20_000
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
    model, data = config.model, config_lib.to_dict(config.data)
    key = {
        "data": {name: value for name, value in data.items() if name not in DRAWN},
        "seed": start.data_seed(config),
        "backbone": [model.backbone, model.level, model.patch, model.image_side],
        "line": [model.line_height, model.line_width],
        "vocab_size": model.vocab_size,
        "corpora": {name: sources.data_hash(name) for name in CORPORA},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return paths.data_dir() / "tokens" / digest


def run(run: Run) -> None:
    """Leaves `run.tables`, and the vocabulary in the run's folder."""
    run.tables = prepare(run.config, run.report)


def prepare(config: Config, report: Report = print) -> Path:
    """Builds what is missing of a config's tables and returns their folder.

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
    return folder


class _Builder:
    """The steps of a preparation, in order; each leaves files that the next ones read."""

    def __init__(self, config: Config, folder: Path, report: Report) -> None:
        self.config, self.folder, self.report = config, folder, report

    def elements(self, corpus: str, *, images: bool = False) -> Any:
        """The training split of a corpus."""
        return feature_cache.elements(self.config, corpus, images=images)

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
            prototype_texts.dictionary(self.config.data.dictionary_words),
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
        """The caption prototypes with its sentence embeddings, and the text tower's inputs."""
        prototypes, labels, spoken = prototype_texts.join(captioned)
        data = self.config.data
        words = prototype_texts.dictionary(data.dictionary_words)
        self.report(f"embedding {len(prototypes)} captions and {len(words)} dictionary words")
        model = teacher.SentenceTeacher.load()
        known = len(prototypes) + len(spoken)
        rows = [*prototypes, *(text for _, text in spoken), *(lemma for lemma, _ in words)]
        # English and the other languages, all together, are drawn equally often.
        share = np.repeat(
            [len(spoken) / len(prototypes), 1.0, 0.0], [len(prototypes), len(spoken), len(words)]
        )
        word_teacher = prototype_texts.mean_embedding(model, words)
        caption_teacher = np.zeros((known, word_teacher.shape[1]))  # theirs is the prototypes's
        _save(
            self.folder / TEXTS,
            ids=tables.text_rows(tokenizer, rows, data.text_tokens),
            label=np.array(
                [*range(len(prototypes)), *spoken.values(), *([pipeline.NO_LABEL] * len(words))]
            ),
            weight=share.astype(np.float32),
            teacher=np.concatenate([caption_teacher, word_teacher]).astype(np.float16),
            prototype_sentences=prototype_texts.mean_embedding(
                model, list(prototypes.items())
            ).astype(np.float16),
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


def _save(path: Path, **arrays: Any) -> None:
    with paths.written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def open_arrays(config: Config, folder: Path) -> pipeline.TrainingArrays:
    """Memory-maps a prepared cache."""
    data = config.data

    def features(corpus: str, views: int) -> tuple[np.ndarray, ...]:
        return feature_cache.opened(feature_cache.folder(config, folder, corpus), views)

    def questioned(corpus: str, views: int) -> pipeline.Questioned:
        return pipeline.Questioned(
            features(corpus, views), **np.load(folder / f"{corpus}_questions.npz")
        )

    texts = dict(np.load(folder / TEXTS))
    labels = {name: texts.pop(f"{name}_label") for name in NAMED}

    def captioned(corpus: str, views: int) -> pipeline.Captioned:
        table = np.load(folder / f"{corpus}_captions.npz")
        label = labels.get(corpus, np.full(len(table["weight"]), pipeline.NO_LABEL))
        return pipeline.Captioned(features(corpus, views), label=label, **table)

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


def claim(config: Config, workdir: Path) -> None:
    """Binds a run to its cache: other corpora would change the vocabulary and the prototypes under
    it.

    Raises:
      ValueError: the run began with another cache.
    """
    note, name = workdir / NOTE, cache_folder(config).name
    if not note.exists():
        with paths.written_whole(note) as partial:
            partial.write_text(f"{name}\n")
    elif (known := note.read_text().strip()) != name:
        raise ValueError(
            f"{workdir} holds a run on the cache {known}, the corpora now give {name}: they "
            "changed since; use another --workdir"
        )


def keep_files(config: Config, folder: Path, workdir: Path) -> None:
    """Copies what export needs beside the checkpoints from a cache to a run's folder."""
    with paths.written_whole(workdir / TOKENIZER) as partial:
        shutil.copyfile(folder / TOKENIZER, partial)
