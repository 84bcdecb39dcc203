"""Where the float nano loses: each row puts what a part should give in its place.

Command:  python -m experiments.training.limits [--run=RUN_FOLDER] [--rows ROW ...] [--smoke]
Hardware: 2 CPU cores; needs the float run that the shipped bundle came from, and its cache.
Time:     3 minutes.
Writes:   experiments/results/limits.json

The vectors of the prototypes, which training compares pictures with, stand in for the text tower,
and a true name's vector for a picture: what a part put in its place gains, the part itself loses.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.rows import Row
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
from mmllm.train import checkpoint
from mmllm.train.phases import prepare
from mmllm.train.text import prototype_texts, teacher
from mmllm.train.text import prototypes as prototypes_lib

SHAPES = {"circle", "rectangle", "triangle"}
NEGATIONS = {"not", "no"}
LANGUAGES = ("en", "de")
SMOKE_PICTURES = 64
SEEN, UNSEEN = benchmark.ROWS[:2]
EASY = next(row for row in benchmark.ROWS if row.corpus == "easy_vqa")
TOWER, PROTOTYPES = "text tower", "vectors of the prototypes"
MAPPED, EXPLAINED = "sentence map of the name", "sentence map of name and keywords"
WHOLE, EMBEDDING = "whole prefix", "embedding alone"
NEAREST, TRUE = "vector of the nearest name", "vector of the true name"
KINDS = tuple(
    f"{about}, {form}"
    for about in ("color", "shape")
    for form in ("to be named", "yes or no", "yes or no, negated")
)


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
        starts = [prompts.caption(tokenizer, language)] * len(images)
        answers = decode.greedy(
            engine,
            self.prefix(images),
            decode.pad_prompts(starts, engine.config.max_text),
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
        tables = prepare.cache_folder(config)
        records = sources.load("emoji", "train", images=False)
        names = [corpus_lib.names(corpus_lib.captions(record))[0] for record in records]
        # A name is drawn by several artists, and its prototype is one: any of them will do.
        self.place = dict(zip(names, prepare.labels_of(tables, "emoji").tolist(), strict=True))
        sentences = jnp.asarray(prepare.sentences(tables), jnp.float32)
        self._prototype_params = params["prototypes"]
        self._prototypes = prototypes_lib.TextPrototypes(len(sentences), config.model.embed_dim)
        self._vectors = np.asarray(prototypes_lib.vectors(self._prototype_params, sentences))
        self._teacher = teacher.SentenceTeacher.load()
        self._answered: dict[str, tasks.Scores] = {}
        unseen = sources.load("emoji", "concept_out", images=False)
        self._keywords = {
            corpus_lib.names(corpus_lib.captions(record))[0]: ", ".join(corpus_lib.keywords(record))
            for record in unseen
        }

    def vectors(self, names: Sequence[str]) -> np.ndarray:
        """The prototypes' own vectors of known names."""
        return self._vectors[[self.place[name] for name in names]]

    def mapped(self, names: Sequence[str]) -> np.ndarray:
        """What the tower should say of unknown names: their sentence embeddings, mapped."""
        return self._map(np.asarray(self._teacher.embed(list(names))))

    def explained(self, names: Sequence[str]) -> np.ndarray:
        """The same of "name" and "name: keywords", as the prototypes know their captions."""
        pairs = [(name, self._keywords[name]) for name in names]
        return self._map(prototype_texts.mean_embedding(self._teacher, pairs))

    def _map(self, sentences: np.ndarray) -> np.ndarray:
        params = {"params": self._prototype_params}
        return np.asarray(self._prototypes.apply(params, jnp.asarray(sentences), method="words"))

    def name_prefix(self, embedding: np.ndarray) -> np.ndarray:
        params = {"params": self._params}
        return np.asarray(self._module.apply(params, jnp.asarray(embedding), method="name_prefix"))

    def nearest_prefix(self, images: Sequence[Any]) -> np.ndarray:
        """The prefix of the known name whose vector lies nearest to each picture."""
        best = np.argmax(self.model.embed_images(images) @ self._vectors.T, axis=1)
        return self.name_prefix(self._vectors[best])

    def answered(self, most: int | None) -> dict[str, tasks.Scores]:
        """Metrics of easy_vqa, by colour or shape and by whether it is to be named or confirmed."""
        if self._answered:  # six rows come from one pass over the questions
            return self._answered
        source = sources.load(EASY.corpus, EASY.split)
        right: dict[str, list[tuple[float, str]]] = {}
        for part in corpus_lib.batches(corpus_lib.draw(len(source), most)):
            rows = [
                (record["image"], question, answer, str(record["id"]))
                for record in (source[index] for index in part)
                for question, answer, _ in corpus_lib.questions(record)
            ]
            images, questions, answers, ids = map(list, zip(*rows, strict=True))
            predictions = self.model.answer_batch(images, questions)
            found = vqa.vqa_accuracy(predictions, [[answer] for answer in answers])
            for question, answer, score, picture in zip(
                questions, answers, found, ids, strict=True
            ):
                right.setdefault(kind(question, answer), []).append((float(score), picture))
        for name, pairs in right.items():
            scores, pictures = zip(*pairs, strict=True)
            self._answered[name] = {"accuracy": mean(scores, groups=pictures)}
        return self._answered


