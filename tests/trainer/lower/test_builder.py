"""What the builder decides: when to split, share, fuse, copy and drop."""

from functools import reduce

import numpy as np
import pytest

from market.protocol.constants import MAX_MAP_OPERANDS, MAX_MAP_OPS, MAX_MAP_OUTPUTS
from market.protocol.errors import UnsupportedOperator
from market.protocol.program import Kind, OutputKind, TensorRole
from market.protocol.tensors import Dtype, TensorType
from market.protocol.validity import require_valid_program
from tests.trainer.lower.interpreter import Interpreter
from trainer.lower import instructions, recipes
from trainer.lower.assembly import NamedOutput
from trainer.lower.builder import ProgramBuilder, concatenate
from trainer.lower.values import insert_axis, permute


def make_builder(**shapes):
    builder = ProgramBuilder()
    inputs = [
        builder.add_input(name, TensorType(Dtype.F32, shape), TensorRole.DATASET)
        for name, shape in shapes.items()
    ]
    return builder, inputs


def build(builder, **values):
    outputs = [NamedOutput(OutputKind.GRADIENT, name, value) for name, value in values.items()]
    program = builder.build(outputs)
    require_valid_program(program)
    return program


def run(program):
    """Return the outputs for inputs counted from 1, and the inputs."""
    inputs = {
        t.name: np.arange(1, t.type.elements + 1, dtype=np.float64).reshape(t.type.shape) * (n + 1)
        for n, t in program.inputs
    }
    return Interpreter(program).run(inputs)[1], inputs


def count(program, kind):
    return sum(i.kind is kind for i in program.instructions)


def test_a_map_with_too_many_operands_becomes_a_chain():
    builder, inputs = make_builder(**{f"x{n}": (3, 4) for n in range(20)})
    total = reduce(lambda a, b: builder.map(lambda x, y: x + y, a, b), inputs)

    program = build(builder, total=total)

    found, given = run(program)
    np.testing.assert_allclose(found["total"], sum(given.values()))
    assert 3 <= count(program, Kind.MAP) <= 4
    assert all(len(i.operands) <= MAX_MAP_OPERANDS for i in program.instructions)


def test_an_expression_with_too_many_operations_becomes_several_maps():
    builder, (x,) = make_builder(x=(5,))
    value = x
    for _ in range(12):
        value = builder.map(recipes.tanh, value)

    program = build(builder, value=value)

    assert count(program, Kind.MAP) > 1
    assert all(len(i.code) <= MAX_MAP_OPS for i in program.instructions)
    found, given = run(program)
    expected = reduce(lambda y, _: np.tanh(y), range(12), given["x"])
    np.testing.assert_allclose(found["value"], expected, rtol=1e-5)


def test_maps_that_read_the_same_tensor_become_one():
    builder, (x, y) = make_builder(x=(4, 6), y=(4, 6))
    product = builder.store(builder.map(lambda a, b: a * b, x, y))
    outputs = {f"o{n}": builder.map(lambda a, n=n: a + n, product) for n in range(MAX_MAP_OUTPUTS)}

    program = build(builder, **outputs)

    assert len(program.instructions) == 1
    found, given = run(program)
    np.testing.assert_allclose(found["o3"], given["x"] * given["y"] + 3)


def test_a_value_read_along_another_axis_is_not_fused():
    builder, (x,) = make_builder(x=(4, 4))
    double = builder.store(builder.map(lambda a: a * 2.0, x))
    mixed = builder.map(lambda a, b: a + b, double, permute(double, (1, 0)))

    program = build(builder, mixed=mixed)

    assert count(program, Kind.MAP) == 2
    found, given = run(program)
    np.testing.assert_allclose(found["mixed"], 2 * given["x"] + 2 * given["x"].T)


