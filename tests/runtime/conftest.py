"""One tiny bundle and its model for all tests of the runtime."""

from pathlib import Path

import pytest

from mmllm.runtime.model import MobileMultiModalLLM
from tests import tiny_bundle


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.make(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def model(bundle_folder: Path) -> MobileMultiModalLLM:
    return MobileMultiModalLLM.from_pretrained(bundle_folder)
