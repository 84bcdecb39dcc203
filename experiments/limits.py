"""Where the float nano loses: each row puts what a part should give in its place.

Command:  python -m experiments.limits [--run=RUN_FOLDER]
Hardware: 2 CPU cores; needs the float run that the shipped bundle came from, and its cache.
Time:     3 minutes.
Writes:   experiments/results/limits.json

The prototypes's vectors, which training compares pictures with, stand in for the text tower, and a true
name's vector for a picture: what a part put in its place gains, the part itself loses.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import runner
from mmllm import bundle as bundle_lib
from mmllm import models
from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.data import sources
from mmllm.evaluate import benchmark, tasks
from mmllm.evaluate import corpus as corpus_lib
from mmllm.evaluate.metrics import vqa
from mmllm.evaluate.metrics.estimate import mean
from mmllm.export import from_run
from mmllm.runtime import decode, prompts
from mmllm.runtime import model as runtime
from mmllm.train import cache, checkpoint, prototype_texts, teacher
from mmllm.train import prototypes as prototypes_lib

SHAPES = {"circle", "rectangle", "triangle"}
NEGATIONS = {"not", "no"}
LANGUAGES = ("en", "de")


@dataclasses.dataclass(frozen=True)
class Changed:
    """The model with its text embeddings, or the prefix it captions from, replaced."""

    model: runtime.MobileMultiModalLLM
    texts: Callable[[Sequence[str]], np.ndarray] | None = None
    prefix: Callable[[Sequence[Any]], np.ndarray] | None = None

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        return self.model.embed_images(images)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.model.embed_texts(texts) if self.texts is None else self.texts(texts)

    def caption_batch(self, images: Sequence[Any], language: str) -> list[str]:
        if self.prefix is None:
            return self.model.caption_batch(images, language)
        tokenizer, engine = self.model.tokenizer, self.model.engine
        asked = [prompts.caption(tokenizer, language)] * len(images)
        answers = decode.greedy(
            engine,
            self.prefix(images),
            decode.pad_prompts(asked, engine.config.max_text),
            end=tokenizer.eos_id,
            banned=self.model.banned,
            limit=runtime.CAPTION_TOKENS,
        )
        return [tokenizer.decode(answer.ids).strip() for answer in answers]


class Named(benchmark.BuiltSplits):
    """Splits in which the name of a picture stands in its place."""

    def pictures(self, corpus: str, split: str) -> Any:
        records = self.texts(corpus, split)
        return [
            {**record, "image": corpus_lib.names(corpus_lib.captions(record))[0]}
            for record in records
        ]


class Limits:
    """A float model, the prototypes it was trained with, and the benchmark's splits."""

    def __init__(self, run: Path, config: config_lib.Config, folder: Path) -> None:
        bundle = bundle_lib.load(from_run.save(run, folder / "nano_float"))
        params = checkpoint.load_params(run)
        self.model = runtime.MobileMultiModalLLM.from_pretrained(bundle.folder, "jax")
        self._module, self._params = models.build(bundle.config), bundle.params
        texts = np.load(cache.cache_folder(config) / cache.TEXTS)
        records = sources.load("emoji", "train", images=False)
        names = [corpus_lib.names(corpus_lib.captions(record))[0] for record in records]
        self.place = dict(zip(names, texts["emoji_label"].tolist(), strict=True))
        prototype_sentences = jnp.asarray(texts["prototype_sentences"], jnp.float32)
        self._prototype_params = params["prototypes"]
        self._bank = prototypes_lib.TextPrototypes(len(prototype_sentences), config.model.embed_dim)
        self._vectors = np.asarray(
            prototypes_lib.vectors(self._prototype_params, prototype_sentences)
        )
        self._teacher = teacher.SentenceTeacher.load()
        unseen = sources.load("emoji", "concept_out", images=False)
        self._keywords = {
            corpus_lib.names(corpus_lib.captions(record))[0]: ", ".join(corpus_lib.keywords(record))
            for record in unseen
        }

    def vectors(self, names: Sequence[str]) -> np.ndarray:
        """The prototypes's own vectors of known names."""
        return self._vectors[[self.place[name] for name in names]]

    def mapped(self, names: Sequence[str]) -> np.ndarray:
        """What the tower should say of unknown names: their sentence embeddings, mapped."""
        return self._map(np.asarray(self._teacher.embed(list(names))))

    def explained(self, names: Sequence[str]) -> np.ndarray:
        """The same of "name" and "name: keywords", as the prototypes knows its captions."""
        pairs = [(name, self._keywords[name]) for name in names]
        return self._map(prototype_texts.mean_embedding(self._teacher, pairs))

    def _map(self, sentences: np.ndarray) -> np.ndarray:
        params = {"params": self._prototype_params}
        return np.asarray(self._bank.apply(params, jnp.asarray(sentences), method="words"))

    def name_prefix(self, embedding: np.ndarray) -> np.ndarray:
        params = {"params": self._params}
        return np.asarray(self._module.apply(params, jnp.asarray(embedding), method="name_prefix"))

    def nearest_prefix(self, images: Sequence[Any]) -> np.ndarray:
        """The prefix of the known name whose vector lies nearest to each picture."""
        best = np.argmax(self.model.embed_images(images) @ self._vectors.T, axis=1)
        return self.name_prefix(self._vectors[best])

    def searches(self) -> list[dict[str, Any]]:
        """Search with the tower, and with what it was trained to say."""
        plain = benchmark.BuiltSplits(sources, None)
        rows = []
        for row, part, texts in (
            (benchmark.ROWS[0], "text tower", None),
            (benchmark.ROWS[0], "prototypes's vectors", self.vectors),
            (benchmark.ROWS[1], "text tower", None),
            (benchmark.ROWS[1], "sentence map of the name", self.mapped),
            (benchmark.ROWS[1], "sentence map of name and keywords", self.explained),
        ):
            model: Any = Changed(self.model, texts=texts)
            rows.append(_row(row, part, tasks.measure_retrieval(row, model, plain).metrics))
        return rows

    def captions(self) -> list[dict[str, Any]]:
        """Captions from the whole prefix, from fewer tokens of it, and from the true name."""
        plain, named = benchmark.BuiltSplits(sources, None), Named(sources, None)
        rows = []
        for language in LANGUAGES:
            row = tasks.Row("caption", "emoji", "style_out", language=language, most=1000)
            for part, splits, prefix in (
                ("whole prefix", plain, None),
                ("embedding alone", plain, lambda i: self.name_prefix(self.model.embed_images(i))),
                ("vector of the nearest name", plain, self.nearest_prefix),
                ("vector of the true name", named, lambda i: self.name_prefix(self.vectors(i))),
            ):
                model: Any = Changed(self.model, prefix=prefix)
                rows.append(_row(row, part, tasks.measure_captions(row, model, splits).metrics))
        return rows

    def questions(self) -> list[dict[str, Any]]:
        """easy_vqa by what is asked: a colour or a shape, to be named or confirmed."""
        row = next(row for row in benchmark.ROWS if row.corpus == "easy_vqa")
        source = sources.load(row.corpus, row.split)
        right: dict[str, list[tuple[float, str]]] = {}
        for part in corpus_lib.batches(corpus_lib.draw(len(source), row.most)):
            asked = [
                (record["image"], question, answer, str(record["id"]))
                for record in (source[index] for index in part)
                for question, answer, _ in corpus_lib.questions(record)
            ]
            images, questions, answers, ids = map(list, zip(*asked, strict=True))
            said = self.model.answer_batch(images, questions)
            scores = vqa.vqa_accuracy(said, [[answer] for answer in answers])
            for question, answer, score, picture in zip(
                questions, answers, scores, ids, strict=True
            ):
                right.setdefault(kind(question, answer), []).append((float(score), picture))
        rows = []
        for name in sorted(right):
            scores, pictures = zip(*right[name], strict=True)
            rows.append(_row(row, name, {"accuracy": mean(scores, groups=pictures)}))
        return rows


