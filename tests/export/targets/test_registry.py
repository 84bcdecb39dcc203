"""The targets by name: each can be loaded, and a missing tool is named with what to install."""

import dataclasses

import pytest

from mmllm import bundle
from mmllm.export.targets import registry


@pytest.mark.export
@pytest.mark.parametrize("name", registry.TARGETS)
def test_every_target_exports_checks_and_counts(name: str):
    assert isinstance(registry.TARGETS[name].load(), registry.Exporter)


def test_the_file_of_litert_is_the_one_that_bundles_know():
    assert registry.TARGETS["litert"].file == bundle.LITERT
    files = [target.file for target in registry.TARGETS.values()]
    assert len(files) == len(set(files))


def test_a_missing_tool_is_named_with_what_to_install():
    target = dataclasses.replace(registry.TARGETS["litert"], module="no_such_tool")
    message = r"^the LiteRT export needs no_such_tool: pip install 'mmllm\[export\]'$"
    with pytest.raises(ModuleNotFoundError, match=message):
        target.load()