def test_what_no_output_needs_is_dropped():
    builder, (x,) = make_builder(x=(4,))
    builder.store(builder.map(recipes.exp, x))
    instructions.reduce_sum(builder, x, [0])

    program = build(builder, kept=builder.map(lambda a: a + 1.0, x))

    assert [i.kind for i in program.instructions] == [Kind.MAP]
    assert len(program.tensors) == 2


def test_rows_are_quantized_once_for_all_views_of_them():
    builder, (a, b) = make_builder(a=(6, 8), b=(6, 8))
    grouped = builder.reshape(a, (2, 3, 8))
    plain = instructions.dot(builder, a, b)
    batched = instructions.dot(builder, grouped, builder.reshape(b, (2, 3, 8)), batch=1)
    transposed = instructions.dot(builder, permute(a, (1, 0)), permute(b, (1, 0)))

    program = build(builder, plain=plain, batched=batched, transposed=transposed)

    assert count(program, Kind.QUANTIZE) == 4  # two operands along two axes
    found, given = run(program)
    np.testing.assert_allclose(found["plain"], given["a"] @ given["b"].T)
    np.testing.assert_allclose(found["transposed"], given["a"].T @ given["b"])
    parts = given["a"].reshape(2, 3, 8) @ given["b"].reshape(2, 3, 8).transpose(0, 2, 1)
    np.testing.assert_allclose(found["batched"], parts)


def test_a_row_in_two_pieces_is_copied_before_it_is_quantized():
    builder, (a, b) = make_builder(a=(2, 3, 4), b=(5, 8))
    rows = builder.reshape(permute(a, (1, 0, 2)), (3, 8))

    program = build(builder, out=instructions.dot(builder, rows, b))

    assert program.instructions[0].kind is Kind.MAP
    found, given = run(program)
    expected = given["a"].transpose(1, 0, 2).reshape(3, 8) @ given["b"].T
    np.testing.assert_allclose(found["out"], expected)


def test_an_expensive_broadcast_value_is_computed_before_it_grows():
    builder, (x, y) = make_builder(x=(5, 1), y=(5, 100))
    scale = builder.map(recipes.exp, x)

    program = build(builder, out=builder.map(lambda a, b: a * b, scale, y))

    assert [len(i.code) for i in program.instructions][1:] == [1]
    assert program.instructions[0].shape == (5,)


def test_pieces_side_by_side_are_written_by_one_map_and_never_copied():
    builder, (x,) = make_builder(x=(3, 4))
    left, right = builder.slice(x, 1, 0, 2), builder.slice(x, 1, 2, 4)
    difference = builder.map(lambda a, b: a - b, left, right)
    turned = concatenate([difference, builder.to_lazy(right)], 1)

    program = build(builder, out=builder.map(lambda a, b: a + b, turned, x))

    assert len(program.instructions) == 1
    found, given = run(program)
    x = given["x"]
    np.testing.assert_allclose(found["out"], np.hstack((x[:, :2] - x[:, 2:], x[:, 2:])) + x)


def test_an_input_that_is_an_output_is_copied_and_a_literal_is_written():
    builder, (x,) = make_builder(x=(3, 4))
    table = instructions.literal(builder, np.float32([[1], [2], [3]]))

    program = build(builder, same=x, table=table, wide=builder.expand(insert_axis(x, 0), (2, 3, 4)))

    found, given = run(program)
    np.testing.assert_array_equal(found["same"], given["x"])
    np.testing.assert_array_equal(found["table"], [[1], [2], [3]])
    np.testing.assert_array_equal(found["wide"], [given["x"]] * 2)


def test_literals_are_stored_without_what_repeats():
    builder, (x,) = make_builder(x=(3, 4))
    mask = instructions.literal(builder, np.tile(np.array([True, False, True])[:, None], (1, 4)))
    counted = instructions.literal(builder, np.arange(4) * 3 - 1)
    scalar = instructions.literal(builder, np.full((3, 4), 2.5, np.float32))

    program = build(
        builder,
        out=builder.map(
            lambda m, c, s, a: recipes.select(m, recipes.apply(recipes.Op.FROM_INT, c) * s, a),
            *(mask, counted, scalar, x),
        ),
    )

    assert sorted(t.literal for t in program.tensors if t.literal) == [b"\1\0\1"]
    assert count(program, Kind.IOTA) == 1
    found, given = run(program)
    expected = np.tile((np.arange(4) * 3 - 1) * 2.5, (3, 1))
    expected[1] = given["x"][1]
    np.testing.assert_allclose(found["out"], expected)


