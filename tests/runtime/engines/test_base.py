"""The protocol: the JAX engine has every method it names."""

from mmllm.runtime.engines import base
from mmllm.runtime.model import MobileMultiModalLLM


def test_the_jax_engine_is_an_engine(model: MobileMultiModalLLM):
    assert isinstance(model.engine, base.Engine)


def test_anything_else_is_not():
    assert not isinstance(object(), base.Engine)
