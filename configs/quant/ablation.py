"""ablation: one row of PAPER's table of quantized models; all start alike and train alike.

Command:  python -m experiments.training.quantization, or one row by itself:
          python -m mmllm.train --config=configs/quant/ablation.py:ternary
Hardware: 2 CPU cores.
Time:     5 to 7 minutes a row, its evaluation included; "int2_long" 30.
Scores:   PAPER.md, section 7.

A new row is one entry of ROWS: the table, the figure and the experiment follow it.

Half the mixture of nano, so that many rows can be trained. The backbone stays at eight bits and the
heads at four, unless the row says otherwise.
"""

from ml_collections import ConfigDict

from configs import nano_half
from configs.quant import int2, mixed

BACKBONE = int2.RULES[:3]
HEADS = int2.RULES[3:5]
TRANSFORMER = int2.RULES[5:]


def _on(grid: str, scale: str = "") -> tuple[str, ...]:
    """The transformer and the token embedding on one grid."""
    return (
        *BACKBONE,
        *HEADS,
        *(f"{rule.split()[0]} {grid} int8 {scale}".strip() for rule in TRANSFORMER),
    )


def _rules(*rules: str):
    return lambda cfg: cfg.quant.update(rules=rules)


def _start(name: str):
    return lambda cfg: cfg.quant.update(scale_start=name)


def _steps(count: int):
    return lambda cfg: cfg.train.update(steps=count)


def _last_blocks(grid: str, steps: int):
    """The policy that ships, with the backbone's last blocks reconstructed on a grid first."""
    rules = (
        mixed.RULES[0],
        rf"backbone/block_1[1-5]/(expand|project)/kernel {grid} int8",
        *mixed.RULES[2:],
    )
    return lambda cfg: cfg.quant.update(rules=rules, reconstruction={"steps": steps})


def _half(cfg: ConfigDict) -> None:
    half = nano_half.get_config()
    cfg.quant.start = half.name
    cfg.model.width, cfg.model.heads = half.model.width, half.model.heads


def _half_int4(cfg: ConfigDict) -> None:
    _half(cfg)
    cfg.quant.rules = _on("int4")


def _half_float(cfg: ConfigDict) -> None:
    _half(cfg)
    _float(cfg)


def _untaught(cfg: ConfigDict) -> None:
    cfg.quant.update(distill_logits=0.0, distill_lines=0.0, distill_embeddings=0.0)


def _float(cfg: ConfigDict) -> None:
    cfg.quant.rules = (r".* float",)
    _untaught(cfg)


def _row(bits: str, what: str, change, *, ptq: str = "", seeds: int = 1) -> dict:
    return {"bits": bits, "what": what, "change": change, "ptq": ptq, "seeds": seeds}


ROWS = {
    "float": _row("float", "trained on as long as the others", _float, seeds=2),
    "int8": _row(
        "8",
        "trained with distillation",
        _rules(*BACKBONE, r".*/kernel int8 int8", r"embed/table int8 int8"),
        ptq="PTQ",
    ),
    "int8_static": _row(
        "8",
        "trained with distillation, per-tensor static activations",
        # The backbone's inputs stay per token: its features are cached before any calibration.
        _rules(*BACKBONE, r".*/kernel int8 int8_static", r"embed/table int8 int8_static"),
        ptq="PTQ, per-tensor static activations",
    ),
    "int4": _row("4", "trained with distillation", _rules(*_on("int4")), ptq="PTQ", seeds=2),
    "int2_untaught": _row("2", "trained without distillation", _untaught, seeds=2),
    "int2": _row("2", "trained with distillation", _rules(*int2.RULES), ptq="PTQ", seeds=2),
    "ternary": _row("2", "ternary grid", _rules(*_on("ternary"))),
    "seq": _row("2", "balanced grid without zero (SEQ)", _rules(*_on("seq")), seeds=2),
    "int2_rms": _row("2", "scale: root mean square, not learned", _rules(*_on("int2", "rms"))),
    "int2_absmean": _row(
        "2", "scale: mean of absolute values, not learned", _rules(*_on("int2", "absmean"))
    ),
    "int2_start_rms": _row("2", "learned scale, from the root mean square", _start("rms")),
    "int2_start_absmean": _row(
        "2", "learned scale, from the mean of absolute values", _start("absmean")
    ),
    "int2_quarter": _row("2", "a quarter of the steps", _steps(100)),
    "int2_half": _row("2", "half of the steps", _steps(200)),
    "int2_late_half": _row(
        "2", "as many steps, the first half in float", lambda cfg: cfg.quant.update(share=0.5)
    ),
    "int2_long": _row("2", "five times the steps", _steps(2_000)),
    "int2_frozen": _row(
        "2",
        "weights that oscillate are frozen in the second half",
        lambda cfg: cfg.quant.update(freeze_from=0.5),
    ),
    "int2_embed4": _row(
        "2, 4",
        "token embedding at 4",
        _rules(*BACKBONE, *HEADS, r"embed/table int4 int8", r".*/kernel int2 int8"),
    ),
    "int2_decoder4": _row(
        "2, 4",
        "token embedding and decoder at 4",
        _rules(
            *BACKBONE,
            *HEADS,
            r"embed/table int4 int8",
            r"decoder/.*kernel int4 int8",
            r".*/kernel int2 int8",
        ),
    ),
    "mixed_stem8": _row(
        "2, 4",
        "the policy that ships, its backbone at 8",
        _rules(mixed.RULES[0], *mixed.RULES[2:]),
    ),
    "mixed": _row(
        "2, 4",
        "the policy that ships",
        _rules(*mixed.RULES),
        ptq="the policy that ships, PTQ",
        seeds=2,
    ),
    "mixed_tail4": _row(
        "2, 4",
        "the same, the backbone's last five blocks at 4, block reconstruction",
        _last_blocks("int4", 300),
        seeds=2,
    ),
    "mixed_tail2_rounded": _row(
        "2, 4", "the same, the backbone's last five blocks at 2, PTQ", _last_blocks("int2", 0)
    ),
    "mixed_tail2": _row(
        "2, 4",
        "the same, the backbone's last five blocks at 2, block reconstruction",
        _last_blocks("int2", 300),
    ),
    "half_float": _row("float", "two thirds of the width", _half_float),
    "half_int4": _row(
        "4", "two thirds of the width: as many bytes behind the backbone as at 2", _half_int4
    ),
}
"""Row -> the only place that names it. In the order of the table:

    bits    of the transformer
    what    is special about it
    change  what it changes in the row int2
    ptq     what the table calls the same policy without training; "" where that is not measured
    seeds   how many runs it gets
"""


def get_config(row: str = "int2") -> ConfigDict:
    """The config of a row.

    Raises:
      ValueError: no such row.
    """
    if row not in ROWS:
        raise ValueError(f"row must be one of {', '.join(ROWS)}, got {row!r}")
    cfg = int2.get_config()
    cfg.name = "nano_ablation" if row == "int2" else f"nano_ablation_{row}"
    cfg.batch.update(captions=13, names=64, spoken=32, questions=22, lines=20, texts=64)
    cfg.train.steps = 400
    cfg.train.learning_rate = 5e-4
    cfg.train.warmup_steps = 40
    cfg.train.checkpoint_every = 400
    cfg.train.keep_checkpoints = 1
    cfg.align.steps = 0
    ROWS[row]["change"](cfg)
    return cfg
