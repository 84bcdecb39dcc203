"""Phase 4, pictures -> features of the backbone as the run's bundle will hold it.

Reads the backbone that the two phases before left; leaves the features of every view in the cache,
of the "val" splits those of the plain one, and opens them with the tables as `run.arrays` and
`run.validation`. The loop itself never sees a pixel.
"""

import shutil
from pathlib import Path

import numpy as np

from mmllm.common import paths
from mmllm.common.config import Config
from mmllm.data import registry
from mmllm.train.backbone import blocks as backbone_lib
from mmllm.train.backbone import feature_cache
from mmllm.train.backbone import features as features_lib
from mmllm.train.backbone.blocks import FROZEN_LEVEL
from mmllm.train.phases import prepare
from mmllm.train.run import Run


def run(run: Run) -> None:
    """Leaves `run.arrays` and, where the run validates, `run.validation`."""
    config, tables = run.config, run.tables
    assert tables is not None, "prepare runs first"
    writer = _Writer(run, tables)
    for corpus in registry.pictured(config):
        writer.write(corpus, feature_cache.TRAIN)
        if run.validates:
            writer.write(corpus, feature_cache.VAL)
    # Only now: the arrays map files that must all be there.
    run.arrays = prepare.open_arrays(config, tables)
    if run.validates:
        run.validation = prepare.open_arrays(config, tables, feature_cache.VAL)


def keep_blocks(config: Config, tables: Path, workdir: Path) -> None:
    """Copies the trained blocks of the backbone, if there are any, to a run's folder."""
    if not backbone_lib.has_trained_blocks(config):
        return
    # Export reads the run's folder, not the cache, which may be emptied.
    name = backbone_lib.blocks_file(config)
    with paths.written_whole(workdir / name) as partial:
        shutil.copyfile(feature_cache.backbone_folder(config, tables) / name, partial)


class _Writer:
    """Writes the missing features of one backbone."""

    def __init__(self, run: Run, tables: Path) -> None:
        self._run, self._tables = run, tables
        self._functions: dict[str | None, features_lib.Function] = {}

    def write(self, corpus: str, split: str) -> None:
        """A file for the plain view and each augmented one."""
        config = self._run.config
        where = feature_cache.folder(config, self._tables, corpus, split)
        for view in range(feature_cache.views(config, corpus, split) + 1):
            path = feature_cache.file(where, view)
            if path.exists():
                continue
            if self._begins_frozen(corpus, view, split):
                frozen = self._frozen(corpus, view)
                batches = len(frozen), features_lib.in_batches(frozen)
                function = self._function(FROZEN_LEVEL)
            else:
                batches = feature_cache.pixels(config, corpus, view, split)
                function = self._function(None)
            feature_cache.write(path, batches, function, self._run.report)

    def _begins_frozen(self, corpus: str, view: int, split: str) -> bool:
        """Whether the frozen blocks need not run again: their features are there, and exact."""
        config = self._run.config
        # The tuning leaves them of the training split alone.
        if config.model.backbone == "patch" or split != feature_cache.TRAIN:
            return False
        coarse = {path.split("/")[1] for path in backbone_lib.coarse(config)}
        where = feature_cache.frozen_folder(config, corpus)
        # Rounding in a frozen block would move the features that were taken behind it.
        exact = coarse.isdisjoint(backbone_lib.frozen_names())
        return exact and feature_cache.file(where, view).exists()

    def _frozen(self, corpus: str, view: int) -> np.ndarray:
        where = feature_cache.frozen_folder(self._run.config, corpus)
        return np.load(feature_cache.file(where, view), mmap_mode="r")

    def _function(self, entry: str | None) -> features_lib.Function:
        """Pictures, or features of level `entry`, -> features; compiled once."""
        if entry not in self._functions:
            config = self._run.config
            folder = feature_cache.backbone_folder(config, self._tables)
            backbone = backbone_lib.params(config, folder)
            # At eight bits nothing is rounded here: the features are the float backbone's.
            if backbone is not None:
                backbone = backbone_lib.rounded(config, folder, backbone)
            if backbone is None or entry is None:
                self._functions[entry] = features_lib.feature_function(config, backbone)
            else:
                level = config.model.level
                function = features_lib.part_function(backbone, level=level, entry=entry)
                self._functions[entry] = function
        return self._functions[entry]
