"""Commands about jobs: posting one, watching it, fetching what it made."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import BaseModel

from market.api.client import ApiClient
from market.chain.client import Chain
from market.chain.events import JobCreated, TraceCommitted
from market.chain.ledger import find_contributions
from market.chain.logs import decode_events
from market.chain.structs import JobStatus
from market.commands.accounts import emit_receipt
from market.commands.output import Json, build_facts, build_table, emit, format_amount
from market.protocol.constants import MAX_DOCUMENT_BYTES
from market.protocol.errors import InvalidTransition
from market.protocol.manifest import decode_manifest
from market.protocol.spec import HexHash, parse_spec
from market.settings import read_settings
from market.storage import queries
from market.storage.blobs import BlobStore
from market.storage.cid import Cid, cid_of_digest
from market.storage.jobs import check_spec_blobs, list_spec_blobs
from market.storage.queries import EventEntry, JobDetails

_POLL_S: Final = 1.0
_PAGE: Final = 200
_OVER: Final = (JobStatus.SEED_LOST, JobStatus.ENDED, JobStatus.COMPLETE, JobStatus.CANCELLED)

jobs = typer.Typer(no_args_is_help=True, help="Jobs: what is trained, and for how much.")

JobId = Annotated[int, typer.Argument(min=1, metavar="ID")]


class PostedJob(BaseModel):
    """A job that the chain has."""

    job_id: int
    spec_hash: HexHash
    document: str
    tx_hash: str
    gas_used: int


class FetchedJob(BaseModel):
    """Where a job's results were written."""

    job_id: int
    round: int
    files: tuple[str, ...]


