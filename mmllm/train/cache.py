"""Prepares a training run once: vocabulary, tables, text lines, sentence embeddings and stem cells.

The pretrained stem is frozen, so its cells for a few augmented views of every picture are computed here
and memory-mapped (float16); the training loop never sees a pixel of a picture. Each file is written
whole and skipped when it is there, so an interrupted preparation goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.data import pipeline, pretrained, sources, tables, transforms, wordnet
from mmllm.data.tokenizer import Tokenizer
from mmllm.models import efficientnet_lite0
from mmllm.models import mmllm as model_lib
from mmllm.train import teacher

CORPORA = ("emoji", "stamps", "ocr_lines", "composites", "easy_vqa")
STEM_BATCH = 32
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


def stem_function(config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pictures (b, side, side, 3) -> float16 stem cells, in fixed batches."""
    model = model_lib.build(config.model)
    params: dict[str, Any] = {}
    if config.model.stem == "efficientnet_lite0":
        weights = pretrained.efficientnet_lite0_weights()
        params = {"stem": efficientnet_lite0.convert_weights(weights, config.model.tap)}

    @jax.jit
    def run(pixels: jax.Array) -> jax.Array:
        cells = model.apply({"params": params}, pixels.astype(jnp.float32), method="stem_cells")
        return cells.astype(jnp.float16)

    def apply(pixels: np.ndarray) -> np.ndarray:
        room = STEM_BATCH - len(pixels)
        padded = np.pad(pixels, ((0, room), (0, 0), (0, 0), (0, 0)))
        return np.asarray(run(padded))[: len(pixels)]

    return apply


def _save(path: Path, **arrays: Any) -> None:
    with paths.written_whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


