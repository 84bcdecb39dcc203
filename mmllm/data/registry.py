"""The corpora, an entry each: what they teach, how their pictures are augmented, whose they are.

The only place that names a corpus. A new one is a builder in data/corpora, an entry here, and a
weight in the mixture of a config (`cfg.mix`).

What its examples hold follows from its tasks: always "image"; "caption", or "languages" and
"captions" with English among them, for captions and names; "questions" and "answers" for questions;
"text" for lines. "id", "source", "author" and "licence" stand in each example, or in the module's
ATTRIBUTION. tests/data/ten_pictures.py is a whole builder, and the shortest.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from mmllm.common.config import Config

TASKS = ("caption", "name", "question", "line")
# Field of `cfg.batch` -> the task that fills it. Spoken names have no picture, and the text tower
# learns from names, so both need corpora whose captions are names.
BATCH_TASKS = {
    "captions": "caption",
    "names": "name",
    "spoken": "name",
    "questions": "question",
    "lines": "line",
    "texts": "name",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """One corpus.

    Attributes:
      name: what configs, commands and files call it; the builder's class in snake case.
      module: in mmllm.data.corpora.
      builder: the tfds builder's class there.
      summary: a line about it.
      tasks: of TASKS. The captions of a corpus with "name" are names, one a thing: they become
        text prototypes.
      licence: what its pictures and texts may be used under; each example carries its own.
      views: augmented views cached a picture, besides the plain one.
      augmentation: how such a view is made, a name of `transforms.AUGMENTATIONS`.
      seed: own number in the seed of its views. Never used again: pixels depend on it.
    """

    name: str
    module: str
    builder: str
    summary: str
    tasks: tuple[str, ...]
    licence: str
    views: int = 0
    augmentation: str = "none"
    seed: int


# In the order they are built: composites pastes drawings of the two before it. Batches and
# prototypes are in this order too.
CORPORA: dict[str, CorpusSpec] = {
    each.name: each
    for each in (
        CorpusSpec(
            name="emoji",
            module="emoji",
            builder="Emoji",
            summary="emoji by 9 art families, names in 12 languages",
            tasks=("caption", "name"),
            licence="free, by family",
            views=8,
            augmentation="drawing",
            seed=0,
        ),
        CorpusSpec(
            name="stamps",
            module="stamps",
            builder="Stamps",
            summary="cut-out pictures with captions in 12 languages",
            tasks=("caption", "name"),
            licence="free, by package",
            views=8,
            augmentation="drawing",
            seed=1,
        ),
        CorpusSpec(
            name="ocr_lines",
            module="ocr_lines",
            builder="OcrLines",
            summary="words and phrases drawn with real fonts",
            tasks=("line",),
            licence="free, by font",
            seed=2,
        ),
        CorpusSpec(
            name="composites",
            module="composites",
            builder="Composites",
            summary="scenes of known objects with questions",
            tasks=("caption", "question"),
            licence="that of the pasted drawings",
            augmentation="scene",
            seed=3,
        ),
        CorpusSpec(
            name="easy_vqa",
            module="easy_vqa",
            builder="EasyVqa",
            summary="single shapes with questions, a sanity check",
            tasks=("question",),
            licence="MIT",
            augmentation="scene",
            seed=4,
        ),
    )
}


def spec(name: str) -> CorpusSpec:
    """The entry of a corpus.

    Raises:
      ValueError: an unknown name.
    """
    if name not in CORPORA:
        raise ValueError(f"corpus {name!r} is unknown; allowed: {', '.join(CORPORA)}")
    return CORPORA[name]


def mixture(config: Config) -> tuple[str, ...]:
    """The corpora that a config trains on: those with a weight above 0, in registry order.

    Raises:
      ValueError: `cfg.mix` or `cfg.data.views` names a corpus that is not here.
    """
    for section, named in (("mix", config.mix), ("data.views", config.data.views)):
        for name in named:
            if name not in CORPORA:
                allowed = ", ".join(CORPORA)
                raise ValueError(f"{section}.{name} is no corpus; allowed: {allowed}")
    return tuple(name for name in CORPORA if config.mix.get(name, 0.0) > 0)


def of(config: Config, task: str) -> tuple[str, ...]:
    """The corpora of the mixture that have a task, in registry order.

    Raises:
      ValueError: an unknown task, or an unknown corpus in the config.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return tuple(name for name in mixture(config) if task in CORPORA[name].tasks)


def pictured(config: Config) -> tuple[str, ...]:
    """The corpora of the mixture whose pictures pass the backbone: all but lines of text."""
    return tuple(name for name in mixture(config) if set(CORPORA[name].tasks) != {"line"})


def captioned(config: Config) -> tuple[str, ...]:
    """The corpora with captions, be they names or not, in registry order."""
    having = {*of(config, "caption"), *of(config, "name")}
    return tuple(name for name in mixture(config) if name in having)


def views(config: Config, name: str) -> int:
    """Augmented views that a config caches of each picture, besides the plain one."""
    return config.data.views.get(name, spec(name).views)


def check(config: Config) -> None:
    """Refuses a batch that its mixture cannot fill.

    Raises:
      ValueError: examples of a task that no corpus has, or an unknown corpus.
    """
    for field, task in BATCH_TASKS.items():
        count = getattr(config.batch, field)
        if count and not of(config, task):
            having = ", ".join(name for name, each in CORPORA.items() if task in each.tasks)
            raise ValueError(
                f"batch.{field} is {count}, but no corpus of the mixture has the task {task!r}: "
                f"give one of {having} a weight in mix, or set batch.{field} to 0"
            )
    if config.prototypes.negatives and not of(config, "name"):
        raise ValueError(
            f"prototypes.negatives is {config.prototypes.negatives}, but no corpus of the mixture "
            "has names to draw them from; set it to 0"
        )
    for name in mixture(config):
        # By names a corpus is drawn in proportion to its pictures, whatever its weight.
        tasks = {task for task in CORPORA[name].tasks if task != "name"}
        given = {
            asked: counts(config, task, getattr(config.batch, asked)).get(name, 0)
            for asked, task in BATCH_TASKS.items()
            if task in tasks and getattr(config.batch, asked)
        }
        named = "name" in CORPORA[name].tasks and config.batch.names
        if given and not named and not any(given.values()):
            raise ValueError(
                f"mix.{name} = {config.mix[name]} gives it no example of "
                f"{', '.join(f'batch.{asked}' for asked in given)}; raise one of them"
            )


def counts(config: Config, task: str, total: int) -> dict[str, int]:
    """Shares `total` examples of a task among its corpora, by their weights."""
    return shares({name: config.mix[name] for name in of(config, task)}, total)


def shares(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole shares of `total` by the largest remainder; of equal ones, the first gets it."""
    whole = sum(weights.values())
    exact = {name: total * weight / whole for name, weight in weights.items()}
    found = {name: int(value) for name, value in exact.items()}
    # The sort is stable, so ties go by registry order and every machine shares alike.
    left: Sequence[str] = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in left[: total - sum(found.values())]:
        found[name] += 1
    return found
