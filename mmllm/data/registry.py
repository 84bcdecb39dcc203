"""The corpora, an entry each: what they teach, how their pictures are augmented, whose they are."""

import dataclasses

from mmllm.common.config import Config

TASKS = ("caption", "name", "question", "line")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """One corpus; see the interface."""

    name: str
    tasks: tuple[str, ...]
    seed: int
    views: int = 0
    augmentation: str = "none"


def _entries() -> tuple[CorpusSpec, ...]:
    return (
        CorpusSpec(
            name="emoji", tasks=("caption", "name"), seed=0, views=8, augmentation="drawing"
        ),
        CorpusSpec(
            name="stamps", tasks=("caption", "name"), seed=1, views=8, augmentation="drawing"
        ),
        CorpusSpec(name="ocr_lines", tasks=("line",), seed=2),
        CorpusSpec(name="composites", tasks=("caption", "question"), seed=3, augmentation="scene"),
        CorpusSpec(name="easy_vqa", tasks=("question",), seed=4, augmentation="scene"),
    )


CORPORA = {entry.name: entry for entry in _entries()}


def spec(name: str) -> CorpusSpec:
    """The entry of a corpus."""
    if name not in CORPORA:
        raise ValueError(f"corpus must be one of {', '.join(CORPORA)}, got {name!r}")
    return CORPORA[name]


def of(config: Config, task: str) -> tuple[str, ...]:
    """Corpora of a task."""
    return tuple(name for name, entry in CORPORA.items() if task in entry.tasks)


def views(config: Config, name: str) -> int:
    """Augmented views cached of each picture."""
    data = config.data
    own = {"emoji": data.emoji_views, "stamps": data.stamp_views, "composites": data.scene_views}
    return own.get(name, 0)
