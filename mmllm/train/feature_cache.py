"""The backbone's share of a training cache: its tuned or taught trainable, and its features of every view.

`train.cache` calls it, in order: `trainable`, then `features` of each corpus. Each file is written whole
and skipped when it is there.
"""

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmllm.common import paths, tensors
from mmllm.common.config import Config
from mmllm.common.types import Params
from mmllm.data import sources
from mmllm.models import efficientnet_lite0
from mmllm.train import backbone as backbone_lib
from mmllm.train import features as features_lib
from mmllm.train import quantize_backbone, stages, tune_backbone
from mmllm.train.backbone import TUNED

CORPORA = ("emoji", "stamps", "ocr_lines", "composites", "easy_vqa")
NAMED = ("emoji", "stamps")  # their captions are the names of the prototypes
TEXTS = "texts.npz"
REPORT_EVERY = 40  # batches
Report = Callable[[str], None]


def elements(config: Config, corpus: str, *, images: bool = False) -> Any:
    """The training split of a corpus; without images only its texts are read, which is fast."""
    source = sources.load(corpus, "train", images=images)
    limit = config.data.limit
    return source if limit is None else [source[i] for i in range(min(limit, len(source)))]


def features_file(config: Config, folder: Path, corpus: str, view: int) -> Path:
    """Where the backbone features of a view lie; a backbone rounded coarsely has features of its own."""
    return folder / f"{corpus}_features{backbone_lib.digest(config)}_{view}.npy"