def kind(question: str, answer: str) -> str:
    """What a question of easy_vqa is about."""
    if answer in ("yes", "no"):
        words = set(question.rstrip("?").lower().split())
        about = "shape" if words & SHAPES else "color"
        return f"{about}, yes or no{', negated' if words & NEGATIONS else ''}"
    return "shape, to be named" if answer in SHAPES else "color, to be named"


def _row(row: tasks.Row, part: str, metrics: tasks.Scores) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in ("task", "corpus", "split", "language")},
        "part": part,
        "metrics": {name: score.as_dict() for name, score in metrics.items()},
    }


def main() -> None:
    """Measures every row and writes the result."""
    parser = argparse.ArgumentParser(description="Measures where the float nano loses.")
    parser.add_argument("--run", type=Path, default=paths.data_dir() / "runs" / "nano")
    run = parser.parse_args().run
    config = from_run.run_config(run)
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(run, config, Path(folder))
        rows = [*limits.searches(), *limits.captions(), *limits.questions()]
    for row in rows:
        print(row["task"], row["split"], row["part"], next(iter(row["metrics"].values()))["value"])
    seeds = {"training": config.seed, "draw": corpus_lib.DRAW_SEED}
    runner.write("limits", config, {"seeds": seeds, "rows": rows})


if __name__ == "__main__":
    main()
