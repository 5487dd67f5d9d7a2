"""A job and a shard made of synthetic roots: right for the contract, trained by nobody."""

from market.chain.deployment import DEVNET
from market.chain.devnet import Devnet, get_account
from market.chain.structs import RecordOpening, StateOpening, Trace
from market.protocol.hashing import Hash32, compute_digest
from market.protocol.records import (
    Outcome,
    Reproduction,
    StateClaim,
    compute_record_branch,
    compute_trace_root,
    hash_audit,
)
from market.protocol.spec import DatasetRef, JobSpec, ProgramRef, StateRef, Terms
from market.storage.cid import cid_of_digest
from tests.conftest import Party

ETHER = 10**18
SEGMENTS = 4
REQUESTER, PROVIDER, AUDITOR = (get_account(index) for index in (1, 2, 3))


def make_root(text: str) -> Hash32:
    """Return a root that stands for ``text``."""
    return compute_digest(text.encode())


SALT = make_root("salt")
MANIFEST = make_root("manifest")


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


def commit_shard(
    devnet: Devnet,
    provider: Party,
    lease_id: int,
    claims: list[StateClaim],
    manifest: Hash32 = MANIFEST,
) -> tuple[Hash32, bytes]:
    """Commit to ``claims`` and draw; return the trace root and the header that drew."""
    chain, root = provider.chain, compute_trace_root(claims)
    first, last = open_state(claims, 0), open_state(claims, SEGMENTS)
    provider.send(chain.calls.commit(lease_id, root, first, last, manifest))
    devnet.mine(DEVNET.draw_distance)
    header = chain.get_header_rlp(chain.get_lease(lease_id).draw_block)
    provider.send(chain.calls.draw(lease_id, header))
    return root, header


def audit_shard(
    provider: Party, auditor: Party, lease_id: int, claims: list[StateClaim], root: Hash32
) -> None:
    """Play a drawn lease to its honest end: audit, opening, reveal."""
    chain, trace = provider.chain, make_trace(claims, root)
    drawn = chain.get_drawn_segments(lease_id)
    reproductions = [reproduce(claims, segment) for segment in drawn]
    names = (chain.deployment.market, auditor.account.address)
    contract, name = (bytes.fromhex(address[2:]) for address in names)
    identity = (chain.get_chain_id(), contract, lease_id, name, SALT)
    commitment = hash_audit(*identity, claims[0].base_root, reproductions)
    auditor.send(chain.calls.commit_audit(lease_id, commitment))
    openings = [open_record(claims, segment + 1) for segment in drawn]
    provider.send(chain.calls.open(lease_id, trace, openings))
    claimed = [reproduction.compute_record() for reproduction in reproductions]
    arguments = (trace, claimed, claims[0].base_root, reproductions, SALT)
    auditor.send(chain.calls.reveal(lease_id, *arguments))
