"""A job and a shard made of synthetic roots: right for the contract, trained by nobody."""

from market.chain.devnet import get_account
from market.chain.structs import RecordOpening, StateOpening, Trace
from market.protocol.hashing import Hash32, compute_digest
from market.protocol.records import Outcome, Reproduction, StateClaim, compute_record_branch
from market.protocol.spec import DatasetRef, JobSpec, ProgramRef, StateRef, Terms
from market.storage.cid import cid_of_digest

ETHER = 10**18
SEGMENTS = 4
REQUESTER, PROVIDER, AUDITOR = (get_account(index) for index in (1, 2, 3))


def make_root(text: str) -> Hash32:
    """Return a root that stands for ``text``."""
    return compute_digest(text.encode())


def make_spec(deadline: int, samples: int = 2) -> JobSpec:
    """Return a spec that the contract takes, whose blobs do not exist."""
    cid = str(cid_of_digest(make_root("a blob")))
    program = ProgramRef(cid=cid, root=make_root("program"))
    return JobSpec(
        name="synthetic",
        program=program,
        outer=program,
        dataset=DatasetRef(cid=cid, root=make_root("dataset")),
        initial_state=StateRef(cid=cid, base_root=make_root("base"), slot_root=make_root("slot")),
        rounds=1,
        slots=1,
        segments=SEGMENTS,
        steps_per_segment=2,
        conformance=make_root("conformance"),
        terms=Terms(
            price_per_shard=ETHER,
            audit_fee=ETHER // 10,
            stake_per_lease=4 * ETHER,
            lease_time_s=300,
            samples=samples,
            deadline=deadline,
        ),
    )


def make_outcome(index: int) -> Outcome:
    """Return how segment ``index - 1`` ended."""
    return Outcome(make_root(f"gradient {index}"), make_root(f"metrics {index}"))


def make_claims() -> list[StateClaim]:
    """Return the records of a shard that starts where `make_spec` says."""
    claims = [StateClaim(make_root("base"), make_root("slot"))]
    for i in range(1, SEGMENTS + 1):
        outcome = make_outcome(i).compute_leaf()
        claims.append(StateClaim(make_root(f"base {i}"), make_root(f"slot {i}"), outcome))
    return claims


def open_state(claims: list[StateClaim], index: int) -> StateOpening:
    """Return the opening of record ``index`` for a commitment."""
    claim, branch = claims[index], tuple(compute_record_branch(claims, index))
    return StateOpening(claim.base_root, claim.slot_root, claim.outcome, branch)


def open_record(claims: list[StateClaim], index: int) -> RecordOpening:
    """Return the opening of drawn record ``index``."""
    outcome, branch = make_outcome(index), tuple(compute_record_branch(claims, index))
    state_root = claims[index].state_root
    return RecordOpening(state_root, outcome.gradient_root, outcome.metrics_root, branch)


def make_trace(claims: list[StateClaim], root: Hash32) -> Trace:
    """Return what the contract keeps of a commitment to ``claims``."""
    return Trace(root, claims[0].base_root, claims[-1].base_root, claims[-1].slot_root)


def reproduce(claims: list[StateClaim], segment: int) -> Reproduction:
    """Return what an honest auditor names of ``segment``."""
    return Reproduction(segment, claims[segment + 1].state_root, make_outcome(segment + 1))
