"""Which parameter is split over which devices, on eight virtual ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs import tiny
from mmllm.common import config as config_lib
from mmllm.common import mesh as mesh_lib
from mmllm.models import init_params


def specs(mesh, tree):
    """Path -> partition of every leaf."""
    sharding = mesh_lib.state_sharding(mesh, tree)
    leaves = jax.tree_util.tree_leaves_with_path(sharding)
    return {mesh_lib.path_name(path): leaf.spec for path, leaf in leaves}


def test_a_mesh_has_the_asked_shape():
    mesh = mesh_lib.make_mesh(4, 2)
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    assert mesh_lib.make_mesh(1, 1).size == 1


def test_a_mesh_larger_than_the_machine_is_refused():
    with pytest.raises(ValueError, match="mesh_model = 3 x 3 needs 9 devices, got 8"):
        mesh_lib.make_mesh(3, 3)


def test_a_path_reads_as_names_and_places():
    tree = {"block": [jnp.zeros(1), (jnp.zeros(1),)]}
    paths = [mesh_lib.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    assert paths == ["block/0", "block/1/0"]


def test_inputs_of_attention_and_mlp_split_columns_and_their_outputs_split_rows():
    kernel, bias = jnp.zeros((4, 4)), jnp.zeros(4)
    tree = {
        "attention": {name: {"kernel": kernel} for name in ("query", "key", "value", "out")},
        "mlp": {name: {"kernel": kernel, "bias": bias} for name in ("up", "down")},
        "norm": {"scale": bias},
        "project": {"kernel": kernel},
        "out": {"kernel": kernel},
    }
    columns, rows, whole = (
        PartitionSpec(None, "model"),
        PartitionSpec("model", None),
        PartitionSpec(),
    )
    assert specs(mesh_lib.make_mesh(4, 2), tree) == {
        "attention/query/kernel": columns,
        "attention/key/kernel": columns,
        "attention/value/kernel": columns,
        "attention/out/kernel": rows,
        "mlp/up/kernel": columns,
        "mlp/up/bias": PartitionSpec("model"),
        "mlp/down/kernel": rows,
        "mlp/down/bias": whole,
        "norm/scale": whole,
        "project/kernel": whole,
        "out/kernel": whole,
    }


def test_a_leaf_of_another_rank_stays_whole():
    assert specs(mesh_lib.make_mesh(1, 2), {"query": {"kernel": jnp.zeros(4)}}) == {
        "query/kernel": PartitionSpec()
    }


def test_every_block_of_a_model_is_split():
    config = config_lib.resolve(tiny.get_config()).model
    params = jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))
    found = specs(mesh_lib.make_mesh(4, 2), params)
    split = {name for name, spec in found.items() if "model" in spec}
    blocks = config.encoder_blocks + config.decoder_blocks + config.text_blocks
    assert sum("/block_" in name for name in split) == 7 * blocks


def test_a_split_array_comes_back_whole():
    mesh = mesh_lib.make_mesh(4, 2)
    kernel = np.arange(32.0).reshape(4, 8)
    tree = {"up": {"kernel": kernel}}
    placed = jax.device_put(tree, mesh_lib.state_sharding(mesh, tree))["up"]["kernel"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {(4, 4)}
    np.testing.assert_array_equal(placed, kernel)
    batch = jax.device_put(kernel, mesh_lib.batch_sharding(mesh))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(1, 8)}