class _Builder:
    """The steps of a preparation, in order; each leaves files that the next ones read."""

    def __init__(self, config: Config, folder: Path, report: Report) -> None:
        self.config, self.folder, self.report = config, folder, report
        self._stem: Callable[[np.ndarray], np.ndarray] | None = None

    def elements(self, corpus: str, *, images: bool = False) -> Sequence[Any]:
        """The training split of a corpus; without images only its texts are read, which is fast."""
        source = sources.load(corpus, "train", images=images)
        limit = self.config.data.limit
        return source if limit is None else [source[i] for i in range(min(limit, len(source)))]

    def tokenizer(self) -> Tokenizer:
        path = self.folder / "tokenizer.model"
        if path.exists():
            return Tokenizer(path)
        self.report("training the vocabulary")
        lines = self.elements("ocr_lines")
        captioned = [e for name in ("emoji", "stamps", "composites") for e in self.elements(name)]
        asked = [e for name in ("composites", "easy_vqa") for e in self.elements(name)]
        texts = tables.tokenizer_texts(
            captioned,
            asked,
            (lines[i]["text"] for i in range(min(TOKENIZER_LINES, len(lines)))),
            self.dictionary(),
        )
        return tables.train_tokenizer(texts, path, self.config.model.vocab_size)

    def dictionary(self) -> list[tuple[str, str]]:
        """WordNet's nouns for things one can draw, with a gloss: several senses first, then short ones."""
        senses: dict[str, list[str]] = {}
        for lemma, gloss in wordnet.noun_glosses(max_senses=2, categories=wordnet.PICTURABLE):
            senses.setdefault(lemma, []).append(gloss)
        plain = [lemma for lemma in senses if lemma.replace(" ", "").isalpha() and lemma.count(" ") < 2]
        plain.sort(key=lambda lemma: (-len(senses[lemma]), lemma.count(" "), len(lemma), lemma))
        return [(lemma, senses[lemma][0]) for lemma in plain[: self.config.data.dictionary_words]]

    def cells(self, corpus: str, views: int) -> None:
        """Stem cells of the plain view and `views` augmented ones, a file each."""
        source = self.elements(corpus, images=True)
        for view in range(views + 1):
            path = self.folder / f"{corpus}_cells_{view}.npy"
            if path.exists():
                continue
            self._stem = self._stem or stem_function(self.config)
            grid, channels = self.config.model.stem_grid, self.config.model.stem_channels
            with paths.written_whole(path) as partial:
                out = np.lib.format.open_memmap(
                    partial, "w+", np.float16, (len(source), grid, grid, channels)
                )
                for start, pixels in self._batches(corpus, source, view):
                    out[start : start + len(pixels)] = self._stem(pixels)
                    if start // STEM_BATCH % 40 == 0:
                        self.report(f"{corpus} view {view} of {views}: {start}/{len(source)} pictures")
                out.flush()

    def _batches(
        self, corpus: str, source: Sequence[Any], view: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        side = self.config.model.image_side

        def draw(start: int) -> tuple[int, np.ndarray]:
            stop = min(start + STEM_BATCH, len(source))
            key = [self.config.seed, CORPORA.index(corpus), view]
            rows = [picture_view(source[i], view, np.random.default_rng([*key, i]), side) for i in range(start, stop)]
            return start, np.stack(rows)

        with ThreadPoolExecutor(2) as pool:
            yield from _windowed(pool, draw, range(0, len(source), STEM_BATCH))

    def captions(self, corpus: str, tokenizer: Tokenizer) -> tables.CaptionTable:
        table = tables.caption_table(self.elements(corpus), tokenizer, self.config.data)
        left_out = int(np.sum(table.weight == 0))
        if left_out:
            self.report(f"{corpus}: {left_out} pictures whose caption is too long left out")
        return table

    def questions(self, corpus: str, tokenizer: Tokenizer) -> None:
        path = self.folder / f"{corpus}_questions.npz"
        if path.exists():
            return
        table = tables.question_table(self.elements(corpus), tokenizer, self.config.data)
        if table.left_out:
            self.report(f"{corpus}: {table.left_out} questions longer than data.decoder_tokens left out")
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

    def texts(self, tokenizer: Tokenizer, captioned: dict[str, tables.CaptionTable]) -> None:
        """The caption bank with its sentence embeddings, the labels, and the text tower's inputs."""
        path = self.folder / "texts.npz"
        if path.exists():
            return
        bank: dict[str, str] = {}
        spoken: dict[tuple[str, str], int] = {}
        labels: dict[str, np.ndarray] = {}
        for name in ("emoji", "stamps"):
            table = captioned[name]
            for text, keywords in zip(table.english, table.keywords, strict=True):
                bank.setdefault(text.lower(), ", ".join(keywords.split("|")))
            index = {text: place for place, text in enumerate(bank)}
            labels[name] = np.array([index[text.lower()] for text in table.english])
            for place, others in zip(labels[name], table.others, strict=True):
                spoken |= {(language, text.lower()): int(place) for language, text in others}
        words = self.dictionary()
        self.report(f"embedding {len(bank)} captions and {len(words)} dictionary words")
        model = teacher.SentenceTeacher.load()
        rows = [*bank, *(text for _, text in spoken), *(lemma for lemma, _ in words)]
        share = [*([len(spoken) / len(bank)] * len(bank)), *([1.0] * len(spoken)), *([0.0] * len(words))]
        label = [*range(len(bank)), *spoken.values(), *([pipeline.NO_LABEL] * len(words))]
        word_teacher = mean_embedding(model, words)
        _save(
            path,
            ids=tables.text_rows(tokenizer, rows, self.config.data.text_tokens),
            label=np.array(label),
            weight=np.array(share, np.float32),
            teacher=np.concatenate([np.zeros((len(rows) - len(words), 384)), word_teacher]).astype(np.float16),
            bank_teacher=mean_embedding(model, list(bank.items())).astype(np.float16),
            emoji_label=labels["emoji"],
            stamps_label=labels["stamps"],
        )


def _windowed(pool: ThreadPoolExecutor, work: Callable[[int], Any], items: Sequence[int]) -> Iterator[Any]:
    """`pool.map` that holds only a few results at a time."""
    pending = []
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > 4:
            yield pending.pop(0).result()
    for future in pending:
        yield future.result()


def mean_embedding(model: teacher.SentenceTeacher, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Unit mean of the embeddings of "name" and "name: explanation", (n, 384)."""
    names = np.asarray(model.embed([name for name, _ in pairs]))
    full = np.asarray(model.embed([f"{name}: {more}" if more else name for name, more in pairs]))
    total = names + full
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def picture_view(element: Any, view: int, rng: np.random.Generator, side: int) -> np.ndarray:
    """One view of a corpus picture, (side, side, 3) uint8: plain for view 0, augmented otherwise."""
    image = element["image"]
    if image.shape[-1] == 3:
        plain = transforms.plain_cutout(image, side)
        return plain if view == 0 else transforms.jitter_colour(plain, rng)
    if view == 0:
        return transforms.plain_cutout(image, side)
    caption = tables.captions_of(element)[0][1]
    return transforms.augment_cutout(
        image,
        rng,
        side,
        flip=transforms.may_flip(caption),
        recolour=transforms.may_recolour(caption),
    )


def prepare(config: Config, report: Report = print) -> Path:
    """Builds what is missing of a config's cache and returns its folder."""
    folder = cache_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    builder = _Builder(config, folder, report)
    tokenizer = builder.tokenizer()
    captioned = {name: builder.captions(name, tokenizer) for name in ("emoji", "stamps", "composites")}
    for name, table in captioned.items():
        _save(folder / f"{name}_captions.npz", ids=table.ids, first=table.first, weight=table.weight)
    builder.questions("composites", tokenizer)
    builder.questions("easy_vqa", tokenizer)
    builder.texts(tokenizer, captioned)
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


def open_arrays(config: Config, folder: Path) -> pipeline.TrainingArrays:
    """Memory-maps a prepared cache."""
    data = config.data

    def cells(corpus: str, views: int) -> tuple[np.ndarray, ...]:
        return tuple(np.load(folder / f"{corpus}_cells_{v}.npy", mmap_mode="r") for v in range(views + 1))

    def questioned(corpus: str, views: int) -> pipeline.Questioned:
        return pipeline.Questioned(cells(corpus, views), **np.load(folder / f"{corpus}_questions.npz"))

    texts = dict(np.load(folder / "texts.npz"))
    labels = {name: texts.pop(f"{name}_label") for name in ("emoji", "stamps")}

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
    plain = np.asarray(arrays.emoji.cells[0][:4096], np.float32).reshape(-1, arrays.emoji.cells[0].shape[-1])
    scale = 1.0 / (plain.std(axis=0) + 1e-3)
    return {"scale": scale.astype(np.float32), "bias": (-plain.mean(axis=0) * scale).astype(np.float32)}