class FeatureCache:
    """What the backbone leaves in a cache's folder."""

    def __init__(self, config: Config, folder: Path, report: Report) -> None:
        self.config, self.folder, self.report = config, folder, report
        self._functions: dict[str | None, features_lib.Function] = {}

    def trainable(self, given: Params | None = None) -> None:
        """Writes the part of the backbone that is trained: tuned on names, then taught its grids.

        Args:
          given: a trainable that was tuned elsewhere, in the place of tuning one.

        Raises:
          ValueError: another trainable than `given`, or than that of the run a student starts from, is
            there; or nothing that `quant.backbone_steps` could teach.
        """
        config = self.config
        if config.quant.backbone_steps:
            quantize_backbone.check(config)
        if config.tune.steps and config.quant.start:
            given = tensors.read(stages.start_folder(config) / TUNED)["trainable"]
        if given is not None:
            self._take(given)
        if config.tune.steps and not (self.folder / TUNED).exists():
            self._tune()
        taught = self.folder / backbone_lib.trainable_file(config)
        if config.quant.backbone_steps and not taught.exists():
            self._teach(taught)

    def _take(self, trainable: Params) -> None:
        """Writes a tuned trainable, or checks that it is the one that is there."""
        path, shipped = self.folder / TUNED, {"trainable": _half(trainable)}
        if not path.exists():
            tensors.write(path, shipped)
        known = tensors.read(path, floats=False)
        if jax.tree.structure(known) != jax.tree.structure(shipped) or not all(
            jax.tree.leaves(jax.tree.map(np.array_equal, known, shipped))
        ):
            raise ValueError(f"{path} is the backbone of another run; remove {self.folder} first")

    def _frozen_features(self) -> dict[str, list[np.ndarray]]:
        """Features at the frozen's level of all views of the named corpora, written where missing."""
        frozen = features_lib.part_function(
            backbone_lib.pretrained(self.config), level=tune_backbone.FROZEN_LEVEL
        )
        data = self.config.data
        found = {}
        for corpus, views in zip(NAMED, (data.emoji_views, data.stamp_views), strict=True):
            files = [self.folder / f"{corpus}_trunk_{view}.npy" for view in range(views + 1)]
            for view, path in enumerate(files):
                self._write(path, self._views(corpus, view), frozen, f"frozen of view {view}")
            found[corpus] = [np.load(path, mmap_mode="r") for path in files]
        return found

    def _tune(self) -> None:
        """Tunes the trainable on the names of drawings; leaves the frozen's features beside it."""
        config = self.config
        untuned = backbone_lib.pretrained(config)
        trainable = features_lib.part_function(
            untuned, level=config.model.level, entry=tune_backbone.FROZEN_LEVEL
        )
        far: list[tune_backbone.Named] = []
        near: list[tune_backbone.Named] = []
        texts = np.load(self.folder / TEXTS)
        for corpus, features in self._frozen_features().items():
            label = texts[f"{corpus}_label"]
            weight = np.load(self.folder / f"{corpus}_captions.npz")["weight"]
            far.append(tune_backbone.Named(features, label, weight))
            features = [
                np.concatenate([trainable(part) for _, part in features_lib.in_batches(view)])
                for view in features[: tune_backbone.HEAD_VIEWS]
            ]
            near.append(tune_backbone.Named(features, label, weight))
        prototype_sentences = texts["prototype_sentences"].astype(np.float32)
        affine = features_lib.channel_statistics(near[0].features[0])
        tuned = tune_backbone.tune(
            config,
            tune_backbone.init_params(config, untuned, affine, prototype_sentences),
            near,
            far,
            prototype_sentences,
            self.folder / "tune",
            self.report,
        )
        tensors.write(self.folder / TUNED, {"trainable": _half(tuned["trainable"])})

    def _teach(self, path: Path) -> None:
        """Trains the trainable with its coarse weights on their grids, taught by the trainable in float."""
        config = self.config
        backbone = backbone_lib.whole(config, self.folder)
        workdir = self.folder / path.stem
        taught = quantize_backbone.teach(
            config, backbone, list(self._frozen_features().values()), workdir, self.report
        )
        tensors.write(path, {"trainable": _half(taught["trainable"]), "scales": taught["scales"]})

    def features(self, corpus: str, views: int) -> None:
        """Backbone features of the plain view and `views` augmented ones, a file each."""
        for view in range(views + 1):
            path = features_file(self.config, self.folder, corpus, view)
            if path.exists():
                continue
            frozen = self.folder / f"{corpus}_trunk_{view}.npy"
            if frozen.exists() and self._frozen_is_exact():
                features = np.load(frozen, mmap_mode="r")
                batches = len(features), features_lib.in_batches(features)
                entry = tune_backbone.FROZEN_LEVEL
            else:
                batches, entry = self._views(corpus, view), None
            self._write(path, batches, self._function(entry), f"backbone features of view {view}")

    def _function(self, entry: str | None) -> features_lib.Function:
        """Pictures, or features of level `entry`, -> features; compiled once."""
        if entry not in self._functions:
            backbone = backbone_lib.params(self.config, self.folder)
            if backbone is not None:
                backbone = backbone_lib.rounded(self.config, self.folder, backbone)
            if backbone is None or entry is None:
                self._functions[entry] = features_lib.feature_function(self.config, backbone)
            else:
                level = self.config.model.level
                self._functions[entry] = features_lib.part_function(
                    backbone, level=level, entry=entry
                )
        return self._functions[entry]

    def _frozen_is_exact(self) -> bool:
        """Whether the backbone is rounded, if at all, only behind the features the frozen left."""
        blocks = {path.split("/")[1] for path in backbone_lib.coarse(self.config)}
        return blocks.isdisjoint(efficientnet_lite0.block_names(tune_backbone.FROZEN_LEVEL))

    def _views(self, corpus: str, view: int) -> tuple[int, Iterator[tuple[int, np.ndarray]]]:
        """How many pictures a corpus has, and batches of a view of them."""
        source = elements(self.config, corpus, images=True)
        key = (stages.data_seed(self.config), CORPORA.index(corpus), view)
        side = self.config.model.image_side
        return len(source), features_lib.view_batches(source, view, key, side)

    def _write(
        self,
        path: Path,
        batches: tuple[int, Iterator[tuple[int, np.ndarray]]],
        function: features_lib.Function,
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


def _half(trainable: Params) -> Params:
    """Features must come from the backbone as it ships: in float16."""
    return jax.tree.map(lambda value: np.asarray(value, np.float16), trainable)


def _check_room(path: Path, size_bytes: int) -> None:
    """Refuses before a memory map is made: on a full disk, writing to one ends the process."""
    free = shutil.disk_usage(path.parent).free
    if free < size_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {size_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free space "
            "and run again: what is finished stays",
        )
