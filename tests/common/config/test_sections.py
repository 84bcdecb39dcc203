"""Sizes and settings that cannot work are refused, each by its name."""

import dataclasses

import pytest

from configs import nano, tiny
from mmllm.common import config as config_lib


def values() -> dict:
    return tiny.get_config().to_dict()


def changed(**changes):
    return dataclasses.replace(config_lib.resolve(values()).model, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet"}, "model.backbone must be one of .*, got 'resnet'"),
        ({"level": "7x7"}, "model.level must be one of .*, got '7x7'"),
        ({"width": 48}, "model.width must be a multiple of 32, got 48"),
        ({"width": 0}, "model.width must be positive, got 0"),
        ({"heads": 5}, "model.heads must split width 32 into even parts, got 5"),
        ({"heads": 32}, "model.heads must split width 32 into even parts, got 32"),
        ({"heads": 0}, "model.heads must be positive, got 0"),
        ({"kv_heads": 3}, "model.kv_heads must divide heads 4, got 3"),
        ({"kv_heads": 0}, "model.kv_heads must be positive, got 0"),
        ({"line_stride": 5}, "model.line_stride must divide line_width 64, got 5"),
        ({"patch": 5}, "model.patch must divide image_side 32, got 5"),
        ({"merge": 0}, "model.merge must be positive, got 0"),
        ({"backbone": "efficientnet_lite0"}, "model.image_side must be 224 .*, got 32"),
        ({"feature_dropout": 1.0}, r"model.feature_dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        changed(**changes)


def test_sizes_that_follow_are_counted_by_hand():
    small = config_lib.resolve(values()).model
    assert (small.head_dim, small.feature_grid, small.feature_channels) == (8, 4, 8 * 8 * 3)
    assert (small.grid, small.prefix_length, small.line_columns) == (2, 5, 16)
    shipped = config_lib.resolve(nano.get_config()).model
    assert (shipped.head_dim, shipped.feature_grid, shipped.feature_channels) == (32, 7, 320)
    assert (shipped.grid, shipped.prefix_length, shipped.line_columns) == (4, 17, 64)


def test_a_batch_is_summed_by_hand():
    batch = config_lib.BatchConfig(captions=6, names=8, spoken=9, questions=9, lines=6, texts=7)
    assert (batch.pictures, batch.total) == (15, 45)


def test_a_row_holds_the_longest_text():
    good = values()
    good["data"]["row_tokens"] = good["data"]["decoder_tokens"] - 1
    message = r"^data.row_tokens must be at least data.decoder_tokens \(20\), got 19$"
    with pytest.raises(ValueError, match=message):
        config_lib.resolve(good)


def test_a_task_is_left_out_by_zero_and_never_counted_below_it():
    good = values()
    good["batch"]["lines"] = 0
    assert config_lib.resolve(good).batch.lines == 0
    good["batch"]["lines"] = -1
    with pytest.raises(ValueError, match=r"^batch.lines must be 0 \(left out\) or more, got -1$"):
        config_lib.resolve(good)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("start", "nano", "start and quant.rules must both be given or both be empty, got 'nano'"),
        ("share", 0.0, "share must be above 0 and at most 1, got 0.0"),
        ("share", 1.5, "share must be above 0 and at most 1, got 1.5"),
        ("scale_rate", -0.1, "scale_rate must be 0 or more, got -0.1"),
        ("freeze_from", 2.0, "freeze_from must be between 0 and 1, got 2.0"),
        ("temperature", 0.0, "temperature must be positive, got 0.0"),
        ("distill_lines", -1.0, "distill_lines must be 0 or more, got -1.0"),
    ],
)
def test_how_a_run_is_quantized_must_be_possible(field, value, message):
    wrong = values()
    wrong["quant"][field] = value
    with pytest.raises(ValueError, match=f"^quant.{message}"):
        config_lib.resolve(wrong)


def test_a_batch_of_nothing_is_refused():
    wrong = values()
    wrong["batch"] = dict.fromkeys(wrong["batch"], 0)
    with pytest.raises(ValueError, match="^one of batch.captions, .*batch.texts must be above 0, "):
        config_lib.resolve(wrong)
    wrong["batch"]["texts"] = 1
    assert config_lib.resolve(wrong).batch.total == 1


@pytest.mark.parametrize("name", ["", "../tiny", "Nano 1"])
def test_a_vocabulary_has_a_name_that_can_be_a_folder(name):
    wrong = values()
    wrong["data"]["vocabulary"] = name
    with pytest.raises(ValueError, match=r"^data.vocabulary must be a name of small letters"):
        config_lib.resolve(wrong)


@pytest.mark.parametrize(
    ("section", "field"), [("prototypes", "negatives"), ("prototypes", "max_residuals")]
)
def test_counts_of_prototypes_are_not_negative(section, field):
    wrong = values()
    wrong[section][field] = -1
    with pytest.raises(ValueError, match=f"^{section}.{field} must be 0 or more, got -1"):
        config_lib.resolve(wrong)


def test_weights_and_views_of_corpora_are_not_negative():
    for path, key in (("mix", "mix"), ("data.views", "views")):
        wrong = values()
        section = wrong if key == "mix" else wrong["data"]
        section[key]["emoji"] = -1
        with pytest.raises(ValueError, match=f"^{path}.emoji must be 0 or more, got -1"):
            config_lib.resolve(wrong)
