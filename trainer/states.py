"""States as bytes and as roots: how tensors in memory become what the chain and the store hold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from market.protocol.constants import CANONICAL_NAN
from market.protocol.errors import InvalidBlob
from market.protocol.hashing import Hash32
from market.protocol.program import OutputKind, Program, TensorRole
from market.protocol.records import Outcome, StateClaim
from market.protocol.tensors import Dtype, TensorType, compute_named_root, compute_state_root
from trainer.exact.fused_native import TORCH_DTYPES
from trainer.hashing import Elements, compute_tensor_roots

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class StateRoots:
    """The roots of a state's two halves, and where they are known those of its tensors."""

    base: Hash32
    slot: Hash32
    tensors: Mapping[str, Hash32] = field(default_factory=dict, compare=False)

    @property
    def state(self) -> Hash32:
        """The root of the whole state."""
        return compute_state_root(self.base, self.slot)


def get_tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the row-major little-endian bytes of ``tensor`` without copying them where possible."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.numpy().data.cast("B")


def decode_tensor(kind: TensorType, data: bytes | memoryview) -> Tensor:
    """Return the tensor of type ``kind`` in ``data``; raise InvalidBlob if it is not one."""
    if len(data) != kind.nbytes:
        raise InvalidBlob(f"{len(data)} bytes for {kind}, which takes {kind.nbytes}")
    flat = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[kind.dtype])
    if kind.dtype is Dtype.F32:
        is_nan = flat.isnan()
        if bool(is_nan.any()) and bool((flat[is_nan].view(torch.int32) != CANONICAL_NAN).any()):
            raise InvalidBlob(f"{kind} holds a NaN that is not 0x7fc00000")
    return flat.reshape(kind.shape)


def _hash_tensors(
    types: Mapping[str, TensorType], tensors: Mapping[str, Tensor]
) -> dict[str, Hash32]:
    elements = [Elements(kind, get_tensor_bytes(tensors[name])) for name, kind in types.items()]
    return dict(zip(types, compute_tensor_roots(elements), strict=True))


def compute_named_tensor_root(
    types: Mapping[str, TensorType], tensors: Mapping[str, Tensor]
) -> Hash32:
    """Return the root over the tensors named in ``types``, in that order."""
    return compute_named_root(_hash_tensors(types, tensors))


def find_frozen(program: Program) -> set[str]:
    """Return the names of the state's tensors that no step changes."""
    return {
        output.name
        for output in program.outputs
        if output.kind is OutputKind.NEXT_STATE and output.tensor == output.replaces
    }


def compute_state_roots(
    program: Program, state: Mapping[str, Tensor], before: StateRoots | None = None
) -> StateRoots:
    """Return the roots of ``state`` as ``program`` declares it.

    Where steps led to it from a state with the roots ``before``, frozen tensors are not hashed again."""
    known = {} if before is None else before.tensors
    types, frozen = get_state_types(program), find_frozen(program)
    kept = {name: root for name, root in known.items() if name in frozen}
    hashed = _hash_tensors({name: types[name] for name in types if name not in kept}, state)
    roots = kept | hashed
    base, slot = (
        compute_named_root({name: roots[name] for name in program.find_inputs(role)})
        for role in (TensorRole.BASE, TensorRole.SLOT)
    )
    return StateRoots(base, slot, roots)


def compute_outcome(program: Program, gradients: Mapping[str, Tensor], metrics: Tensor) -> Outcome:
    """Return the roots of a segment's last gradients and metrics."""
    types = {
        name: program.tensors[tensor].type
        for name, tensor in program.find_outputs(OutputKind.GRADIENT).items()
    }
    metrics_type = TensorType(Dtype.F32, tuple(metrics.shape))
    (metrics_root,) = compute_tensor_roots([Elements(metrics_type, get_tensor_bytes(metrics))])
    return Outcome(compute_named_tensor_root(types, gradients), metrics_root)


def claim_state(roots: StateRoots, outcome: Outcome | None) -> StateClaim:
    """Return the contents of a record; record 0 has no outcome."""
    if outcome is None:
        return StateClaim(roots.base, roots.slot)
    return StateClaim(roots.base, roots.slot, outcome.compute_leaf())


def get_state_types(program: Program) -> dict[str, TensorType]:
    """Return the types of a state's tensors in the order of their bytes: base half, then slot."""
    base, slot = program.find_inputs(TensorRole.BASE), program.find_inputs(TensorRole.SLOT)
    return {**base, **slot}


def iterate_state_bytes(program: Program, state: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of ``state``, tensor after tensor, without copying them where possible."""
    return (get_tensor_bytes(state[name]) for name in get_state_types(program))


def encode_state(program: Program, state: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of ``state``: its tensors in declaration order, base half then slot half."""
    return b"".join(iterate_state_bytes(program, state))


def decode_state(program: Program, data: bytes) -> State:
    """Return the state in ``data``; raise InvalidBlob unless it is exactly one of ``program``."""
    types = get_state_types(program)
    total = sum(kind.nbytes for kind in types.values())
    if len(data) != total:
        raise InvalidBlob(f"a state of {len(data)} bytes where the program's takes {total}")
    view, state, at = memoryview(data), {}, 0
    for name, kind in types.items():
        state[name] = decode_tensor(kind, view[at : at + kind.nbytes])
        at += kind.nbytes
    return state
