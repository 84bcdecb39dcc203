"""Phase 1, corpora -> vocabulary, tables of ids, text lines and sentence embeddings.

Reads the built corpora of the mixture; leaves the vocabulary under its name and a folder of tables
that all runs with the same texts share. Each file is written whole and skipped when it is there, so
an interrupted preparation goes on where it stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.data import pipeline, pretrained, registry, sources, tables, vocabulary
from mmllm.data.tokenizer import Tokenizer
from mmllm.train.backbone import feature_cache
from mmllm.train.backbone.feature_cache import TRAIN, VAL
from mmllm.train.run import Run
from mmllm.train.text import prototype_texts, teacher
from mmllm.train.text import prototypes as prototypes_lib
from mmllm.train.text import vocabulary as vocabulary_lib

TEXTS = "texts.npz"
SENTENCES = "prototype_sentences.npy"  # a file of its own: only that can be memory-mapped
TOKENIZER = "tokenizer.model"  # in the folder of a run
NOTE = "cache.txt"
# Raise it with any change of what the code below writes for the same corpora and config.
TABLES_VERSION = 1
# Fields of `cfg.data` that change no table: how batches are drawn, what the features are, and the
# name of the vocabulary, whose bytes count instead.
APART = ("row_tokens", "name_tokens", "answer_tokens", "views", "vocabulary")
Report = Callable[[str], None]


def run(run: Run) -> None:
    """Leaves `run.tables`; in it, for a run that validates, a folder with those of "val"."""
    if run.validates:
        _check_validation(run.config)  # before the slow work: the remedy may be a flag
    run.tables = prepare(run.config, run.report)
    if run.validates:
        prepare_validation(run.config, run.tables, run.report)


def prepare(config: Config, report: Report = print) -> Path:
    """Builds what is missing of a config's vocabulary and tables; returns the tables' folder.

    Raises:
      FileNotFoundError: a corpus that has not been built.
      ValueError: a batch that the mixture cannot fill, or a vocabulary of another size.
    """
    tokenizer = vocabulary_lib.make(config, report).tokenizer
    folder = cache_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    builder = _Builder(config, folder, report)
    builder.captions(tokenizer)
    builder.questions(tokenizer)
    builder.lines()
    return folder


def prepare_validation(config: Config, tables_folder: Path, report: Report = print) -> None:
    """Builds what is missing of the tables of the "val" splits.

    Their captions are others than those trained on, and so are prototypes of their own; the words
    of the dictionary are the same.
    """
    folder = _folder_of(config, tables_folder, VAL)
    folder.mkdir(exist_ok=True)
    tokenizer = vocabulary_lib.make(config, report).tokenizer
    builder = _Builder(config, folder, report, VAL, words_of=tables_folder)
    builder.captions(tokenizer)
    builder.questions(tokenizer)
    builder.lines()


def _folder_of(config: Config, tables_folder: Path, split: str) -> Path:
    """Where the tables of a split lie: those of "val" below those of "train"."""
    if split == TRAIN:
        return tables_folder
    return tables_folder / f"{split}-{config.train.validation_pictures}"


def cache_folder(config: Config) -> Path:
    """Where the tables of a config lie, named by all that can change their bytes.

    Raises:
      FileNotFoundError: a corpus that has not been built, or no vocabulary.
    """
    _check_built(config)
    model, data = config.model, config_lib.to_dict(config.data)
    known = vocabulary.load(vocabulary_lib.name_of(config), model.vocab_size)
    key = {
        "version": TABLES_VERSION,
        "data": {name: value for name, value in data.items() if name not in APART},
        "line": [model.line_height, model.line_width],
        "vocabulary": known.sha256,
        # Above this bound the captions are in another order.
        "max_residuals": config.prototypes.max_residuals,
        "teacher": pretrained.MINILM.tensors_sha256,
        # A list: prototypes are in the order of the registry, and tasks say which tables there are.
        "corpora": [
            [name, registry.spec(name).tasks, sources.data_hash(name)]
            for name in registry.mixture(config)
        ],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return paths.data_dir() / "tables" / digest


def check(config: Config) -> None:
    """Refuses what no preparation can work with; computes nothing.

    Raises:
      FileNotFoundError: a corpus that has not been built.
      ValueError: a batch that the mixture cannot fill, or a vocabulary of another size.
    """
    registry.check(config)
    _check_built(config)
    if vocabulary.exists(vocabulary_lib.name_of(config)):
        vocabulary.load(vocabulary_lib.name_of(config), config.model.vocab_size)


def _check_built(config: Config) -> None:
    missing = [name for name in registry.mixture(config) if not sources.is_built(name)]
    if missing:
        raise FileNotFoundError(
            f"corpora not built: {', '.join(missing)}; run: mmllm data build {' '.join(missing)}"
        )


def _check_validation(config: Config) -> None:
    """Checks that every corpus of the mixture has pictures which no step sees.

    Raises:
      FileNotFoundError: a corpus that has not been built.
      ValueError: a corpus without a "val" split.
    """
    _check_built(config)
    without = [
        name for name in registry.mixture(config) if VAL not in sources.describe(name)["splits"]
    ]
    if without:
        raise ValueError(
            f"no split {VAL!r} in {', '.join(without)}, which train.validate_every="
            f"{config.train.validate_every} asks for; train without validation "
            "(--config.train.validate_every=0), or give the corpora that split"
        )


class _Builder:
    """The steps of a preparation, in order; each leaves files that the next ones read."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        report: Report,
        split: str = TRAIN,
        words_of: Path | None = None,
    ) -> None:
        self.config, self.folder, self.report = config, folder, report
        self._split, self._words_of = split, words_of

    def elements(self, corpus: str, *, images: bool = False) -> Any:
        """The split of a corpus."""
        return feature_cache.elements(self.config, corpus, self._split, images=images)

    def _nothing(self, corpus: str, what: str) -> ValueError:
        return ValueError(
            f"corpus {corpus!r} has no {what} of at most data.decoder_tokens "
            f"({self.config.data.decoder_tokens}) tokens in split {self._split!r}; raise it, or "
            "leave the corpus out of mix"
        )

    def captions(self, tokenizer: Tokenizer) -> None:
        """The captions of each corpus, and the texts made from those that are names."""
        files = {
            name: self.folder / f"{name}_captions.npz" for name in registry.captioned(self.config)
        }
        # The prototypes are joined from all corpora, so one missing file needs every table anew.
        texts = (self.folder / TEXTS, self.folder / SENTENCES)
        if all(path.exists() for path in (*files.values(), *texts)):
            return
        captioned = {}
        for corpus, path in files.items():
            table = tables.caption_table(self.elements(corpus), tokenizer, self.config.data)
            left_out = int(np.sum(table.weight == 0))
            if left_out == len(table.weight):
                raise self._nothing(corpus, "caption")
            if left_out:
                self.report(f"{corpus}: {left_out} pictures whose caption is too long left out")
            _save(path, ids=table.ids, first=table.first, weight=table.weight)
            captioned[corpus] = table
        self._texts(tokenizer, {name: captioned[name] for name in registry.of(self.config, "name")})

    def _texts(self, tokenizer: Tokenizer, named: Mapping[str, tables.CaptionTable]) -> None:
        """The text prototypes with their sentence embeddings, and the text tower's inputs."""
        data = self.config.data
        captions, labels, spoken = prototype_texts.join(
            list(named.values()), self.config.prototypes.max_residuals
        )
        sentences = self._embedded(list(captions.items()), "captions")
        texts = [*captions, *(text for _, text in spoken)]
        ids = tables.text_rows(tokenizer, texts, data.text_tokens)
        word_ids, teacher_rows = self._words(tokenizer) if captions else (ids[:0], sentences)
        # English and the other languages, all together, are drawn equally often.
        english = len(spoken) / len(captions) if spoken else 1.0
        share = np.repeat([english, 1.0, 0.0], [len(captions), len(spoken), len(word_ids)])
        _save(
            self.folder / TEXTS,
            ids=np.concatenate([ids, word_ids]),
            label=np.array(
                [*range(len(captions)), *spoken.values(), *([pipeline.NO_LABEL] * len(word_ids))]
            ),
            weight=share.astype(np.float32),
            teacher=teacher_rows.astype(np.float16),
            **{f"{name}_label": label for name, label in zip(named, labels, strict=True)},
        )
        _save_array(self.folder / SENTENCES, sentences.astype(np.float16))

    def _words(self, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and sentence embeddings of the dictionary's words."""
        data = self.config.data
        if self._words_of is None:
            words = prototype_texts.dictionary(data.dictionary_words)
            lemmas = tables.text_rows(tokenizer, (lemma for lemma, _ in words), data.text_tokens)
            return lemmas, self._embedded(words, "dictionary words")
        with np.load(self._words_of / TEXTS) as known:  # embedding them takes minutes
            return known["ids"][known["label"] == pipeline.NO_LABEL], known["teacher"]

    def _embedded(self, pairs: list[tuple[str, str]], what: str) -> np.ndarray:
        """Sentence embeddings of texts with what explains them, (n, 384)."""
        if not pairs:
            return np.zeros((0, prototypes_lib.TEACHER_WIDTH))
        self.report(f"embedding {len(pairs)} {what}")
        return prototype_texts.mean_embedding(teacher.SentenceTeacher.load(), pairs)

    def questions(self, tokenizer: Tokenizer) -> None:
        """The questions of each corpus with their answers."""
        for corpus in registry.of(self.config, "question"):
            path = self.folder / f"{corpus}_questions.npz"
            if path.exists():
                continue
            table = tables.question_table(self.elements(corpus), tokenizer, self.config.data)
            if not len(table.answer):
                raise self._nothing(corpus, "question")
            if table.left_out:
                self.report(
                    f"{corpus}: {table.left_out} questions longer than data.decoder_tokens left out"
                )
            _save(path, ids=table.ids, answer=table.answer, picture=table.picture)

    def lines(self) -> None:
        """The pixels and characters of each corpus of text lines."""
        for corpus in registry.of(self.config, "line"):
            files = [self.folder / f"{corpus}_{part}.npy" for part in ("pixels", "ids")]
            if all(path.exists() for path in files):
                continue
            source = self.elements(corpus, images=True)
            if not len(source):
                raise self._nothing(corpus, "text line")
            self.report(f"{corpus}: packing {len(source)} text lines")
            model, length = self.config.model, self.config.data.line_chars
            # One by one: all lines as decoded pictures would not fit in memory.
            elements = (source[i] for i in range(len(source)))
            arrays = tables.line_arrays(
                elements, len(source), model.line_height, model.line_width, length
            )
            for path, array in zip(files, arrays, strict=True):
                _save_array(path, array)


def _save(path: Path, **arrays: Any) -> None:
    with paths.written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def _save_array(path: Path, array: np.ndarray) -> None:
    with paths.written_whole(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def labels_of(folder: Path, corpus: str) -> np.ndarray:
    """The place of each picture's caption among the prototypes, of a corpus of names."""
    with np.load(folder / TEXTS) as texts:
        return texts[f"{corpus}_label"]


def sentences(folder: Path) -> np.ndarray:
    """(prototypes, 384) float16 sentence embeddings of the captions, memory-mapped."""
    return np.load(folder / SENTENCES, mmap_mode="r")


def open_arrays(config: Config, tables_folder: Path, split: str = TRAIN) -> pipeline.TrainingArrays:
    """Opens tables and features of all corpora of the mixture; what is large, memory-mapped."""
    folder = _folder_of(config, tables_folder, split)

    def features(corpus: str) -> tuple[np.ndarray, ...]:
        where = feature_cache.folder(config, tables_folder, corpus, split)
        return feature_cache.opened(where, feature_cache.views(config, corpus, split))

    texts = dict(np.load(folder / TEXTS))
    labels = {name: texts.pop(f"{name}_label") for name in registry.of(config, "name")}

    def captioned(corpus: str) -> pipeline.Captioned:
        table = np.load(folder / f"{corpus}_captions.npz")
        label = labels.get(corpus, np.full(len(table["weight"]), pipeline.NO_LABEL))
        return pipeline.Captioned(features(corpus), label=label, **table)

    def questioned(corpus: str) -> pipeline.Questioned:
        return pipeline.Questioned(features(corpus), **np.load(folder / f"{corpus}_questions.npz"))

    def lines(corpus: str) -> pipeline.Lines:
        pixels = np.load(folder / f"{corpus}_pixels.npy", mmap_mode="r")
        return pipeline.Lines(pixels, np.load(folder / f"{corpus}_ids.npy"))

    return pipeline.TrainingArrays(
        captioned={name: captioned(name) for name in registry.captioned(config)},
        questioned={name: questioned(name) for name in registry.of(config, "question")},
        lines={name: lines(name) for name in registry.of(config, "line")},
        texts=pipeline.Texts(**texts, prototype_sentences=sentences(folder)),
    )


def claim(config: Config, workdir: Path, report: Report = print) -> None:
    """Binds a run to its tables: other corpora would change the prototypes under it.

    Raises:
      FileNotFoundError: a corpus that has not been built.
      ValueError: the run began with other tables.
    """
    vocabulary_lib.make(config, report)  # the tables' name depends on it
    note, name = workdir / NOTE, cache_folder(config).name
    if not note.exists():
        with paths.written_whole(note) as partial:
            partial.write_text(f"{name}\n")
    elif (known := note.read_text().strip()) != name:
        raise ValueError(
            f"{workdir} holds a run on the cache {known}, the corpora now give {name}: they "
            "changed since; use another --workdir"
        )


def keep_files(config: Config, workdir: Path) -> None:
    """Copies what export needs beside the checkpoints to a run's folder: the vocabulary."""
    known = vocabulary.load(vocabulary_lib.name_of(config), config.model.vocab_size)
    with paths.written_whole(workdir / TOKENIZER) as partial:
        shutil.copyfile(known.path, partial)
