import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.protocol.encoding import (
    compute_instruction_root,
    compute_part_leaves,
    compute_program_root,
    decode_program,
    encode_program,
)
from market.protocol.errors import InvalidProgram
from market.protocol.merkle import compute_branch, compute_root, is_valid_branch
from market.protocol.program import Instruction, Kind, Op, Output, Tensor, TensorRole, View
from market.protocol.tensors import Dtype, TensorType
from market.protocol.validity import is_valid_program, require_valid_program

_SPEC = importlib.util.spec_from_file_location(
    "vectors_generate", Path(__file__).parents[2] / "vectors" / "generate.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
generate = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)

TINY = generate.build_tiny_program()
ENCODED = encode_program(TINY)
QUANTIZE, DOT, SUM, CONST, MAP = range(5)


def change_instruction(number, **changes):
    """The tiny program with fields of one instruction changed."""
    instructions = list(TINY.instructions)
    instructions[number] = replace(instructions[number], **changes)
    return replace(TINY, instructions=tuple(instructions))


def change_tensor(number, tensor):
    tensors = list(TINY.tensors)
    tensors[number] = tensor
    return replace(TINY, tensors=tuple(tensors))


def test_the_tiny_program_is_valid_and_comes_back_from_its_bytes():
    require_valid_program(TINY)

    assert decode_program(ENCODED) == TINY


