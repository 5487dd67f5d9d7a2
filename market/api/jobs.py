"""Jobs: drafting a transaction that posts one, and what the chain knows of them."""

from typing import Annotated, Final

from eth_utils.address import to_checksum_address
from fastapi import APIRouter, Path, Query, status

from market.api.dependencies import ChainDep, StoreDep
from market.api.drafts import JobDraft, UnsignedTransaction
from market.api.errors import PROBLEM
from market.chain.structs import Address
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import InvalidSpec
from market.protocol.spec import JobSpec
from market.storage import queries
from market.storage.jobs import check_spec_blobs
from market.storage.queries import JobDetails, JobPage

router = APIRouter(prefix="/jobs", tags=["jobs"])

_MAX_PAGE: Final = 200

JobId = Annotated[int, Path(ge=1, lt=2**32, description="The job's number on chain")]
Limit = Annotated[int, Query(ge=1, le=_MAX_PAGE, description="How many jobs at most")]
Requester = Annotated[
    Address,
    Query(pattern=r"^0x[0-9a-fA-F]{40}$", description="Who gets refunds and may cancel the job"),
]
Cursor = Annotated[str, Query(pattern=r"^[0-9]{1,10}$", description="`next` of the page before")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses={404: PROBLEM, 413: PROBLEM, 422: PROBLEM, 507: PROBLEM},
)
def draft_job(spec: JobSpec, requester: Requester, chain: ChainDep, store: StoreDep) -> JobDraft:
    """Store a spec whose blobs are all here and agree with it; return the transaction that posts it.

    The blobs are uploaded first, with `PUT /blobs`. Nothing is signed here: check the transaction
    (its data follows from the spec and the requester alone), sign it with the requester's key and send it."""
    if len(spec.document) > MAX_DOCUMENT_BYTES:
        raise InvalidSpec(f"a document of {len(spec.document)} bytes: at most {MAX_DOCUMENT_BYTES}")
    check_spec_blobs(spec, store)
    call = chain.calls.create_job(spec, to_checksum_address(requester))
    return JobDraft(
        spec_hash=spec.spec_hash,
        document=store.put(spec.document),
        transaction=UnsignedTransaction(
            to=chain.deployment.market,
            data="0x" + call.data.hex(),
            value=call.value,
            chain_id=chain.deployment.chain_id,
        ),
    )


@router.get("", responses={422: PROBLEM, 503: PROBLEM})
def list_jobs(chain: ChainDep, limit: Limit = 50, cursor: Cursor = "1") -> JobPage:
    """Return jobs, the oldest first, from ``cursor`` on."""
    return queries.list_jobs(chain, int(cursor), limit)


@router.get("/{job_id}", responses={404: PROBLEM, 503: PROBLEM})
def get_job(job_id: JobId, chain: ChainDep, store: StoreDep) -> JobDetails:
    """Return a job with its spec, shards, leases and everything that happened to them."""
    return queries.get_job_details(chain, store, job_id)
