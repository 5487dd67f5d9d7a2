"""A job and shards made of synthetic roots: right for the contract, trained by nobody."""

from collections.abc import Sequence

from market.chain.deployment import DEVNET
from market.chain.devnet import Devnet, get_account
from market.chain.structs import RecordOpening, StateOpening
from market.protocol.hashing import Hash32, compute_digest
from market.protocol.records import (
    Outcome,
    StateClaim,
    compute_lease_branch,
    compute_lease_root,
)
from market.protocol.spec import DatasetRef, JobSpec, ProgramRef, StateRef, Terms
from market.storage.cid import cid_of_digest
from tests.conftest import Party

Traces = Sequence[Sequence[StateClaim]]

ETHER = 10**18
SEGMENTS = 4
REQUESTER, PROVIDER, AUDITOR = (get_account(index) for index in (1, 2, 3))


def make_root(text: str) -> Hash32:
    """Return a root that stands for ``text``."""
    return compute_digest(text.encode())


MANIFEST = make_root("manifest")


def make_spec(deadline: int, samples: int = 2, slots: int = 1) -> JobSpec:
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
        slots=slots,
        segments=SEGMENTS,
        steps_per_segment=2,
        conformance=make_root("conformance"),
        terms=Terms(
            price_per_shard=ETHER,
            audit_fee=ETHER // 10,
            stake_per_shard=4 * ETHER,
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


def open_state(traces: Traces, shard: int, index: int) -> StateOpening:
    """Return the opening of a record that keeps its outcome hidden."""
    claim, branch = traces[shard][index], tuple(compute_lease_branch(traces, shard, index))
    return StateOpening(claim.state_root, claim.outcome, branch)


def open_record(traces: Traces, shard: int, index: int) -> RecordOpening:
    """Return the opening of a record, from `make_claims`, that follows a segment."""
    outcome, branch = make_outcome(index), tuple(compute_lease_branch(traces, shard, index))
    state_root = traces[shard][index].state_root
    return RecordOpening(state_root, outcome.gradient_root, outcome.metrics_root, branch)


def commit_lease(
    devnet: Devnet, provider: Party, lease_id: int, traces: Traces, manifest: Hash32 = MANIFEST
) -> bytes:
    """Commit to ``traces`` and draw; return the header that drew."""
    chain = provider.chain
    provider.send(chain.calls.commit(lease_id, compute_lease_root(traces), manifest))
    devnet.mine(DEVNET.draw_distance)
    header = chain.get_header_rlp(chain.get_lease(lease_id).clock)
    provider.send(chain.calls.draw(lease_id, header))
    return header


def attest_lease(auditor: Party, lease_id: int, traces: Traces) -> None:
    """Attest a drawn lease whose shards are all from `make_claims`."""
    chain = auditor.chain
    drawn = [divmod(segment, SEGMENTS) for segment in chain.get_drawn_segments(lease_id)]
    openings = [open_record(traces, shard, segment + 1) for shard, segment in drawn]
    auditor.send(chain.calls.attest(lease_id, openings))
