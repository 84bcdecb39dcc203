"""mobile_int2: mobile at two bits, heads and token table at four, the backbone at eight: 29.6 MB.

Command:  python -m mmllm.train --config=configs/quant/mobile_int2.py, after configs/mobile.py
Hardware: as configs/mobile.py.
Time:     unknown: it has not been trained yet; its size is tested.
"""

from ml_collections import ConfigDict

from configs import mobile
from configs.quant import int2

RULES = (
    *int2.RULES[:5],
    r"embed/table int4 int8",
    r".*/kernel int2 int8",
)


def get_config() -> ConfigDict:
    cfg = mobile.get_config()
    cfg.name = "mobile_int2"
    cfg.quant.start = "mobile"
    cfg.quant.rules = RULES
    cfg.train.steps = 20_000
    return cfg