def test_a_contraction_that_is_too_long_is_refused():
    builder, (a, b) = make_builder(a=(1, 2**16 + 1), b=(1, 2**16 + 1))

    with pytest.raises(UnsupportedOperator, match="65537 terms"):
        instructions.dot(builder, a, b)


def test_rows_that_another_cut_orders_otherwise_are_quantized_again():
    builder, (a, b) = make_builder(a=(24, 8), b=(5, 8))
    first = builder.reshape(permute(builder.reshape(a, (2, 12, 8)), (1, 0, 2)), (24, 8))
    second = builder.reshape(permute(builder.reshape(a, (3, 8, 8)), (1, 0, 2)), (24, 8))

    program = build(
        builder, x=instructions.dot(builder, first, b), y=instructions.dot(builder, second, b)
    )

    found, given = run(program)
    rows = [given["a"].reshape(n, -1, 8).transpose(1, 0, 2).reshape(24, 8) for n in (2, 3)]
    np.testing.assert_allclose(found["x"], rows[0] @ given["b"].T)
    np.testing.assert_allclose(found["y"], rows[1] @ given["b"].T)


def test_a_product_over_too_many_axes_reads_copies_of_its_operands():
    builder, (a, b) = make_builder(a=(2, 2, 2, 2, 2, 3), b=(2, 2, 2, 2, 2, 3))
    order = (4, 3, 2, 1, 0, 5)
    left = builder.reshape(permute(a, order), (32, 3))
    right = builder.reshape(permute(b, order), (32, 3))

    program = build(builder, out=instructions.dot(builder, left, right))

    found, given = run(program)
    rows = [given[name].transpose(order).reshape(32, 3) for name in ("a", "b")]
    np.testing.assert_allclose(found["out"], rows[0] @ rows[1].T)


def test_a_piece_whose_axes_do_not_fit_its_place_is_copied_first():
    builder, (x,) = make_builder(x=(2, 2, 4, 3))
    heads = builder.reshape(permute(x, (0, 2, 1, 3)), (2, 4, 6))

    program = build(builder, out=concatenate([heads, heads], 2))

    found, given = run(program)
    expected = given["x"].transpose(0, 2, 1, 3).reshape(2, 4, 6)
    np.testing.assert_array_equal(found["out"], np.concatenate([expected] * 2, 2))


def test_a_copy_over_more_axes_than_an_iteration_has_is_made_slice_by_slice():
    builder, (x,) = make_builder(x=(256,))
    order = tuple(reversed(range(8)))
    turned = permute(builder.reshape(x, (2,) * 8), order)

    program = build(builder, out=builder.reshape(builder.copy(builder.to_lazy(turned)), (256,)))

    found, given = run(program)
    expected = given["x"].reshape((2,) * 8).transpose(order)
    np.testing.assert_array_equal(found["out"], expected.reshape(256))


def test_a_state_tensor_that_nothing_changes_is_its_own_next_value():
    builder = ProgramBuilder()
    kind = TensorType(Dtype.F32, (3, 4))
    kept, moved = (builder.add_input(name, kind, TensorRole.BASE) for name in ("kept", "moved"))
    following = builder.map(lambda x: x + 1.0, moved)

    program = builder.build(
        [
            NamedOutput(OutputKind.NEXT_STATE, "kept", kept),
            NamedOutput(OutputKind.NEXT_STATE, "moved", following),
        ]
    )

    require_valid_program(program)
    assert len(program.instructions) == 1
    assert [output.tensor for output in program.outputs] == [0, 2]