@given(position=st.integers(0, len(ENCODED) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_the_root(position, bit):
    damaged = bytearray(ENCODED)
    damaged[position] ^= 1 << bit

    try:
        program = decode_program(bytes(damaged))
    except InvalidProgram:
        return

    assert compute_program_root(program).root != compute_program_root(TINY).root


@given(size=st.integers(0, len(ENCODED) - 1))
def test_a_truncated_program_is_refused(size):
    with pytest.raises(InvalidProgram):
        decode_program(ENCODED[:size])


@pytest.mark.parametrize("data", [b"", b"TSP1", ENCODED + b"\0", b"PK\x03\x04" + bytes(80)])
def test_bytes_that_are_no_program_are_refused(data):
    with pytest.raises(InvalidProgram):
        decode_program(data)


def test_counts_are_bounded_before_anything_is_read():
    huge = b"TSP1" + (2**32 - 1).to_bytes(4, "big") + bytes(56)

    with pytest.raises(InvalidProgram, match="4294967295 tensors"):
        decode_program(huge)


def test_each_part_of_each_instruction_is_opened_by_branches_from_the_root():
    root = compute_program_root(TINY)
    top = [root.header, *map(compute_root, (root.tensors, root.outputs, root.instructions))]
    count = len(TINY.instructions)

    for number, instruction in enumerate(TINY.instructions):
        leaf = compute_instruction_root(instruction)
        branch = compute_branch(list(root.instructions), number) + compute_branch(top, 3)
        assert is_valid_branch(leaf, branch[:3], number, count, top[3])
        assert is_valid_branch(top[3], branch[3:], 3, 4, root.root)
        parts = compute_part_leaves(instruction)
        assert all(
            is_valid_branch(p, compute_branch(parts, i), i, 16, leaf) for i, p in enumerate(parts)
        )


MAP_INSTRUCTION = TINY.instructions[MAP]
F32 = Dtype.F32
BROKEN = {
    "reads past the end": change_instruction(SUM, operands=(View(3, 1, (4, 1)),)),
    "reads before the start": change_instruction(SUM, operands=(View(3, 0, (-4, 1)),)),
    "there is no tensor": change_instruction(SUM, operands=(View(99, 0, (4, 1)),)),
    "read before it is written": change_instruction(SUM, operands=(View(5, 0, (8, 1)),)),
    "cannot be read here": change_instruction(SUM, operands=(View(2, 0, (8, 1)),)),
    "written twice": replace(TINY, instructions=(*TINY.instructions, MAP_INSTRUCTION)),
    "is no axis": change_instruction(MAP, outputs=(View(5, 0, (1, 1), 6),)),
    "input 0 cannot be written": change_instruction(MAP, outputs=(View(0, 0, (8, 1), 6),)),
    "bits: 8, 14, 16 or 24": change_instruction(QUANTIZE, attributes=(15, 0)),
    "not read in whole rows": change_instruction(
        DOT, operands=(View(2, 0, (8, 0, 1)), View(2, 0, (0, 4, 1)))
    ),
    "moves on a reduced axis": change_instruction(DOT, outputs=(View(3, 0, (4, 1, 1)),)),
    "no opcode": change_instruction(MAP, code=((99, 0, 0, 0),)),
    "is no 'f'": change_instruction(MAP, code=((Op.ADD, 0, 9, 0),)),
    "is no 'i'": change_instruction(MAP, code=((Op.IADD, 0, 1, 0),)),
    "unused register": change_instruction(MAP, code=((Op.NEG, 0, 1, 0),)),
    "does not fit": change_instruction(MAP, outputs=(View(5, 0, (8, 1), 9),)),
    "is no f32": change_instruction(MAP, f32_constants=(0x7FC00001,)),
    "unused attribute": change_instruction(SUM, attributes=(1, 0)),
    "reduced axes": change_instruction(SUM, reduced=3),
    "only a map has code": change_instruction(SUM, code=((Op.NEG, 0, 0, 0),)),
    "is not written": replace(TINY, instructions=TINY.instructions[:-1]),
    "next value": replace(TINY, outputs=TINY.outputs[1:]),
    "changes its type": replace(
        TINY, outputs=(replace(TINY.outputs[0], tensor=3), *TINY.outputs[1:])
    ),
    "comes after a value": change_tensor(6, Tensor(TensorType(F32, (1,)), TensorRole.DATASET, "d")),
    "the counters are": change_tensor(1, Tensor(TensorType(F32, (4,)), TensorRole.COUNTERS, "c")),
    "names of their own": change_tensor(1, replace(TINY.tensors[1], name="w")),
    "has another size": change_tensor(6, Tensor(TensorType(F32, (1,)))),
    "that no const writes": change_tensor(5, replace(TINY.tensors[5], literal=bytes(128))),
    "not canonical": change_tensor(6, replace(TINY.tensors[6], literal=b"\x01\0\xc0\x7f")),
    "states come first": replace(TINY, outputs=TINY.outputs[::-1]),
}


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_program_that_breaks_a_rule_is_refused_with_the_rule(rule):
    pattern = {"reads past the end": "reads element", "reads before the start": "backwards"}

    with pytest.raises(InvalidProgram, match=pattern.get(rule, rule)):
        require_valid_program(BROKEN[rule])
    assert not is_valid_program(BROKEN[rule])


def test_two_writers_may_share_a_tensor_when_their_boxes_tile_it():
    whole = TensorType(F32, (4, 8))
    halves = tuple(
        Instruction(Kind.MAP, (4, 4), (View(0, start, (8, 1)),), (View(1, start, (8, 1), 0),))
        for start in (0, 4)
    )
    program = replace(
        TINY,
        tensors=(Tensor(whole, TensorRole.BASE, "w"), Tensor(whole)),
        instructions=halves,
        outputs=(Output(TINY.outputs[0].kind, 1, "w"),),
    )

    require_valid_program(program)

    with pytest.raises(InvalidProgram, match="is not written"):
        require_valid_program(replace(program, instructions=halves[:1]))


@pytest.mark.parametrize(("bound", "valid"), [(4, True), (5, False), (0, False)])
def test_a_gather_cannot_reach_outside_its_source(bound, valid):
    gather = Instruction(
        Kind.GATHER,
        (4, 8),
        (View(1, 0, (1, 0)), View(0, 0, (0, 1))),
        (View(7, 0, (8, 1)),),
        attributes=(bound, 8),
    )

    program = replace(
        TINY,
        tensors=(*TINY.tensors, Tensor(TensorType(F32, (4, 8)))),
        instructions=(*TINY.instructions, gather),
    )

    assert is_valid_program(program) is valid
