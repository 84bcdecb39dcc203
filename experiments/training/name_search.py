"""What limits the search for names: views, artists, and whether the backbone is tuned.

Command:  python -m experiments.training.name_search [--rows ROW ...] [--again] [--smoke]
Hardware: 2 CPU cores; needs the training cache of configs/nano.py.
Time:     about 20 minutes, by its first rows: it has not run to its end yet.
Writes:   experiments/results/name_search.json, a row at a time: finished rows stay

Each row trains the image embedding alone (pooled backbone features, two dense layers and the
prototypes of captions) and searches as `mmllm bench` does: drawings by unseen artists among 400
names, drawings of unseen names among all of those. Known names are vectors of the prototypes,
unknown ones their mapped sentence embeddings, so the text tower has no part in it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import nano
from experiments import runner
from experiments.rows import Row
from mmllm.common import config as config_lib
from mmllm.common.types import Params
from mmllm.data import images, registry, sources, splits
from mmllm.evaluate import benchmark, tasks
from mmllm.evaluate import corpus as corpus_lib
from mmllm.models import mmllm as model_lib
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.backbone import features as features_lib
from mmllm.train.draws import Named
from mmllm.train.phases import prepare, tune_backbone
from mmllm.train.text import prototypes as prototypes_lib
from mmllm.train.text import teacher

ARTISTS = ("google", "twitter", "microsoft", "joypixels", "mozilla")
METRICS = ("image_to_text_r1", "image_to_text_r5", "text_to_image_r1")
SEEN, UNSEEN = benchmark.ROWS[:2]


@dataclasses.dataclass(frozen=True)
class Change:
    """One change: how many cached views, whose drawings, and which backbone."""

    name: str
    views: int
    artists: Sequence[str] = ARTISTS
    tuned: bool = False


def changes(views: int) -> list[Change]:
    """The rows of the table; `views` is how many the cache holds, the plain one included."""
    some = {"plain": 1, "2 augmented views": 3}
    return [
        *(Change(name, count) for name, count in some.items() if count < views),
        *(
            Change(f"{views - 1} augmented views, {n} artist{'s' * (n > 1)}", views, ARTISTS[:n])
            for n in (1, 3)
        ),
        Change(f"{views - 1} augmented views, all artists", views),
        Change("the same with the tuned backbone", views, tuned=True),
    ]


@dataclasses.dataclass(frozen=True)
class Searcher:
    """Embedding and prototypes as something the benchmark can measure."""

    config: config_lib.Config
    backbone: features_lib.Function
    params: Params
    vectors: np.ndarray
    place: dict[str, int]

    def embed_images(self, pictures: Sequence[Any]) -> np.ndarray:
        side = self.config.model.image_side
        pixels = np.stack([images.to_square(picture, side) for picture in pictures])
        parts = [self.backbone(part) for _, part in features_lib.in_batches(pixels)]
        held = {name: self.params[name] for name in ("feature_affine", "image_embedding")}
        model = model_lib.build(self.config.model)
        features = np.concatenate(parts).astype(np.float32)
        return np.asarray(model.apply({"params": held}, features, method="embed_features"))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.vectors[[self.place[text] for text in texts]]


class Search:
    """The cached drawings of a config, and the training and measurement of one row."""

    def __init__(self, config: config_lib.Config) -> None:
        self.config, self.tables = config, prepare.prepare(config)
        self.folder = feature_cache.backbone_folder(config, self.tables)
        records = sources.load("emoji", "train", images=False)
        self.artists = np.array([splits.artist_of(str(record["family"])) for record in records])
        self.label = prepare.labels_of(self.tables, "emoji")
        self.teacher = prepare.sentences(self.tables).astype(np.float32)
        self.weight = np.load(self.tables / "emoji_captions.npz")["weight"]
        names = [corpus_lib.names(corpus_lib.captions(record))[0] for record in records]
        self.place = dict(zip(names, self.label.tolist(), strict=True))
        self.frozen = tune_backbone.frozen_features(config, print)["emoji"]
        self._splits = benchmark.BuiltSplits(sources, None)
        captions = self._splits.captions(UNSEEN.corpus, UNSEEN.split)
        unseen = sorted({name for each in captions for name in corpus_lib.names(each)})
        self.sentences = np.asarray(teacher.SentenceTeacher.load().embed(unseen))
        first = len(self.teacher)
        self.place |= {name: first + row for row, name in enumerate(unseen)}
        self._features: dict[bool, list[np.ndarray]] = {}

    def backbone(self, *, tuned: bool) -> Params:
        if tuned and (backbone := backbone_lib.params(self.config, self.folder)) is not None:
            return backbone
        return backbone_lib.pretrained(self.config)

    def features(self, *, tuned: bool) -> list[np.ndarray]:
        """Backbone features of every view, cached for the next row of the same backbone."""
        if tuned not in self._features:
            level = self.config.model.level
            trainable = features_lib.part_function(
                self.backbone(tuned=tuned), level=level, entry=backbone_lib.FROZEN_LEVEL
            )
            self._features = {}  # one backbone's features fill two gigabytes
            self._features[tuned] = [
                np.concatenate([trainable(part) for _, part in features_lib.in_batches(view)])
                for view in self.frozen
            ]
        return self._features[tuned]

    def measure(self, row: Change) -> tuple[int, dict[str, Any]]:
        """Trains a row's embedding and searches with it; first, how many drawings it saw."""
        backbone = self.backbone(tuned=row.tuned)
        drawn = np.isin(self.artists, row.artists)
        views = self.features(tuned=row.tuned)[: row.views]
        named = Named(views, self.label, self.weight * drawn)
        affine = features_lib.channel_statistics(views[0], self.config.train.statistics_pictures)
        params = tune_backbone.init_params(self.config, backbone, affine, self.teacher)
        params = tune_backbone.train_head(self.config, params, [named], self.teacher)
        prototypes = prototypes_lib.TextPrototypes(len(self.teacher), self.config.model.embed_dim)
        known = prototypes_lib.vectors(params["prototypes"], jnp.asarray(self.teacher))
        mapped: Any = prototypes.apply(
            {"params": params["prototypes"]}, jnp.asarray(self.sentences), method="words"
        )
        vectors = np.concatenate([known, mapped])
        whole = features_lib.feature_function(self.config, backbone)
        model: Any = Searcher(self.config, whole, params, vectors, self.place)
        scores = {}
        for test, names in ((SEEN, METRICS), (UNSEEN, METRICS[:1])):
            found = tasks.measure_retrieval(test, model, self._splits).metrics
            scores |= {f"{test.split}/{name}": found[name].as_dict() for name in names}
        return int(drawn.sum()), scores


def main() -> None:
    """Measures the rows that the results lack."""
    config = config_lib.resolve(nano.get_config())
    by_name = {change.name: change for change in changes(registry.views(config, "emoji") + 1)}
    args = runner.parser(__doc__, list(by_name), resumes=True).parse_args()
    seeds = {"training": config.seed, "draw": corpus_lib.DRAW_SEED}
    steps = {"head_steps": 2} if args.smoke else {}
    search = Search(dataclasses.replace(config, tune=dataclasses.replace(config.tune, **steps)))

    def measure(row: Row) -> dict[str, Any]:
        drawings, scores = search.measure(by_name[row.name])
        print(row.name, {name: round(score["value"], 3) for name, score in scores.items()})
        jax.clear_caches()  # each row compiles its own shapes; together they fill the memory
        return {"seeds": seeds, "pictures": drawings, "metrics": scores}

    rows = [Row(name=name, config=config) for name in args.rows]
    runner.run("name_search", rows, measure, resume=not args.again, smoke=args.smoke)


if __name__ == "__main__":
    main()
