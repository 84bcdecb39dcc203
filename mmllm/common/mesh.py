"""The device mesh and the sharding of batches and parameters over it."""

import re
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# First match wins; everything else is replicated. Widths split over "model" as in Megatron-LM
# (Shoeybi et al., 2019): the first matrix of a block by columns and the second by rows, so that a
# block needs one sum over the devices.
PARTITION_RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"(query|key|value|up)/kernel$", PartitionSpec(None, "model")),
    (r"up/bias$", PartitionSpec("model")),
    (r"(attention/out|down)/kernel$", PartitionSpec("model", None)),
)


def make_mesh(data: int, model: int) -> Mesh:
    """A (data, model) mesh over the first data * model devices.

    Raises:
      ValueError: fewer devices than the mesh needs.
    """
    devices = jax.devices()
    if data * model > len(devices):
        raise ValueError(
            f"train.mesh_data x train.mesh_model = {data} x {model} needs {data * model} devices, "
            f"got {len(devices)}"
        )
    axes = (AxisType.Auto, AxisType.Auto)  # XLA places what no rule names
    return jax.make_mesh(
        (data, model), ("data", "model"), axis_types=axes, devices=devices[: data * model]
    )


def path_name(path: tuple[Any, ...]) -> str:
    """A tree path as text: "model/encoder/block_0/mlp/up/kernel"."""
    return "/".join(
        str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))))
        for part in path
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the leading axis over the data devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_sharding(mesh: Mesh, state: Any) -> Any:
    """A tree of shardings for a train state, by parameter path."""

    def choose(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = path_name(path)
        for pattern, spec in PARTITION_RULES:
            if re.search(pattern, name) and leaf.ndim == len(spec):
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(choose, state)
