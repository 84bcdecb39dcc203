"""One comparison of the tiny bundle's file with JAX for all tests of the room."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def compared(made):
    """What the tiny bundle measures, and the float file with its layers."""
    from mmllm.export.targets.litert import convert  # after the import hook
    from mmllm.parity import report, samples

    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 255, (5, 32, 32, 3), np.uint8))
    lines = list(rng.integers(0, 255, (3, 8, 64, 3), np.uint8))
    inputs = samples.Inputs(pictures, lines, ["a red bus", "two dogs", "cat"])
    files = []
    with pytest.MonkeyPatch.context() as patch:
        plain = convert.convert
        patch.setattr(convert, "convert", lambda found: files.append(plain(found)) or files[0])
        measured = report.measure(made.folder, inputs, threads=1)
    return measured, files[0], inputs
