"""Every task on every held-out split, through the runtime interface: what `mmllm bench` runs.

    model = MobileMultiModalLLM.from_pretrained("nano")
    result = benchmark.run(model)
    benchmark.write(result, Path("experiments/results/nano.json"))

It measures `mmllm.evaluate.tasks` row by row; `experiments.tables` draws the tables.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmllm.common import paths
from mmllm.evaluate import baselines, provenance, tasks
from mmllm.evaluate import corpus as corpus_lib
from mmllm.evaluate.metrics.estimate import BOOTSTRAP_SEED
from mmllm.evaluate.tasks import Row

SCHEMA_VERSION = 1
SEEN_NAMES = 400
DESCRIBED = (
    "name",
    "config_sha256",
    "parameters",
    "bytes",
    "files",
    "tensor_classes",
    "pretrained",
)
"""What a result repeats of the manifest."""

ROWS = (
    Row("retrieval", "emoji", "style_out", seen_names=SEEN_NAMES),
    Row("retrieval", "emoji", "concept_out"),
    Row("retrieval", "emoji", "style_concept_out"),
    Row("retrieval", "stamps", "concept_out"),
    Row("retrieval", "stamps", "photo_out"),
    Row("caption", "emoji", "style_out", most=1000),
    Row("caption", "emoji", "style_out", language="de", most=1000),
    Row("caption", "emoji", "concept_out", most=500),
    Row("caption", "emoji", "style_concept_out"),
    Row("caption", "stamps", "concept_out"),
    Row("caption", "stamps", "photo_out"),
    Row("lines", "ocr_lines", "unseen_print"),
    Row("lines", "ocr_lines", "unseen_print_clean"),
    Row("lines", "ocr_lines", "unseen_script"),
    Row("vqa", "composites", "test"),
    Row("vqa", "composites", "concept_out"),
    Row("vqa", "easy_vqa", "test", most=400),
)
"""What is measured, in this order. `most` keeps the whole run at some minutes on two cores."""


class BuiltSplits:
    """Splits of the corpora; what baselines learn from a training split is computed once.

    Args:
      corpora: where they come from.
      features: frozen network for the nearest neighbour; None leaves that baseline out.
    """

    def __init__(self, corpora: corpus_lib.Corpora, features: baselines.Features | None) -> None:
        self._corpora, self._features = corpora, features
        self._captions: dict[tuple[str, str], list[corpus_lib.Captions]] = {}
        self._question_only: dict[str, baselines.QuestionOnly] = {}
        self._neighbours: dict[str, baselines.Neighbours] = {}

    def pictures(self, corpus: str, split: str) -> corpus_lib.Source:
        """Records of a split, with their pictures."""
        return self._corpora.load(corpus, split)

    def texts(self, corpus: str, split: str) -> corpus_lib.Source:
        """Records of a split, without their pictures."""
        return self._corpora.load(corpus, split, images=False)

    def captions(self, corpus: str, split: str = "train") -> list[corpus_lib.Captions]:
        """Captions of every record of a split."""
        key = (corpus, split)
        if key not in self._captions:
            self._captions[key] = corpus_lib.all_captions(self.texts(*key))
        return self._captions[key]

    def question_only(self, corpus: str) -> baselines.QuestionOnly:
        """The baseline that answers without the picture."""
        if corpus not in self._question_only:
            rows = corpus_lib.all_questions(self.texts(corpus, "train"))
            self._question_only[corpus] = baselines.QuestionOnly(*rows)
        return self._question_only[corpus]

    def neighbours(self, corpus: str) -> baselines.Neighbours | None:
        """The nearest-neighbour baseline; None where it is left out."""
        if self._features is None:
            return None
        if corpus not in self._neighbours:
            # By the corpus's hash, so that a rebuilt corpus gets features of its own.
            digest = self._corpora.describe(corpus)["hash"]
            store = paths.data_dir() / "features" / f"{corpus}-train-{digest[:16]}.npy"
            pictures = self.pictures(corpus, "train")
            table = baselines.remembered(pictures, self._features, store)
            self._neighbours[corpus] = baselines.Neighbours(table, self.captions(corpus))
        return self._neighbours[corpus]

    def features(self, pictures: list[Any]) -> Float[np.ndarray, "b f"]:
        """Vectors of pictures from the frozen network."""
        if self._features is None:
            raise ValueError("features is None: this benchmark runs without nearest neighbour")
        return self._features(pictures)


def limited(rows: Sequence[Row], limit: int | None) -> tuple[Row, ...]:
    """The rows with at most `limit` pictures each, and as many names.

    Raises:
      ValueError: a limit below 1.
    """
    if limit is None:
        return tuple(rows)
    if limit < 1:
        raise ValueError(f"limit must be at least 1 picture, got {limit}")
    return tuple(
        dataclasses.replace(
            row,
            most=min(limit, row.most or limit),
            seen_names=row.seen_names and min(limit, row.seen_names),
        )
        for row in rows
    )


def chosen(rows: Sequence[Row], only: Sequence[str]) -> tuple[Row, ...]:
    """The rows whose name starts with one of `only`, e.g. "caption" or "vqa/easy_vqa".

    Raises:
      ValueError: a prefix that fits no row.
    """
    for prefix in only:
        if not any(row.name.startswith(prefix) for row in rows):
            raise ValueError(
                f"no benchmark row starts with {prefix!r}; rows: {', '.join(r.name for r in rows)}"
            )
    return tuple(row for row in rows if not only or row.name.startswith(tuple(only)))


def run(
    model: tasks.Model,
    rows: Sequence[Row] = ROWS,
    *,
    features: baselines.Features | None = None,
    limit: int | None = None,
    corpora: corpus_lib.Corpora | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures a model.

    Args:
      model: the runtime, or anything with its batched methods.
      rows: what to measure.
      features: frozen network of the nearest-neighbour baseline, such as that of
        `baselines.backbone_features`; None leaves that baseline out.
      limit: pictures a row, for a smoke run; None measures everything.
      corpora: where the splits come from; None reads the built corpora.
      report: takes one line a row.

    Returns:
      The result, ready for JSON. Its mode is "full" only if every row of ROWS was measured whole
      with every baseline.

    Raises:
      FileNotFoundError: a corpus that is not built.
      ValueError: a limit below 1, or a split without usable records.
    """
    started = time.monotonic()
    if corpora is None:
        corpora = _built()
    # All of them at once and before any work: rows take minutes.
    missing = sorted({row.corpus for row in rows if not corpora.is_built(row.corpus)})
    if missing:
        names = " ".join(missing)
        raise FileNotFoundError(f"corpora not built: {names}; run: mmllm data build {names}")
    splits = BuiltSplits(corpora, features)
    measured = []
    for row in limited(rows, limit):
        begun = time.monotonic()
        outcome = tasks.MEASURES[row.task](row, model, splits)
        seconds = time.monotonic() - begun
        measured.append(_as_json(row, outcome, seconds))
        report(summary(measured[-1]))
    # Tables take full results only, so that a smoke run is never published.
    whole = limit is None and features is not None and tuple(rows) == ROWS
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "benchmark",
        "mode": "full" if whole else "smoke",
        "model": _describe(model),
        "data": _describe_data(rows, corpora),
        **provenance.record(),
        "seeds": {
            "draw": corpus_lib.DRAW_SEED,
            "chance": baselines.CHANCE_SEED,
            "bootstrap": BOOTSTRAP_SEED,
        },
        "seconds": round(time.monotonic() - started, 1),
        "rows": measured,
    }


