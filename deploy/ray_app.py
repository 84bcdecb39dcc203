"""The same application under Ray Serve: one whole service a replica, scaled by its queue.

    pip install 'mmllm[ray]'
    RAY_SERVE_THROUGHPUT_OPTIMIZED=1 serve run deploy.ray_app:app

Run it from the repository's root, or with this file on the path of the workers. Batches are made
inside each replica, as in every other mode; Ray's own batching would add a hop and batch worse.
"""

import os
from typing import Any

from ray import serve  # pyrefly: ignore[missing-import]

QUEUE = 64  # as MMLLM_QUEUE_SIZE: above it a replica answers 503 itself
# Ray's proxy stands in front and lets others in, under names that it does not know.
DEFAULTS = {"MMLLM_HOST": "0.0.0.0", "MMLLM_TRUSTED_HOSTS": "*"}


def make() -> Any:
    """Makes the application, in the replica: what a process holds cannot be sent to it."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mmllm.serve.api import app as app_lib

    return app_lib.create_app()


@serve.deployment(
    name="mmllm",
    max_ongoing_requests=QUEUE,
    max_queued_requests=2 * QUEUE,
    graceful_shutdown_timeout_s=30,
    health_check_period_s=5,
    ray_actor_options={"num_cpus": 1},
    autoscaling_config={
        "min_replicas": 1,
        "max_replicas": 4,
        # Requests a replica has in work and in its queue: two batches of eight.
        "target_ongoing_requests": 16,
        "upscale_delay_s": 5,
        "downscale_delay_s": 120,
    },
)
@serve.ingress(make)
class Mmllm:
    """A replica; all it does is the application's."""


app = Mmllm.bind()
