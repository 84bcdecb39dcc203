"""The cached features of the backbone: where they lie, what they depend on, how they are written.

A corpus' features lie in a folder named by everything that can change their bytes, so that runs
with the same features share them, and a run with others never reads them by mistake.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmllm.common import config as config_lib
from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.data import pretrained, registry, sources, transforms
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import features as features_lib
from mmllm.train.student import start

TRAIN, VAL = "train", "val"
NOTE = "features.txt"  # in a run's folder: those it began with
REPORT_EVERY = 40  # batches
Report = Callable[[str], None]
Batches = tuple[int, Iterator[tuple[int, np.ndarray]]]  # pictures, and them in batches


def elements(config: Config, corpus: str, split: str = TRAIN, *, images: bool = False) -> Any:
    """A split of a corpus as far as it is used; without images only texts are read: fast."""
    source = sources.load(corpus, split, images=images)
    limit = limit_of(config, split)
    return source if limit is None else [source[i] for i in range(min(limit, len(source)))]


def limit_of(config: Config, split: str) -> int | None:
    """Pictures of a split that are used, at most; None for all."""
    limits = [config.data.limit] + [config.train.validation_pictures] * (split != TRAIN)
    # A limit for smoke runs holds for every split.
    return min((limit for limit in limits if limit is not None), default=None)


def views(config: Config, corpus: str, split: str) -> int:
    """Augmented views of each picture; validation looks at the plain one."""
    return registry.views(config, corpus) if split == TRAIN else 0


def backbone_key(config: Config, tables: Path) -> dict[str, Any]:
    """What the backbone before any rounding depends on.

    Args:
      config: the experiment.
      tables: folder of the tables, whose name stands for names and weights of the pictures.
    """
    model = config.model
    if model.backbone == "patch":
        return {"backbone": [model.backbone, model.patch]}
    key: dict[str, Any] = {
        "backbone": [model.backbone, model.level],
        "weights": pretrained.EFFICIENTNET_LITE0.tensors_sha256,
    }
    if config.tune.steps:
        # The image embedding and the prototypes are tuned along, so their sizes count as well.
        sizes = [model.head_width, model.embed_dim, model.feature_dropout]
        key["tuned"] = [config_lib.to_dict(config.tune), sizes, tables.name]
    if config.tune.steps or config.quant.reconstruction.steps:
        # What the blocks were trained on, to name drawings or to lie on their grids.
        key["seen"] = [
            [name, registry.views(config, name), _views_key(config, name, TRAIN)]
            for name in registry.of(config, "name")
        ]
        key["statistics_pictures"] = config.train.statistics_pictures
    return key


def _views_key(config: Config, corpus: str, split: str) -> dict[str, Any]:
    """What the pixels of a corpus' views depend on."""
    spec = registry.spec(corpus)
    return {
        # Code has no hash that survives a reformatting: whoever changes a view raises this.
        "transforms": transforms.TRANSFORMS_VERSION,
        "corpus": [corpus, split, sources.data_hash(corpus), limit_of(config, split)],
        "views": [start.data_seed(config), spec.seed, spec.augmentation],
        "image_side": config.model.image_side,
    }


def key(config: Config, tables: Path, corpus: str, split: str = TRAIN) -> dict[str, Any]:
    """Everything that can change the bytes of a corpus' features."""
    backbone = backbone_key(config, tables) | backbone_lib.rounding(config)
    return _views_key(config, corpus, split) | backbone


def folder(config: Config, tables: Path, corpus: str, split: str = TRAIN) -> Path:
    """Where the features of a corpus lie."""
    name = f"{corpus}-{split}-{_digest(key(config, tables, corpus, split))}"
    return paths.data_dir() / "features" / name


def frozen_folder(config: Config, corpus: str) -> Path:
    """Where the features at `FROZEN_LEVEL` lie, which no tuning changes."""
    # Neither the tables nor the tuning: so tunings with other numbers share this, the slow part.
    weights = pretrained.EFFICIENTNET_LITE0.tensors_sha256
    level = {"backbone": [config.model.backbone, backbone_lib.FROZEN_LEVEL], "weights": weights}
    digest = _digest(_views_key(config, corpus, TRAIN) | level)
    return paths.data_dir() / "features" / f"{corpus}-frozen-{digest}"


def backbone_folder(config: Config, tables: Path) -> Path:
    """Where the trained blocks of the backbone lie, and the checkpoints of their training."""
    return paths.data_dir() / "backbones" / _digest(backbone_key(config, tables))


def claim(config: Config, tables: Path, workdir: Path) -> None:
    """Binds a run to its features: others would change the pictures under it.

    Raises:
      ValueError: the run began with other features.
    """
    # Names, not bytes: a folder's name stands for all that can change its features.
    note = workdir / NOTE
    names = [folder(config, tables, corpus).name for corpus in registry.pictured(config)]
    if not note.exists():
        with paths.written_whole(note) as partial:
            partial.write_text("".join(f"{name}\n" for name in names))
    elif changed := sorted(set(names) - set(note.read_text().split())):
        raise ValueError(
            f"{workdir} holds a run on other features than {', '.join(changed)}: corpora or the "
            "code that draws their views changed since; use another --workdir"
        )


def file(where: Path, view: int) -> Path:
    """The file of a view in a folder of features; 0 is the plain one."""
    return where / f"view_{view}.npy"


def opened(where: Path, count: int) -> tuple[np.ndarray, ...]:
    """Memory-maps the plain view and `count` augmented ones.

    Raises:
      FileNotFoundError: features that have not been cached.
    """
    return tuple(np.load(file(where, view), mmap_mode="r") for view in range(count + 1))


def pixels(config: Config, corpus: str, view: int, split: str = TRAIN) -> Batches:
    """How many pictures a corpus has, and batches of a view of them."""
    source = elements(config, corpus, split, images=True)
    spec, side = registry.spec(corpus), config.model.image_side
    seeds = (start.data_seed(config), spec.seed, view)
    return len(source), features_lib.view_batches(source, view, seeds, side, spec.augmentation)


def write(path: Path, batches: Batches, function: features_lib.Function, report: Report) -> None:
    """Writes a function of all batches to a .npy file, whole or not at all.

    Raises:
      OSError: too little room on the disk.
    """
    what = f"{path.parent.name.rsplit('-', 1)[0]}, view {path.stem.removeprefix('view_')}"
    report(f"{what}: caching features")
    rows, parts = batches
    out: np.memmap | None = None
    with paths.written_whole(path) as partial:
        for count, (first, part) in enumerate(parts):
            # A memory map: the features of a corpus are larger than memory.
            features = function(part)
            if out is None:  # only now is the shape of a row known
                shape = (rows, *features.shape[1:])
                _check_room(path, rows * features[0].nbytes)
                out = np.lib.format.open_memmap(partial, "w+", features.dtype, shape)
            out[first : first + len(features)] = features
            if count and count % REPORT_EVERY == 0:
                report(f"{what}: {first}/{rows} pictures")
        if out is not None:
            out.flush()


def _digest(values: dict[str, Any]) -> str:
    # Sorted: the same values must give the same folder, in whatever order they were put together.
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _check_room(path: Path, size_bytes: int) -> None:
    """Refuses before a memory map is made: on a full disk, writing to one ends the process."""
    free = shutil.disk_usage(path.parent).free
    if free < size_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {size_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free space "
            "and run again: what is finished stays",
        )
