"""Trees: what a rule finds, which way a weight lies, and that codes come back as weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmllm.quant import coded, grid, scale, tree
from mmllm.quant.rules import Rule

RULES = (
    Rule(r"backbone/.*", "float"),
    Rule(r".*/table", "int8"),
    Rule(r"decoder/.*kernel", "int2"),
    Rule(r"tower/.*kernel", "ternary", scale="rms"),
)


def make_params():
    draw = iter(jax.random.split(jax.random.key(0), 8))
    return {
        "backbone": {"kernel": jax.random.normal(next(draw), (3, 5))},
        "embed": {"table": jax.random.normal(next(draw), (6, 8))},
        "decoder": {
            "up": {"kernel": jax.random.normal(next(draw), (8, 12)), "bias": jnp.ones(12)},
        },
        "tower": {"kernel": jax.random.normal(next(draw), (8, 4))},
    }


PARAMS = make_params()
PLAN = tree.plan(PARAMS, RULES)
SCALES = tree.init_scales(PARAMS, PLAN)


def test_a_plan_names_the_quantized_weights():
    assert {path: rule.weights for path, rule in PLAN.items()} == {
        "embed/table": "int8",
        "decoder/up/kernel": "int2",
        "tower/kernel": "ternary",
    }


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule("encoder/.*", "int2"), r"^rule 'encoder/\.\*' decides over no parameter"),
        (
            Rule("decoder/.*", "int2"),
            r"^rule 'decoder/\.\*' matches decoder/up/bias of shape \(12,\)",
        ),
    ],
)
def test_a_rule_that_misses_or_matches_too_much_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        tree.plan(PARAMS, [rule])


def test_a_rule_hidden_by_one_before_it_is_refused():
    with pytest.raises(ValueError, match=r"^rule 'tower/kernel' decides over no parameter"):
        tree.plan(PARAMS, [*RULES, Rule("tower/kernel", "int4")])


def test_a_rule_of_inputs_alone_plans_no_weight_and_passes_over_biases():
    assert tree.plan(PARAMS, [Rule("decoder/.*", "float", "int8")]) == {}
    convolution = {"depthwise": {"kernel": jnp.ones((3, 3, 8))}}
    with pytest.raises(ValueError, match=r"^rule '\.\*' matches depthwise/kernel of shape"):
        tree.plan(convolution, [Rule(".*", "float", "int8")])
    with pytest.raises(ValueError, match=r"^rule 'none' decides over no parameter"):
        tree.plan(PARAMS, [Rule("none", "float", "int8")])


def test_only_learned_scales_are_kept_one_an_output_channel():
    shapes = jax.tree.map(np.shape, SCALES)
    assert shapes == {"embed": {"table": (6,)}, "decoder": {"up": {"kernel": (12,)}}}


def test_a_table_has_a_scale_a_row_and_a_kernel_one_a_column():
    each = grid.GRIDS["int8"]
    expected = scale.mse_scale(PARAMS["embed"]["table"].T, each)
    np.testing.assert_array_equal(SCALES["embed"]["table"], expected)
    rounded = tree.fake_quantize(PARAMS, SCALES, PLAN)
    steps = np.asarray(rounded["embed"]["table"]) / np.asarray(expected)[:, None]
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    steps = np.asarray(rounded["decoder"]["up"]["kernel"]) / np.asarray(
        SCALES["decoder"]["up"]["kernel"]
    )
    assert set(np.round(steps, 4).ravel().tolist()) <= {-2.0, -1.0, 0.0, 1.0}


def test_what_no_rule_names_stays_as_it_is():
    rounded = tree.fake_quantize(PARAMS, SCALES, PLAN)
    assert rounded["backbone"]["kernel"] is PARAMS["backbone"]["kernel"]
    assert rounded["decoder"]["up"]["bias"] is PARAMS["decoder"]["up"]["bias"]


def test_what_ships_is_what_training_saw_bit_for_bit():
    seen = tree.fake_quantize(PARAMS, SCALES, PLAN)
    codes = tree.quantize(PARAMS, SCALES, PLAN)
    jax.tree.map(np.testing.assert_array_equal, tree.dequantize(PARAMS, codes), seen)
    assert {path: each.codes.shape for path, each in codes.items()} == {
        "embed/table": (6, 8),
        "decoder/up/kernel": (12, 8),
        "tower/kernel": (4, 8),
    }


def test_gradients_reach_weights_and_learned_scales_under_jit():
    @jax.jit
    def loss(params, scales):
        rounded = tree.fake_quantize(params, scales, PLAN)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(rounded))

    by_params, by_scales = jax.grad(loss, argnums=(0, 1))(PARAMS, SCALES)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(by_params))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(by_scales))


def test_a_scale_that_training_drove_below_zero_still_divides():
    scales = jax.tree.map(jnp.negative, SCALES)
    rounded = tree.fake_quantize(PARAMS, scales, PLAN)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rounded))


def test_a_scale_at_the_floor_is_drawn_up_again():
    """There every weight is beyond the outermost level, so a larger scale has less error."""

    def error(scales):
        rounded = tree.fake_quantize(PARAMS, scales, PLAN)
        apart = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), rounded, PARAMS)
        return sum(jax.tree.leaves(apart))

    gradients = jax.grad(error)(jax.tree.map(lambda each: 0 * each - 1e-3, SCALES))
    assert all((leaf < 0).all() for leaf in jax.tree.leaves(gradients))


def test_a_matrix_whose_codes_would_not_fill_bytes_is_refused_before_it_trains():
    params = {"up": {"kernel": jnp.ones((6, 4))}, "embed": {"table": jnp.ones((8, 6))}}
    assert len(tree.plan(params, [Rule(".*", "int4")])) == 2
    for path in ("up/kernel", "embed/table"):
        with pytest.raises(
            ValueError, match=f"puts {path} .* on int2, whose codes are packed by 4"
        ):
            tree.plan(params, [Rule(path, "int2")])


def test_flips_are_counted_by_weight():
    before = tree.quantize(PARAMS, SCALES, PLAN)
    codes = before["tower/kernel"].codes.copy()
    codes[0, :2] = np.where(codes[0, :2] == 1, 0, 1)
    after = before | {"tower/kernel": coded.Coded(codes, before["tower/kernel"].scale, "ternary")}
    rates = tree.flip_rates(before, after)
    assert rates == {"embed/table": 0.0, "decoder/up/kernel": 0.0, "tower/kernel": 2 / 32}


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match=r"^start must be one of mse, rms, absmean, got 'max'$"):
        tree.init_scales(PARAMS, PLAN, "max")
