"""How far weights move: flips of codes since the last look, scales since the start."""

import numpy as np

from mmllm.quant.rules import Rule
from mmllm.train.student import monitor


def test_a_monitor_counts_flips_since_the_last_look_and_scales_since_the_start():
    def params(up, up_scale, low=((1.0,), (2.0,)), low_scale=(1.0,)):
        kernels = {"up": up, "low": low}
        scales = {"up": up_scale, "low": low_scale}
        return {
            part: {name: {"kernel": np.array(value, np.float32)} for name, value in each.items()}
            for part, each in (("model", kernels), ("scales", scales))
        }

    planned = {"up/kernel": Rule(".*", "int2"), "low/kernel": Rule(".*", "int4")}
    watch = monitor.Monitor(planned, params([[1.0, -2.0], [0.2, 0.9]], [2.0, 2.0]))
    first = watch.look(params([[1.0, -2.0], [0.2, 0.9]], [1.0, 1.0]))  # codes 1 -2 0 1
    assert first == {"scale/up/kernel": 0.5, "scale/low/kernel": 1.0}
    second = watch.look(params([[1.0, -0.9], [0.2, 0.9]], [1.0, 2.0]))  # codes 1 0 0 0
    assert second == {
        "flips/up/kernel": 0.5,
        "flips/low/kernel": 0.0,
        "scale/up/kernel": 0.75,
        "scale/low/kernel": 1.0,
    }
    third = params([[1.0, -0.9], [0.6, 0.9]], [1.0, 2.0], low_scale=[4.0])  # codes 1 0 1 0; 0 0
    assert watch.look(third) == {
        "flips/up/kernel": 0.25,
        "flips/low/kernel": 1.0,
        "scale/up/kernel": 0.75,
        "scale/low/kernel": 4.0,
    }
