"""Every layer of the model by itself, on the input that it has in JAX."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmllm import bundle as bundle_lib
from mmllm.export.targets.litert import codes, convert
from mmllm.parity import rows as rows_lib
from mmllm.parity import taps
from mmllm.parity.samples import Samples

LAYER_SAMPLES = 4


def layers(bundle: bundle_lib.Bundle, samples: Samples, threads: int = 2) -> list[rows_lib.Row]:
    """Every layer of the model on the inputs that it has in JAX.

    Raises:
      ModuleNotFoundError: TensorFlow or LiteRT is missing.
      ParityError: an output of another shape, or one that is not finite.
    """
    from ai_edge_litert.interpreter import Interpreter

    params = jax.tree.map(jnp.asarray, bundle.params)
    recorded = [recorded_on(bundle, params, samples, row) for row in range(LAYER_SAMPLES)]
    file = convert.convert(taps.signatures(recorded[0], params))
    # No folds: in a file of single layers, nothing stands beside a weight to be multiplied into it.
    file = codes.put_codes(file, bundle.coded, {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "taps.tflite"
        path.write_bytes(file)
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        rows = []
        for calls in zip(*recorded, strict=True):
            runner = interpreter.get_signature_runner(taps.signature_name(calls[0].name))
            answers = [
                runner(**{f"input_{i}": value for i, value in enumerate(layer.inputs)})
                for layer in calls
            ]
            pairs = [
                (
                    np.stack([answer[f"output_{i}"] for answer in answers]),
                    np.stack([layer.outputs[i] for layer in calls]),
                )
                for i in range(len(calls[0].outputs))
            ]
            rows.append(rows_lib.named("layer", calls[0].name, len(calls), pairs))
        del runner, interpreter  # which hold the file open
    return rows


def recorded_on(
    bundle: bundle_lib.Bundle, params: Any, samples: Samples, row: int
) -> list[taps.Layer]:
    """The layers of a model as they run on one picture, line and text in JAX."""

    def pick(rows: Any) -> Any:
        # There are fewer lines and prompts than pictures.
        return rows[row % len(rows)]

    ids = jnp.asarray(pick(samples.prompts)[None])
    texts = jnp.asarray(pick(samples.texts)[None])

    def call(model: Any) -> None:
        prefix = model.encode_image(jnp.asarray(pick(samples.pixels)[None], jnp.float32))
        model.read_lines(jnp.asarray(pick(samples.lines)[None], jnp.float32))
        model.embed_text(texts)
        logits, cache = model.prefill(prefix, ids)
        # Prompts are padded with 0: the next token stands at the last own one, not the last column.
        last = int(np.sum(np.asarray(ids) != 0)) - 1
        token = jnp.argmax(logits[:, last], axis=-1).astype(jnp.int32)
        model.decode_step(token, jnp.asarray([prefix.shape[1] + last + 1], jnp.int32), cache)

    return taps.record(bundle.config, params, call, bundle.rules)
