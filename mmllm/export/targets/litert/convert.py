"""JAX functions -> a LiteRT file in float32, through jax2tf and TensorFlow's converter."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from mmllm.export.signatures import Signature


def convert(found: Mapping[str, Signature]) -> bytes:
    """Signatures -> a float32 LiteRT file.

    Raises:
      ModuleNotFoundError: TensorFlow is missing; the message says what to install.
    """
    # Before the import, which reads it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the LiteRT export needs {error.name}: pip install 'mmllm[export]'", name=error.name
        ) from error

    module, concrete = tf.Module(), {}
    for name, signature in found.items():
        function = tf.function(
            jax2tf.convert(signature.function, with_gradient=False),
            autograph=False,
            jit_compile=True,
        )
        specs = {
            key: tf.TensorSpec(shape, kind, name=key)
            for key, (shape, kind) in signature.inputs.items()
        }
        concrete[name] = function.get_concrete_function(**specs)
        setattr(module, name, function)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=concrete)
        lite: Any = tf.lite  # its names come late
        converter = lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(concrete))
        # Builtins alone: others would need a TensorFlow runtime on the device.
        converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS]
        return converter.convert()
