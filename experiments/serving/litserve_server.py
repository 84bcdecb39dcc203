"""The same model behind LitServe, with batches as `mmllm serve` makes them and a worker a core.

Command:  PYTHON -m experiments.serving.litserve_server PORT, with a Python that has litserve 0.2
          beside what mmllm needs; no lock file has it.
"""

import sys
from typing import Any

import fastapi
import litserve  # pyrefly: ignore[missing-import]

from experiments.serving.baselines import CORES
from mmllm.runtime.model import MobileMultiModalLLM

BATCHES = {"max_batch_size": 8, "batch_timeout": 0.002}


class Captions(litserve.LitAPI):
    """Captions, a batch at a time."""

    method, field = "caption_batch", "caption"

    def setup(self, device: str) -> None:
        """Loads the model, in each worker."""
        self.model = MobileMultiModalLLM.from_pretrained("nano", threads=1)

    def decode_request(self, request: fastapi.Request) -> bytes:
        """The uploaded file; what LitServe passes for a Request is its form."""
        form: Any = request
        return form["image"].file.read()

    def predict(self, batch: list[bytes]) -> list[Any]:
        """One call of the model."""
        return list(getattr(self.model, self.method)(batch))

    def unbatch(self, output: list[Any]) -> list[Any]:
        """An answer a request."""
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        """JSON."""
        return {self.field: output if isinstance(output, str) else output.tolist()}


class Embeddings(Captions):
    """Vectors of pictures, a batch at a time."""

    method, field = "embed_images", "embedding"


def main() -> None:
    """Serves both."""
    apis = [
        Captions(api_path="/v1/caption", **BATCHES),
        Embeddings(api_path="/v1/embed/image", **BATCHES),
    ]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=CORES)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
