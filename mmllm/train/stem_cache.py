"""The stem's share of a training cache: its tuned or taught tail, and its cells of every view.

`train.cache` calls it, in order: `tail`, then `cells` of each corpus. Each file is written whole
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
from mmllm.train import frozen_stem, stages, stem_cells, teach_stem, tune_stem
from mmllm.train.frozen_stem import TUNED

CORPORA = ("emoji", "stamps", "ocr_lines", "composites", "easy_vqa")
NAMED = ("emoji", "stamps")  # their captions are the names of the bank
TEXTS = "texts.npz"
REPORT_EVERY = 40  # batches
Report = Callable[[str], None]


def elements(config: Config, corpus: str, *, images: bool = False) -> Any:
    """The training split of a corpus; without images only its texts are read, which is fast."""
    source = sources.load(corpus, "train", images=images)
    limit = config.data.limit
    return source if limit is None else [source[i] for i in range(min(limit, len(source)))]


def cells_file(config: Config, folder: Path, corpus: str, view: int) -> Path:
    """Where the stem cells of a view lie; a stem rounded coarsely has cells of its own."""
    return folder / f"{corpus}_cells{frozen_stem.digest(config)}_{view}.npy"


class StemBuilder:
    """What the stem leaves in a cache's folder."""

    def __init__(self, config: Config, folder: Path, report: Report) -> None:
        self.config, self.folder, self.report = config, folder, report
        self._functions: dict[str | None, stem_cells.Function] = {}

    def tail(self, given: Params | None = None) -> None:
        """Writes the part of the stem that is trained: tuned on names, then taught its grids.

        Args:
          given: a tail that was tuned elsewhere, in the place of tuning one.

        Raises:
          ValueError: another tail than `given`, or than that of the run a student starts from, is
            there; or nothing that `quant.stem_steps` could teach.
        """
        config = self.config
        if config.quant.stem_steps:
            teach_stem.check(config)
        if config.tune.steps and config.quant.start:
            given = tensors.read(stages.start_folder(config) / TUNED)["tail"]
        if given is not None:
            self._take(given)
        if config.tune.steps and not (self.folder / TUNED).exists():
            self._tune()
        taught = self.folder / frozen_stem.tail_file(config)
        if config.quant.stem_steps and not taught.exists():
            self._teach(taught)

    def _take(self, tail: Params) -> None:
        """Writes a tuned tail, or checks that it is the one that is there."""
        path, shipped = self.folder / TUNED, {"tail": _half(tail)}
        if not path.exists():
            tensors.write(path, shipped)
        known = tensors.read(path, floats=False)
        if jax.tree.structure(known) != jax.tree.structure(shipped) or not all(
            jax.tree.leaves(jax.tree.map(np.array_equal, known, shipped))
        ):
            raise ValueError(f"{path} is the stem of another run; remove {self.folder} first")

    def _trunks(self) -> dict[str, list[np.ndarray]]:
        """Features at the trunk's tap of all views of the named corpora, written where missing."""
        trunk = stem_cells.part_function(frozen_stem.pretrained(self.config), tap=tune_stem.TRUNK)
        data = self.config.data
        found = {}
        for corpus, views in zip(NAMED, (data.emoji_views, data.stamp_views), strict=True):
            files = [self.folder / f"{corpus}_trunk_{view}.npy" for view in range(views + 1)]
            for view, path in enumerate(files):
                self._write(path, self._views(corpus, view), trunk, f"trunk of view {view}")
            found[corpus] = [np.load(path, mmap_mode="r") for path in files]
        return found

    def _tune(self) -> None:
        """Tunes the tail on the names of drawings; leaves the trunk's features beside it."""
        config = self.config
        untuned = frozen_stem.pretrained(config)
        tail = stem_cells.part_function(untuned, tap=config.model.tap, entry=tune_stem.TRUNK)
        far: list[tune_stem.Named] = []
        near: list[tune_stem.Named] = []
        texts = np.load(self.folder / TEXTS)
        for corpus, features in self._trunks().items():
            label = texts[f"{corpus}_label"]
            weight = np.load(self.folder / f"{corpus}_captions.npz")["weight"]
            far.append(tune_stem.Named(features, label, weight))
            cells = [
                np.concatenate([tail(part) for _, part in stem_cells.in_batches(view)])
                for view in features[: tune_stem.HEAD_VIEWS]
            ]
            near.append(tune_stem.Named(cells, label, weight))
        bank_teacher = texts["bank_teacher"].astype(np.float32)
        affine = stem_cells.channel_statistics(near[0].cells[0])
        tuned = tune_stem.tune(
            config,
            tune_stem.init_params(config, untuned, affine, bank_teacher),
            near,
            far,
            bank_teacher,
            self.folder / "tune",
            self.report,
        )
        tensors.write(self.folder / TUNED, {"tail": _half(tuned["tail"])})

    def _teach(self, path: Path) -> None:
        """Trains the tail with its coarse weights on their grids, taught by the tail in float."""
        config = self.config
        stem = frozen_stem.whole(config, self.folder)
        workdir = self.folder / path.stem
        taught = teach_stem.teach(config, stem, list(self._trunks().values()), workdir, self.report)
        tensors.write(path, {"tail": _half(taught["tail"]), "scales": taught["scales"]})

    def cells(self, corpus: str, views: int) -> None:
        """Stem cells of the plain view and `views` augmented ones, a file each."""
        for view in range(views + 1):
            path = cells_file(self.config, self.folder, corpus, view)
            if path.exists():
                continue
            trunk = self.folder / f"{corpus}_trunk_{view}.npy"
            if trunk.exists() and self._trunk_is_exact():
                features = np.load(trunk, mmap_mode="r")
                batches = len(features), stem_cells.in_batches(features)
                entry = tune_stem.TRUNK
            else:
                batches, entry = self._views(corpus, view), None
            self._write(path, batches, self._function(entry), f"stem cells of view {view}")

    def _function(self, entry: str | None) -> stem_cells.Function:
        """Pictures, or features of tap `entry`, -> cells; compiled once."""
        if entry not in self._functions:
            stem = frozen_stem.params(self.config, self.folder)
            if stem is not None:
                stem = frozen_stem.rounded(self.config, self.folder, stem)
            if stem is None or entry is None:
                self._functions[entry] = stem_cells.stem_function(self.config, stem)
            else:
                tap = self.config.model.tap
                self._functions[entry] = stem_cells.part_function(stem, tap=tap, entry=entry)
        return self._functions[entry]

    def _trunk_is_exact(self) -> bool:
        """Whether the stem is rounded, if at all, only behind the features the trunk left."""
        blocks = {path.split("/")[1] for path in frozen_stem.coarse(self.config)}
        return blocks.isdisjoint(efficientnet_lite0.block_names(tune_stem.TRUNK))

    def _views(self, corpus: str, view: int) -> tuple[int, Iterator[tuple[int, np.ndarray]]]:
        """How many pictures a corpus has, and batches of a view of them."""
        source = elements(self.config, corpus, images=True)
        key = (stages.data_seed(self.config), CORPORA.index(corpus), view)
        side = self.config.model.image_side
        return len(source), stem_cells.view_batches(source, view, key, side)

    def _write(
        self,
        path: Path,
        batches: tuple[int, Iterator[tuple[int, np.ndarray]]],
        function: stem_cells.Function,
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


def _half(tail: Params) -> Params:
    """Cells must come from the stem as it ships: in float16."""
    return jax.tree.map(lambda value: np.asarray(value, np.float16), tail)


def _check_room(path: Path, size_bytes: int) -> None:
    """Refuses before a memory map is made: on a full disk, writing to one ends the process."""
    free = shutil.disk_usage(path.parent).free
    if free < size_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{path} needs {size_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free space "
            "and run again: what is finished stays",
        )
