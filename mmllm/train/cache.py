"""Prepares a training run once: vocabulary, tables, text lines, sentence embeddings and stem cells.

Everything that is frozen is computed here and memory-mapped (float16); the training loop never sees
a pixel of a picture. Each file is written whole and skipped when it is there, so an interrupted
preparation goes on where it stopped.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths, tensors
from mmllm.common.config import Config
from mmllm.data import pipeline, sources, tables
from mmllm.data.tokenizer import Tokenizer
from mmllm.models import efficientnet_lite0
from mmllm.train import caption_bank, frozen_stem, stages, stem_cells, teacher, tune_stem
from mmllm.train.frozen_stem import TUNED

CORPORA = ("emoji", "stamps", "ocr_lines", "composites", "easy_vqa")
CAPTIONED = ("emoji", "stamps", "composites")
NAMED = ("emoji", "stamps")  # their captions are the names of the bank
QUESTIONED = ("composites", "easy_vqa")
TOKENIZER = "tokenizer.model"
TEXTS = "texts.npz"
DRAWN = ("row_tokens", "name_tokens", "answer_tokens")  # how batches are drawn, not what from
NOTE = "cache.txt"
TOKENIZER_LINES = 20_000
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
    model, data = config.model, config_lib.to_dict(config.data)
    key = {
        "data": {name: value for name, value in data.items() if name not in DRAWN},
        "seed": data_seed(config),
        "stem": [model.stem, model.tap, model.patch, model.image_side],
        "line": [model.line_height, model.line_width],
        "vocab_size": model.vocab_size,
        "tune": tune_key(config),
        "corpora": {name: sources.data_hash(name) for name in CORPORA},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return paths.data_dir() / "tokens" / digest


def data_seed(config: Config) -> int:
    """Seed of what is cached; a quantized run's is that of the run it starts from.

    So students of one float run share its cache and its stem, whatever their own seeds.

    Raises:
      FileNotFoundError: no run that `quant.start` names.
    """
    if not config.quant.start:
        return config.seed
    start = stages.start_folder(config) / "config.json"
    return int(json.loads(start.read_text())["seed"])


def tune_key(config: Config) -> list[Any]:
    """What the tuned stem depends on, besides the data."""
    if not config.tune.steps:
        return []
    model = config.model
    sizes = [model.head_width, model.embed_dim, model.feature_dropout]
    return [config_lib.to_dict(config.tune), *sizes]


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
    builder.stem()
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
        self._functions: dict[str | None, stem_cells.Function] = {}

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
            caption_bank.dictionary(self.config.data.dictionary_words),
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
        bank, labels, spoken = caption_bank.join(captioned)
        data = self.config.data
        words = caption_bank.dictionary(data.dictionary_words)
        self.report(f"embedding {len(bank)} captions and {len(words)} dictionary words")
        model = teacher.SentenceTeacher.load()
        known = len(bank) + len(spoken)
        rows = [*bank, *(text for _, text in spoken), *(lemma for lemma, _ in words)]
        # English and the other languages, all together, are drawn equally often.
        share = np.repeat([len(spoken) / len(bank), 1.0, 0.0], [len(bank), len(spoken), len(words)])
        word_teacher = caption_bank.mean_embedding(model, words)
        caption_teacher = np.zeros((known, word_teacher.shape[1]))  # theirs is the bank's
        _save(
            self.folder / TEXTS,
            ids=tables.text_rows(tokenizer, rows, data.text_tokens),
            label=np.array(
                [*range(len(bank)), *spoken.values(), *([pipeline.NO_LABEL] * len(words))]
            ),
            weight=share.astype(np.float32),
            teacher=np.concatenate([caption_teacher, word_teacher]).astype(np.float16),
            bank_teacher=caption_bank.mean_embedding(model, list(bank.items())).astype(np.float16),
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

    def stem(self) -> None:
        """Tunes the stem's tail, if the config says so; leaves the trunk's features beside it."""
        config, path = self.config, self.folder / TUNED
        if not config.tune.steps or path.exists():
            return
        untuned = frozen_stem.pretrained(config)
        trunk = stem_cells.part_function(untuned, tap=tune_stem.TRUNK)
        tail = stem_cells.part_function(untuned, tap=config.model.tap, entry=tune_stem.TRUNK)
        far: list[tune_stem.Named] = []
        near: list[tune_stem.Named] = []
        texts = np.load(self.folder / TEXTS)
        for corpus, views in self._named_views():
            paths_ = [self.folder / f"{corpus}_trunk_{view}.npy" for view in range(views + 1)]
            for view, trunk_path in enumerate(paths_):
                self._write(trunk_path, self._views(corpus, view), trunk, f"trunk of view {view}")
            features = [np.load(trunk_path, mmap_mode="r") for trunk_path in paths_]
            label = texts[f"{corpus}_label"]
            weight = np.load(self.folder / f"{corpus}_captions.npz")["weight"]
            far.append(tune_stem.Named(features, label, weight))
            cells = [
                np.concatenate([tail(part) for _, part in stem_cells.in_batches(view)])
                for view in features[: tune_stem.HEAD_VIEWS]
            ]
            near.append(tune_stem.Named(cells, label, weight))
        bank_teacher = texts["bank_teacher"].astype(np.float32)
        affine = stem_cells.channel_statistics(near[0].cells[0])
        tuned = tune_stem.tune(
            config,
            tune_stem.init_params(config, untuned, affine, bank_teacher),
            near,
            far,
            bank_teacher,
            self.folder / "tune",
            self.report,
        )
        # The cells must come from the stem as it ships.
        shipped = jax.tree.map(lambda value: value.astype(np.float16), tuned["tail"])
        tensors.write(path, {"tail": shipped})

    def _named_views(self) -> tuple[tuple[str, int], ...]:
        return (("emoji", self.config.data.emoji_views), ("stamps", self.config.data.stamp_views))

    def cells(self, corpus: str, views: int) -> None:
        """Stem cells of the plain view and `views` augmented ones, a file each."""
        for view in range(views + 1):
            path = cells_file(self.config, self.folder, corpus, view)
            if path.exists():
                continue
            trunk = self.folder / f"{corpus}_trunk_{view}.npy"
            if trunk.exists() and self._trunk_is_exact():
                features = np.load(trunk, mmap_mode="r")
                batches = len(features), stem_cells.in_batches(features)
                entry = tune_stem.TRUNK
            else:
                batches, entry = self._views(corpus, view), None
            self._write(path, batches, self._function(entry), f"stem cells of view {view}")

    def _function(self, entry: str | None) -> stem_cells.Function:
        """Pictures, or features of tap `entry`, -> cells; compiled once."""
        if entry not in self._functions:
            stem = frozen_stem.params(self.config, self.folder)
            if stem is not None:
                stem = frozen_stem.rounded(self.config, stem)
            if stem is None or entry is None:
                self._functions[entry] = stem_cells.stem_function(self.config, stem)
            else:
                tap = self.config.model.tap
                self._functions[entry] = stem_cells.part_function(stem, tap=tap, entry=entry)
        return self._functions[entry]

    def _trunk_is_exact(self) -> bool:
        """Whether the stem is rounded, if at all, only behind the features the trunk left."""
        blocks = {path.split("/")[1] for path in frozen_stem.coarse(self.config)}
        return blocks.isdisjoint(efficientnet_lite0.block_names(tune_stem.TRUNK))

    def _views(self, corpus: str, view: int) -> tuple[int, Iterator[tuple[int, np.ndarray]]]:
        """How many pictures a corpus has, and batches of a view of them."""
        source = self.elements(corpus, images=True)
        key = (data_seed(self.config), CORPORA.index(corpus), view)
        side = self.config.model.image_side
        return len(source), stem_cells.view_batches(source, view, key, side)

    def _write(
        self,
        path: Path,
        batches: tuple[int, Iterator[tuple[int, np.ndarray]]],
        function: stem_cells.Function,
        what: str,
    ) -> None:
        """Writes a function of all batches to a .npy file, unless it is there."""
        if path.exists():
            return
        self.report(f"{path.stem}: {what}")
        rows, parts = batches
        out: np.memmap | None = None
        with paths.written_whole(path) as partial:
            for count, (start, part) in enumerate(parts):
                features = function(part)
                if out is None:
                    shape = (rows, *features.shape[1:])
                    _check_room(path, rows * features[0].nbytes)
                    out = np.lib.format.open_memmap(partial, "w+", features.dtype, shape)
                out[start : start + len(features)] = features
                if count and count % REPORT_EVERY == 0:
                    self.report(f"{path.stem}: {start}/{rows} pictures")
            if out is not None:
                out.flush()


def cells_file(config: Config, folder: Path, corpus: str, view: int) -> Path:
    """Where the stem cells of a view lie; a stem rounded coarsely has cells of its own."""
    return folder / f"{corpus}_cells{frozen_stem.digest(config)}_{view}.npy"


def _check_room(path: Path, size_bytes: int) -> None:
    """Refuses before a memory map is made: on a full disk, writing to one ends the process."""
    free = shutil.disk_usage(path.parent).free
    if free < size_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {size_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free space "
            "and run again: what is finished stays",
        )


def _save(path: Path, **arrays: Any) -> None:
    with paths.written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def open_arrays(config: Config, folder: Path) -> pipeline.TrainingArrays:
    """Memory-maps a prepared cache."""
    data = config.data

    def cells(corpus: str, views: int) -> tuple[np.ndarray, ...]:
        return tuple(
            np.load(cells_file(config, folder, corpus, view), mmap_mode="r")
            for view in range(views + 1)
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


def claim(config: Config, workdir: Path) -> None:
    """Binds a run to its cache: other corpora would change the vocabulary and the bank under it.

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
    for name in (TOKENIZER, TUNED) if config.tune.steps else (TOKENIZER,):
        with paths.written_whole(workdir / name) as partial:
            shutil.copyfile(folder / name, partial)