def _built() -> corpus_lib.Corpora:
    """The built corpora; reading them needs more than the runtime does."""
    try:
        import tensorflow_datasets  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the benchmark needs {error.name}: pip install 'mmllm[train]'", name=error.name
        ) from error
    from mmllm.data import sources

    return sources


def _as_json(row: Row, outcome: tasks.Outcome, seconds: float) -> dict[str, Any]:
    def plain(scores: tasks.Scores) -> dict[str, Any]:
        return {name: score.as_dict() for name, score in scores.items()}

    return {
        "name": row.name,
        "task": row.task,
        "corpus": row.corpus,
        "split": row.split,
        "language": row.language,
        "counts": outcome.counts,
        "metrics": plain(outcome.metrics),
        "baselines": {name: plain(scores) for name, scores in outcome.baselines.items()},
        "seconds": round(seconds, 1),
        "samples": outcome.samples,
    }


def _describe(model: tasks.Model) -> dict[str, Any]:
    """What the bundle's manifest says of the model, and what ran it; {} for one without either."""
    manifest: Mapping[str, Any] = getattr(model, "manifest", {})
    # Not the whole manifest: a bundle holds scores of its own, which are not those of this run.
    found = {key: manifest[key] for key in DESCRIBED if key in manifest}
    engine = getattr(model, "engine", None)
    return found if engine is None else found | {"engine": engine.name}


def _describe_data(rows: Sequence[Row], corpora: corpus_lib.Corpora) -> list[dict[str, Any]]:
    """Hash, licences and size of the splits of each measured corpus."""
    described = {row.corpus: corpora.describe(row.corpus) for row in rows}
    return [{"name": name, **described[name]} for name in described]


def summary(measured: Mapping[str, Any]) -> str:
    """One line of a measured row: its scores and the seconds it took."""
    scores = [
        f"{name} {score['value']:.3f}"
        for name, score in measured["metrics"].items()
        if ":" not in name  # the kinds of questions would not fit into a line
    ]
    return f"{measured['name']:34s} {'  '.join(scores)}  ({measured['seconds']:.0f} s)"


def write(result: Mapping[str, Any], path: Path) -> None:
    """Writes a result as JSON, whole or not at all."""
    # A score that is no number is a bug of the metric, not a result.
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with paths.written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
