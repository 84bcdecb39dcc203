"""How far the weights of a quantized run move while it trains: flips of codes, drift of scales."""

from collections.abc import Mapping

import numpy as np

from mmllm.common.types import Params
from mmllm.quant import tree
from mmllm.quant.coded import Coded
from mmllm.quant.rules import Rule


class Monitor:
    """How far codes and scales move from one look to the next, by weight.

    Args:
      planned: the quantized weights.
      start: {"model", "scales"} before the first step, whatever step a run resumes from.
    """

    def __init__(self, planned: Mapping[str, Rule], start: Params) -> None:
        self._planned = planned
        self._first = self._means(start)
        self._last: dict[str, Coded] = {}

    def _means(self, params: Params) -> dict[str, float]:
        scaled = tree.with_scales(params["model"], params["scales"], self._planned)
        return {path: float(np.mean(scale)) for path, (_, scale) in scaled.items()}

    def look(self, params: Params) -> dict[str, float]:
        """Statistics of a training state's parameters.

        Returns:
          "flips/PATH", the share of codes changed since the last look, which the first look lacks;
          "scale/PATH", the mean of the scales over their mean at the start.
        """
        # Codes rather than weights: a weight that moves within its step changes no answer.
        coded = tree.quantize(params["model"], params["scales"], self._planned)
        flips = tree.flip_rates(self._last, coded) if self._last else {}
        self._last = coded
        found = {f"flips/{path}": rate for path, rate in flips.items()}
        return found | {
            f"scale/{path}": mean / self._first[path] for path, mean in self._means(params).items()
        }
