"""Jobs as the chain and the store tell them: what every face of the service shows."""

from typing import Final, cast

from pydantic import BaseModel

from market.chain.client import Chain
from market.chain.events import AnyEvent, ShardsClaimed
from market.chain.structs import Job, Lease, NamedJobStatus, NamedLeaseStatus, Round
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import NotFound
from market.protocol.spec import SPEC_LEAVES, JobSpec, decode_spec
from market.storage.blobs import BlobStore
from market.storage.cid import Cid, cid_of_digest

_DOCUMENT_LEAF: Final = SPEC_LEAVES - 1


class JobEntry(BaseModel):
    """A job on chain: its stored facts, and its status now."""

    id: int
    status: NamedJobStatus
    job: Job


class JobPage(BaseModel):
    """Jobs in the order in which they were posted. ``next`` is the cursor of the page after this."""

    jobs: tuple[JobEntry, ...]
    next: str | None


class LeaseEntry(BaseModel):
    """A lease of a job, for slots of one round, and its status now."""

    id: int
    slots: tuple[int, ...]
    status: NamedLeaseStatus
    lease: Lease


class ShardEntry(BaseModel):
    """A shard of a round that has begun, and the lease that it is under or was attested by."""

    round: int
    slot: int
    attested: bool  # in the round's set
    lease_id: int | None


class EventEntry(BaseModel):
    """Something that happened to the job or to a lease of it."""

    name: str
    event: AnyEvent


class JobDetails(BaseModel):
    """All that is known of a job. ``spec`` is null where its document is not in this store."""

    id: int
    status: NamedJobStatus
    document: str
    spec: JobSpec | None
    job: Job
    shards: tuple[ShardEntry, ...]
    leases: tuple[LeaseEntry, ...]
    events: tuple[EventEntry, ...]


def list_jobs(chain: Chain, first: int, limit: int) -> JobPage:
    """Return up to ``limit`` jobs, the oldest first, from job ``first`` on."""
    jobs: list[JobEntry] = []
    for job_id in range(first, first + limit + 1):
        try:
            job = chain.get_job(job_id)
        except NotFound:
            return JobPage(jobs=tuple(jobs), next=None)
        if len(jobs) < limit:
            jobs.append(JobEntry(id=job_id, status=chain.get_job_status(job_id), job=job))
    return JobPage(jobs=tuple(jobs), next=str(first + limit))


def get_job_details(chain: Chain, store: BlobStore, job_id: int) -> JobDetails:
    """Return a job with its spec, shards, leases and everything that happened to them."""
    job = chain.get_job(job_id)
    document = get_document_cid(chain, job_id)
    events = chain.get_job_events(job_id)
    claims = [event for event in events if isinstance(event, ShardsClaimed)]
    return JobDetails(
        id=job_id,
        status=chain.get_job_status(job_id),
        document=document,
        spec=_find_spec(store, document),
        job=job,
        shards=_list_shards(chain, job_id, job, claims),
        leases=tuple(_get_lease(chain, claim) for claim in claims),
        events=tuple(EventEntry(name=type(e).__name__, event=cast(AnyEvent, e)) for e in events),
    )


def get_document_cid(chain: Chain, job_id: int) -> Cid:
    """Return the CID of the document that a job's requester committed to."""
    return cid_of_digest(chain.get_job_creation(job_id).spec_leaves[_DOCUMENT_LEAF])


def _find_spec(store: BlobStore, document: Cid) -> JobSpec | None:
    if not store.has(document):
        return None
    return decode_spec(store.get(document, MAX_DOCUMENT_BYTES))


def _list_shards(
    chain: Chain, job_id: int, job: Job, claims: list[ShardsClaimed]
) -> tuple[ShardEntry, ...]:
    shards: list[ShardEntry] = []
    for round_ in range(min(job.round + 1, job.rounds)):
        sets = chain.get_round(job_id, round_)
        last = {slot: c.lease_id for c in claims if c.round == round_ for slot in _list_slots(c)}
        shards += [_build_shard(round_, slot, sets, last.get(slot)) for slot in range(job.slots)]
    return tuple(shards)


def _list_slots(claim: ShardsClaimed) -> range:
    return range(claim.first, claim.first + claim.count)


def _build_shard(round_: int, slot: int, sets: Round, last_lease: int | None) -> ShardEntry:
    taken, attested = (bool(bits >> slot & 1) for bits in (sets.taken, sets.attested))
    # A slot that was given back keeps its last lease only in the set that it is in.
    lease_id = last_lease if taken or attested else None
    return ShardEntry(round=round_, slot=slot, attested=attested, lease_id=lease_id)


def _get_lease(chain: Chain, claim: ShardsClaimed) -> LeaseEntry:
    return LeaseEntry(
        id=claim.lease_id,
        slots=tuple(_list_slots(claim)),
        status=chain.get_status(claim.lease_id),
        lease=chain.get_lease(claim.lease_id),
    )
