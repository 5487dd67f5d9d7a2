import pytest
import torch

from market.protocol.errors import InvalidBlob
from market.protocol.program import TensorRole
from market.protocol.tensors import Dtype, TensorType, compute_named_root, compute_tensor_root
from tests.trainer.programs import build_outer
from tests.trainer.tiny_job import build_tiny_job
from trainer.states import (
    compute_state_roots,
    decode_state,
    decode_tensor,
    encode_state,
    get_tensor_bytes,
)

JOB = build_tiny_job()
PROGRAM, STATE = JOB["program"], JOB["initial"]


def test_a_state_comes_back_from_its_bytes():
    decoded = decode_state(PROGRAM, encode_state(PROGRAM, STATE))

    assert list(decoded) == list(STATE)
    assert all(torch.equal(decoded[name], STATE[name]) for name in STATE)
    assert compute_state_roots(PROGRAM, decoded) == compute_state_roots(PROGRAM, STATE)


def test_one_bit_of_one_weight_changes_the_base_root_and_only_it():
    name = next(iter(STATE))
    bits = STATE[name].clone().view(torch.int32)
    bits.view(-1)[3] ^= 1
    changed = {**STATE, name: bits.view(torch.float32)}

    before, after = (compute_state_roots(PROGRAM, s) for s in (STATE, changed))

    assert before.base != after.base
    assert before.slot == after.slot
    assert before.state != after.state


def test_a_state_of_another_size_is_refused():
    with pytest.raises(InvalidBlob, match="bytes where the program's takes"):
        decode_state(PROGRAM, encode_state(PROGRAM, STATE) + b"\0")


@pytest.mark.parametrize("pattern", [0x7FC00001, 0xFFC00000, 0x7F800001])
def test_a_nan_that_is_not_the_one_is_refused(pattern):
    with pytest.raises(InvalidBlob, match="0x7fc00000"):
        decode_tensor(TensorType(Dtype.F32, (1,)), pattern.to_bytes(4, "little"))


def test_the_one_nan_is_a_value_like_any_other():
    tensor = decode_tensor(TensorType(Dtype.F32, (1,)), (0x7FC00000).to_bytes(4, "little"))

    assert tensor.view(torch.int32).item() == 0x7FC00000


def test_a_tensor_that_no_step_changes_keeps_its_root_unread():
    program = build_outer()
    state = {"w": torch.ones(2, 3), "kept": torch.tensor([7, 8], dtype=torch.int32)}
    before = compute_state_roots(program, state)
    state = {"w": torch.zeros(2, 3), "kept": torch.zeros(2, dtype=torch.int32)}

    after = compute_state_roots(program, state, before)

    anew = compute_state_roots(program, state)
    assert after.tensors == {"w": anew.tensors["w"], "kept": before.tensors["kept"]}
    assert before.base != after.base != anew.base


def test_the_roots_of_a_state_are_the_defined_ones():
    types = PROGRAM.find_inputs(TensorRole.BASE)
    defined = {
        name: compute_tensor_root(kind, get_tensor_bytes(STATE[name]))
        for name, kind in types.items()
    }

    assert compute_state_roots(PROGRAM, STATE).base == compute_named_root(defined)
