"""The smallest job there is: a step that changes nothing, and an outer step that takes slot 0's base."""

from market.protocol.constants import CONFORMANCE_DIGEST
from market.protocol.encoding import compute_program_root, encode_program
from market.protocol.program import Output, OutputKind, Program, Tensor, TensorRole
from market.protocol.spec import DatasetRef, JobSpec, ProgramRef, StateRef, Terms
from market.protocol.tensors import Dtype, TensorType, compute_named_root, compute_tensor_root
from market.storage.blobs import BlobStore

ETHER = 10**18
WEIGHTS = TensorType(Dtype.F32, (4,))
MOMENTS = TensorType(Dtype.F32, (2,))
TOKENS = TensorType(Dtype.U8, (16,))
STATE = bytes(range(24))
DATASET = bytes(range(16))


def build_step(*, with_slot: bool = True) -> Program:
    """Return a step over the weights ``w`` and, in its slot half, the moments ``m``."""
    slot = (Tensor(MOMENTS, TensorRole.SLOT, "m"),) if with_slot else ()
    tensors = (
        Tensor(WEIGHTS, TensorRole.BASE, "w"),
        *slot,
        Tensor(TOKENS, TensorRole.DATASET, "tokens"),
        Tensor(TensorType(Dtype.I64, (4,)), TensorRole.COUNTERS, "counters"),
    )
    states = [Output(OutputKind.NEXT_STATE, i, t.name, i) for i, t in enumerate(tensors[:-2])]
    metrics = Output(OutputKind.METRICS, 0, "metrics")
    return Program(tensors, (), (*states, metrics))


def build_outer(slots: int = 1) -> Program:
    """Return an outer step that takes the base of slot 0."""
    given = [Tensor(WEIGHTS, TensorRole.CONTRIBUTION, f"{slot}/w") for slot in range(slots)]
    tensors = (Tensor(WEIGHTS, TensorRole.BASE, "w"), *given)
    return Program(tensors, (), (Output(OutputKind.NEXT_STATE, 1, "w", 0),))


def make_job(store: BlobStore, deadline: int) -> JobSpec:
    """Put the job's blobs into ``store`` and return its spec."""
    step, outer = build_step(), build_outer()
    base_root = compute_named_root({"w": compute_tensor_root(WEIGHTS, STATE[:16])})
    slot_root = compute_named_root({"m": compute_tensor_root(MOMENTS, STATE[16:])})
    dataset_root = compute_tensor_root(TOKENS, DATASET)
    return JobSpec(
        name="smallest",
        program=ProgramRef(
            cid=store.put(encode_program(step)), root=compute_program_root(step).root
        ),
        outer=ProgramRef(
            cid=store.put(encode_program(outer)), root=compute_program_root(outer).root
        ),
        dataset=DatasetRef(cid=store.put(DATASET), root=dataset_root),
        initial_state=StateRef(cid=store.put(STATE), base_root=base_root, slot_root=slot_root),
        rounds=1,
        slots=1,
        segments=4,
        steps_per_segment=2,
        conformance=CONFORMANCE_DIGEST,
        terms=Terms(
            price_per_shard=ETHER,
            audit_fee=ETHER // 10,
            stake_per_shard=4 * ETHER,
            lease_time_s=300,
            samples=2,
            deadline=deadline,
        ),
    )
