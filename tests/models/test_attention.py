"""Attention against a naive implementation, and the rotary embedding's one property."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.models import attention

CONFIG = config_lib.resolve(tiny.get_config()).model
TOLERANCE = 1e-5  # float32, two orders of summation


def naive(params, x, mask):
    """Loops over rows, heads and positions."""
    query, key, value = (np.asarray(x @ params[n]["kernel"]) for n in ("query", "key", "value"))
    width, group = CONFIG.head_dim, CONFIG.heads // CONFIG.kv_heads
    out = np.zeros((*x.shape[:2], CONFIG.width))
    for b in range(x.shape[0]):
        for h in range(CONFIG.heads):
            mine = slice(h * width, (h + 1) * width)
            shared = slice(h // group * width, (h // group + 1) * width)
            for i in range(x.shape[1]):
                seen = [j for j in range(x.shape[1]) if mask[i, j]]
                score = np.array([query[b, i, mine] @ key[b, j, shared] for j in seen]) / width**0.5
                weight = np.exp(score - score.max())
                weight /= weight.sum()
                out[b, i, mine] = weight @ value[b, seen][:, shared]
    return out @ np.asarray(params["out"]["kernel"])


def test_grouped_query_attention_equals_the_naive_loops():
    module = attention.Attention(CONFIG)
    x = jax.random.normal(jax.random.key(0), (2, 5, CONFIG.width))
    mask = np.tril(np.ones((5, 5), bool))

    def forward(m, x):
        query, pair = m.project(x, None)
        return m.attend(query, pair, jnp.asarray(mask)[None, None])

    params = module.init(jax.random.key(1), x, method=forward)["params"]
    found: Any = module.apply({"params": params}, x, method=forward)
    np.testing.assert_allclose(found, naive(params, x, mask), atol=TOLERANCE)


def test_rotation_makes_products_depend_on_distance_only():
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def product(i, j):
        left = attention.rotate(query, jnp.array([[i]]))
        right = attention.rotate(key, jnp.array([[j]]))
        return float(jnp.sum(left * right))

    np.testing.assert_allclose(product(3, 1), product(10, 8), atol=TOLERANCE)
    assert abs(product(3, 1) - product(3, 2)) > 1e-3