def kind(question: str, answer: str) -> str:
    """What a question of easy_vqa is about."""
    if answer in ("yes", "no"):
        words = set(question.rstrip("?").lower().split())
        about = "shape" if words & SHAPES else "color"
        return f"{about}, yes or no{', negated' if words & NEGATIONS else ''}"
    return "shape, to be named" if answer in SHAPES else "color, to be named"


@dataclasses.dataclass(frozen=True)
class Part:
    """A row of the benchmark, and what stands in the place of a part of the model."""

    row: tasks.Row
    name: str

    @property
    def label(self) -> str:
        """The row's name in the results."""
        return f"{self.row.name}: {self.name}"


def parts() -> list[Part]:
    """Searches by what gives the text vectors, captions by prefix, questions by what they ask."""
    captions = [
        tasks.Row("caption", "emoji", "style_out", language=language, most=1000)
        for language in LANGUAGES
    ]
    by_row = {
        SEEN: (TOWER, PROTOTYPES),
        UNSEEN: (TOWER, MAPPED, EXPLAINED),
        **dict.fromkeys(captions, (WHOLE, EMBEDDING, NEAREST, TRUE)),
        EASY: KINDS,
    }
    return [Part(row, name) for row, names in by_row.items() for name in names]


def measure(limits: Limits, part: Part, most: int | None) -> tasks.Scores:
    """The scores of the model with a part replaced.

    Args:
      limits: the model.
      part: what to measure.
      most: pictures; None takes as many as the row of the benchmark has.
    """
    row = dataclasses.replace(part.row, most=part.row.most if most is None else most)
    if part.row.task == "vqa":
        return limits.answered(row.most)[part.name]
    texts = {PROTOTYPES: limits.vectors, MAPPED: limits.mapped, EXPLAINED: limits.explained}
    prefixes: dict[str, Callable[[Sequence[Any]], np.ndarray]] = {
        EMBEDDING: lambda i: limits.name_prefix(limits.model.embed_images(i)),
        NEAREST: limits.nearest_prefix,
        TRUE: lambda i: limits.name_prefix(limits.vectors(i)),
    }
    changed: Any = Changed(limits.model, texts.get(part.name), prefixes.get(part.name))
    splits = (Named if part.name == TRUE else benchmark.BuiltSplits)(sources, None)
    return tasks.MEASURES[row.task](row, changed, splits).metrics


def main() -> None:
    """Measures the rows and writes each."""
    by_label = {part.label: part for part in parts()}
    parser = runner.parser(__doc__, list(by_label))
    parser.add_argument("--run", type=Path, default=paths.data_dir() / "runs" / "nano")
    args = parser.parse_args()
    config = from_run.run_config(args.run)
    seeds = {"training": config.seed, "draw": corpus_lib.DRAW_SEED}
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(args.run, config, Path(folder))

        def figures(row: Row) -> dict[str, Any]:
            part = by_label[row.name]
            found = measure(limits, part, SMOKE_PICTURES if args.smoke else None)
            print(row.name, next(iter(found.values())).value, flush=True)
            test = {n: getattr(part.row, n) for n in ("task", "corpus", "split", "language")}
            metrics = {name: score.as_dict() for name, score in found.items()}
            return {"seeds": seeds, **test, "part": part.name, "metrics": metrics}

        rows = [Row(name=name, config=config) for name in args.rows]
        runner.run("limits", rows, figures, smoke=args.smoke)


if __name__ == "__main__":
    main()