@jobs.command("list")
def list_jobs(
    first: Annotated[int, typer.Option("--from", min=1, help="The first job shown.")] = 1,
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """List jobs, the oldest first."""
    with read_settings().connect() as chain:
        page, ether = queries.list_jobs(chain, first, _PAGE), chain.deployment.ether
    rows = [
        (
            entry.id,
            entry.status.name.lower(),
            f"{min(entry.job.round, entry.job.rounds)}/{entry.job.rounds}",
            entry.job.slots,
            format_amount(entry.job.price_per_shard, entry.job.asset, ether),
            entry.job.requester,
        )
        for entry in page.jobs
    ]
    columns = ("job", "status", "rounds", "slots", "price per shard", "requester")
    emit(page, build_table("jobs", columns, rows), as_json=as_json)


@jobs.command("show")
def show_job(job_id: JobId, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Show a job, its shards, its leases and what happened to them."""
    settings = read_settings()
    with settings.connect() as chain:
        details = queries.get_job_details(chain, settings.open_store(), job_id)
        ether = chain.deployment.ether
    facts: dict[str, object] = {
        "status": details.status.name.lower(),
        "name": "(document not here)" if details.spec is None else details.spec.name,
        "requester": details.job.requester,
        "escrow left": format_amount(details.job.escrow, details.job.asset, ether),
        "rounds closed": f"{details.job.round}/{details.job.rounds}",
        "document": details.document,
    }
    leases = [
        (
            entry.id,
            entry.lease.round,
            _show_slots(entry.slots),
            entry.status.name.lower(),
            entry.lease.operator,
        )
        for entry in details.leases
    ]
    columns = ("lease", "round", "slots", "status", "operator")
    happened = [(entry.event.block_number, entry.name) for entry in details.events]
    emit(
        details,
        build_facts(f"job {job_id}", facts),
        build_table("leases", columns, leases),
        build_table("events", ("block", "event"), happened),
        as_json=as_json,
    )


@jobs.command("watch")
def watch_job(job_id: JobId, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Print what happens to a job, one line each, until it is over and all of it is settled."""
    settings = read_settings()
    store = settings.open_store()
    with settings.connect() as chain:
        for entry in _follow(chain, store, job_id):
            place = f"block {entry.event.block_number}"
            lease = getattr(entry.event, "lease_id", None)
            subject = f"job {job_id}" if lease is None else f"lease {lease}"
            line = entry.model_dump_json() if as_json else f"{place}: {subject}: {entry.name}"
            typer.echo(line)


@jobs.command("post")
def post_job(
    spec_file: Annotated[Path, typer.Argument(metavar="SPEC.json", exists=True, dir_okay=False)],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Upload a job's blobs, check the API's transaction against the spec, sign it and send it."""
    settings = read_settings()
    spec = parse_spec(spec_file.read_bytes())
    store = settings.open_store()
    check_spec_blobs(spec, store)
    account = settings.read_account()
    with settings.connect() as chain, ApiClient(settings.api_url) as api:
        for cid in list_spec_blobs(spec):
            if not api.has_blob(cid):
                api.put_blob(cid, store.get_path(cid, store.max_blob_bytes))
        ether = chain.deployment.ether
        receipt = chain.send(account, api.draft_job(spec, account.address, chain.deployment))
    created = next(e for e in decode_events(receipt.logs) if isinstance(e, JobCreated))
    posted = PostedJob(
        job_id=created.job_id,
        spec_hash=created.spec_hash,
        document=store.put(spec.document),
        tx_hash=receipt.tx_hash,
        gas_used=receipt.gas_used,
    )
    escrow = format_amount(spec.escrow, spec.terms.asset, ether)
    facts: dict[str, object] = {"escrowed": escrow, "transaction": posted.tx_hash}
    emit(posted, build_facts(f"job {posted.job_id}", facts), as_json=as_json)


@jobs.command("cancel")
def cancel_job(job_id: JobId, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Let nothing more of your job be claimed; work that is leased is paid as agreed."""
    with (settings := read_settings()).connect() as chain:
        receipt = chain.send(settings.read_account(), chain.calls.cancel_job(job_id))
    emit_receipt(receipt, as_json=as_json)


@jobs.command("refund")
def refund_job(job_id: JobId, as_json: Json = False) -> None:  # noqa: FBT002 - an option
    """Credit a job's requester with what a job that is over cannot spend any more; anyone may."""
    with (settings := read_settings()).connect() as chain:
        receipt = chain.send(settings.read_account(), chain.calls.refund(job_id))
    emit_receipt(receipt, as_json=as_json)


@jobs.command("fetch")
def fetch_job(
    job_id: JobId,
    out: Annotated[Path, typer.Option(file_okay=False, help="The directory to write to.")],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Write what a job made: its document and each slot's manifest, metrics and poststate.

    A slot's are of the last closed round that has it in its set; a slot that none has is left out."""
    settings = read_settings()
    store = settings.open_store()
    out.mkdir(parents=True, exist_ok=True)
    with settings.connect() as chain, ApiClient(settings.api_url) as api:
        job = chain.get_job(job_id)
        if job.round == 0:
            raise InvalidTransition(f"job {job_id} has no closed round")
        blobs = _find_results(chain, api, store, job_id)
        for cid in blobs.values():
            api.fetch_blob(cid, store)
    for name, cid in blobs.items():
        store.copy_to(cid, out / name)
    files = tuple(str(out / name) for name in blobs)
    fetched = FetchedJob(job_id=job_id, round=job.round - 1, files=files)
    emit(fetched, build_table("fetched", ("file",), [(f,) for f in files]), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(jobs, name="job")


def _follow(chain: Chain, store: BlobStore, job_id: int) -> Iterator[EventEntry]:
    seen = 0
    while True:
        details = queries.get_job_details(chain, store, job_id)
        yield from details.events[seen:]
        seen = len(details.events)
        if _is_over(details):
            return
        time.sleep(_POLL_S)


def _is_over(details: JobDetails) -> bool:
    return details.status in _OVER and details.job.active == 0


def _show_slots(slots: Sequence[int]) -> str:
    return f"{slots[0]}" if len(slots) == 1 else f"{slots[0]} to {slots[-1]}"


def _find_results(chain: Chain, api: ApiClient, store: BlobStore, job_id: int) -> dict[str, Cid]:
    job, events = chain.get_job(job_id), chain.get_job_events(job_id)
    commitments = {event.lease_id: event for event in events if isinstance(event, TraceCommitted)}
    blobs = {"spec.json": queries.get_document_cid(chain, job_id)}
    for slot in range(job.slots):
        last = chain.find_last_attested(job_id, slot, job.round)
        if last is None:
            continue
        attested = chain.get_round(job_id, last).attested
        lease_id = find_contributions(events, job_id, last, attested)[slot]
        lease, committed = chain.get_lease(lease_id), commitments[lease_id]
        cid = cid_of_digest(committed.manifest)
        api.fetch_blob(cid, store)
        data = store.get(cid, MAX_DOCUMENT_BYTES)
        manifest = decode_manifest(data, lease.count, job.segments, committed.root)
        shard = manifest.shards[slot - lease.first]
        blobs[f"slot-{slot}.manifest.json"] = cid
        blobs[f"slot-{slot}.metrics"] = Cid(shard.metrics)
        blobs[f"slot-{slot}.state"] = Cid(shard.records[-1].state)
    return blobs
