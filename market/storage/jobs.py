"""A job's blobs: whether what a spec names is there and is what the spec says it is.

Nothing is believed: programs are decoded and checked, and every root is computed from the bytes."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from market.protocol.constants import CONFORMANCE_DIGEST, MAX_PROGRAM_BYTES, MAX_STATE_BYTES
from market.protocol.encoding import compute_program_root, decode_program
from market.protocol.errors import InvalidBlob, InvalidSpec
from market.protocol.hashing import Hash32
from market.protocol.program import OutputKind, Program, TensorRole
from market.protocol.spec import DatasetRef, JobSpec, ProgramRef, StateRef
from market.protocol.tensors import Bytes, TensorType, compute_named_root, compute_tensor_root
from market.protocol.validity import require_valid_program
from market.storage.blobs import BlobStore
from market.storage.cid import Cid


def check_spec_blobs(spec: JobSpec, store: BlobStore) -> None:
    """Raise NotFound or a ProtocolError unless every blob that ``spec`` names is there and agrees."""
    if spec.conformance != CONFORMANCE_DIGEST:
        given, ours = spec.conformance.hex(), CONFORMANCE_DIGEST.hex()
        raise InvalidSpec(f"the spec asks for arithmetic 0x{given}, this release has 0x{ours}")
    program = _read_program(store, spec.program)
    outer = _read_program(store, spec.outer)
    require_matching_programs(spec, program, outer)
    _check_dataset(store, program, spec.dataset)
    _check_initial_state(store, program, spec.initial_state)


def list_spec_blobs(spec: JobSpec) -> list[Cid]:
    """Return the CIDs of the blobs that ``spec`` names, each once."""
    named = (spec.program, spec.outer, spec.dataset, spec.initial_state)
    return list(dict.fromkeys(Cid(reference.cid) for reference in named))


def require_matching_programs(spec: JobSpec, program: Program, outer: Program) -> None:
    """Raise InvalidSpec unless ``program`` is a step and ``outer`` averages its ``spec.slots`` bases."""
    for role in (TensorRole.DATASET, TensorRole.COUNTERS):
        count = len(program.find_inputs(role))
        if count != 1:
            raise InvalidSpec(f"a step takes one input of role {role.name.lower()}, not {count}")
    if program.find_inputs(TensorRole.CONTRIBUTION):
        raise InvalidSpec("a step takes no contributions; an outer step does")
    if not program.find_outputs(OutputKind.METRICS):
        raise InvalidSpec("the program has no metrics")
    base = program.find_inputs(TensorRole.BASE)
    given = {f"{slot}/{name}": kind for slot in range(spec.slots) for name, kind in base.items()}
    if outer.find_inputs(TensorRole.BASE) != base:
        raise InvalidSpec("the outer program has another base than the program")
    if outer.find_inputs(TensorRole.CONTRIBUTION) != given:
        raise InvalidSpec(f"the outer program does not take {spec.slots} slots of the base")
    if outer.find_inputs(TensorRole.SLOT, TensorRole.DATASET, TensorRole.COUNTERS):
        raise InvalidSpec("an outer step reads bases and contributions, and nothing else")


def _read_program(store: BlobStore, reference: ProgramRef) -> Program:
    program = decode_program(store.get(Cid(reference.cid), MAX_PROGRAM_BYTES))
    require_valid_program(program)
    root = compute_program_root(program).root
    _require_root(f"program {reference.cid}", root, reference.root)
    return program


def _check_dataset(store: BlobStore, program: Program, reference: DatasetRef) -> None:
    (kind,) = program.find_inputs(TensorRole.DATASET).values()
    with _open_exact(store, reference.cid, kind.nbytes) as data:
        root = compute_tensor_root(kind, data)
    _require_root(f"dataset {reference.cid}", root, reference.root)


def _check_initial_state(store: BlobStore, program: Program, reference: StateRef) -> None:
    base = program.find_inputs(TensorRole.BASE)
    slot = program.find_inputs(TensorRole.SLOT)
    base_bytes, slot_bytes = (sum(k.nbytes for k in half.values()) for half in (base, slot))
    if base_bytes + slot_bytes > MAX_STATE_BYTES:
        raise InvalidSpec(f"a state of {base_bytes + slot_bytes} bytes: at most {MAX_STATE_BYTES}")
    with _open_exact(store, reference.cid, base_bytes + slot_bytes) as data:
        base_root = _compute_half_root(base, data[:base_bytes])
        slot_root = _compute_half_root(slot, data[base_bytes:])
    _require_root(f"the base of state {reference.cid}", base_root, reference.base_root)
    _require_root(f"the slot half of state {reference.cid}", slot_root, reference.slot_root)


def _compute_half_root(types: dict[str, TensorType], data: Bytes) -> Hash32:
    roots, start = {}, 0
    for name, kind in types.items():
        roots[name] = compute_tensor_root(kind, data[start : start + kind.nbytes])
        start += kind.nbytes
    return compute_named_root(roots)


@contextmanager
def _open_exact(store: BlobStore, cid: str, size: int) -> Iterator[memoryview]:
    """Map the blob named ``cid`` into memory; raise InvalidBlob unless it has ``size`` bytes."""
    path = store.get_path(Cid(cid), size)
    actual = path.stat().st_size
    if actual != size:
        raise InvalidBlob(f"blob {cid} has {actual} bytes where {size} are expected")
    if size == 0:  # an empty file cannot be mapped
        yield memoryview(b"")
        return
    with (
        path.open("rb") as source,
        mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        yield data


def _require_root(what: str, computed: Hash32, said: Hash32) -> None:
    if computed != said:
        raise InvalidSpec(f"{what} has root 0x{computed.hex()}, the spec says 0x{said.hex()}")
