"""A job's files: publishing what a spec names, and fetching it back with every root checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from market.chain.events import JobCreated
from market.chain.ledger import Ledger
from market.protocol.constants import (
    CONFORMANCE_DIGEST,
    MAX_DOCUMENT_BYTES,
    MAX_PROGRAM_BYTES,
)
from market.protocol.encoding import compute_program_root, decode_program, encode_program
from market.protocol.errors import InvalidSpec
from market.protocol.hashing import Hash32
from market.protocol.program import Program, TensorRole
from market.protocol.spec import (
    DatasetRef,
    JobSpec,
    ProgramRef,
    StateRef,
    Terms,
    decode_spec,
    report_faults,
)
from market.protocol.tensors import TensorType, compute_tensor_root
from market.storage.blobs import BlobStore
from market.storage.cid import Cid, cid_of_digest
from market.storage.jobs import check_spec_blobs
from trainer.execution import Executor
from trainer.states import (
    State,
    compute_state_roots,
    decode_state,
    decode_tensor,
    encode_state,
    get_state_types,
    get_tensor_bytes,
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a job's work is divided."""

    rounds: int
    slots: int
    segments: int
    steps_per_segment: int

    @property
    def steps(self) -> int:
        """Steps of one shard."""
        return self.segments * self.steps_per_segment


@dataclass(frozen=True, slots=True)
class JobFiles:
    """What a spec names, fetched and checked."""

    spec: JobSpec
    program: Program
    outer: Program
    dataset: Tensor
    initial: State


def _put_program(store: BlobStore, program: Program) -> ProgramRef:
    cid = store.put(encode_program(program))
    return ProgramRef(cid=cid, root=compute_program_root(program).root)


def _put_dataset(store: BlobStore, kind: TensorType, dataset: Tensor) -> DatasetRef:
    data = bytes(get_tensor_bytes(dataset))
    return DatasetRef(cid=store.put(data), root=compute_tensor_root(kind, data))


def _put_state(store: BlobStore, program: Program, state: Mapping[str, Tensor]) -> StateRef:
    roots = compute_state_roots(program, state)
    cid = store.put(encode_state(program, state))
    return StateRef(cid=cid, base_root=roots.base, slot_root=roots.slot)


def publish_job(  # noqa: PLR0913 - the parts of a job
    store: BlobStore,
    *,
    name: str,
    model: str,
    program: Program,
    outer: Program,
    dataset: Tensor,
    initial: Mapping[str, Tensor],
    schedule: Schedule,
    terms: Terms,
) -> JobSpec:
    """Put a job's files and its document into ``store`` and return the spec that names them."""
    with report_faults():
        spec = JobSpec(
            name=name,
            model=model,
            program=_put_program(store, program),
            outer=_put_program(store, outer),
            dataset=_put_dataset(store, get_dataset_type(program), dataset),
            initial_state=_put_state(store, program, initial),
            rounds=schedule.rounds,
            slots=schedule.slots,
            segments=schedule.segments,
            steps_per_segment=schedule.steps_per_segment,
            conformance=CONFORMANCE_DIGEST,
            terms=terms,
        )
    store.put(spec.document)
    return spec


def get_dataset_type(program: Program) -> TensorType:
    """Return the type of the one dataset that a step reads."""
    (kind,) = program.find_inputs(TensorRole.DATASET).values()
    return kind


def fetch_spec(store: BlobStore, document_digest: Hash32, spec_hash: Hash32) -> JobSpec:
    """Return the spec whose document has that digest; raise InvalidSpec if its hash is another.

    A requester can post leaves that its document does not have; nobody may work by such a document."""
    spec = decode_spec(store.get(cid_of_digest(document_digest), MAX_DOCUMENT_BYTES))
    if spec.spec_hash != spec_hash:
        raise InvalidSpec(
            f"the document's spec hash is {spec.spec_hash.hex()}, the job's {spec_hash.hex()}"
        )
    return spec


def fetch_state(store: BlobStore, program: Program, cid: str) -> State:
    """Return the state whose bytes are ``cid``."""
    size = sum(kind.nbytes for kind in get_state_types(program).values())
    return decode_state(program, store.get(Cid(cid), size))


def fetch_job(store: BlobStore, spec: JobSpec) -> JobFiles:
    """Return the files of ``spec``; raise a ProtocolError naming the first that disagrees with it."""
    check_spec_blobs(spec, store)
    program = decode_program(store.get(Cid(spec.program.cid), MAX_PROGRAM_BYTES))
    outer = decode_program(store.get(Cid(spec.outer.cid), MAX_PROGRAM_BYTES))
    kind = get_dataset_type(program)
    dataset = decode_tensor(kind, store.get(Cid(spec.dataset.cid), kind.nbytes))
    return JobFiles(
        spec, program, outer, dataset, fetch_state(store, program, spec.initial_state.cid)
    )


class OpenJobs:
    """The files and executors of jobs: fetched, checked and planned when first needed, then kept."""

    def __init__(
        self, ledger: Ledger, store: BlobStore, build_executor: Callable[[JobFiles], Executor]
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._build_executor = build_executor
        self._files: dict[int, JobFiles] = {}
        self._executors: dict[int, Executor] = {}

    def get_files(self, job_id: int) -> JobFiles:
        """Return a job's files; raise NotFound if one cannot be had, ProtocolError if one is false."""
        if job_id not in self._files:
            posted = self._ledger.get(JobCreated, job_id)
            spec = fetch_spec(self._store, posted.spec_leaves[7], posted.spec_hash)
            self._files[job_id] = fetch_job(self._store, spec)
        return self._files[job_id]

    def get_executor(self, job_id: int) -> Executor:
        """Return what runs a job's program."""
        if job_id not in self._executors:
            self._executors[job_id] = self._build_executor(self.get_files(job_id))
        return self._executors[job_id]
