"""The command that tells a requester who could take a job, at what price and when."""

from pathlib import Path
from typing import Annotated, Final

import typer

from market.chain.client import Chain
from market.commands.output import (
    Json,
    build_facts,
    build_table,
    emit,
    find_group,
    format_amount,
    format_wei,
)
from market.protocol.errors import NotFound
from market.protocol.spec import parse_spec
from market.settings import read_settings
from market.storage.quotes import Inquiry, PriceRow, Quote, ask_job, ask_spec, compute_quote

_NO_DATA: Final = "no data"
_COLUMNS: Final = ("leases", "number", "for a", "p10", "p50", "p90")


def quote_job(
    job: Annotated[str, typer.Argument(metavar="SPEC.json|ID", help="A spec, or a posted job.")],
    as_json: Json = False,  # noqa: FBT002 - an option
) -> None:
    """Show who could take a job, and what leases like it were claimed for. It promises nothing."""
    with read_settings().connect() as chain:
        inquiry = _find_inquiry(chain, job)
        quote = compute_quote(chain, inquiry)
        ether = chain.deployment.ether

    def show(amount: int | None) -> str:
        return _NO_DATA if amount is None else format_amount(amount, quote.asset, ether)

    facts: dict[str, object] = {
        "shards": f"{quote.shards} of {quote.steps} steps",
        "providers that could take one": (
            f"{quote.able_operators} of {quote.operators} have {show(quote.stake_per_shard)} free:"
            f" {quote.able_shards} shards at once"
        ),
        "full price of a shard": show(quote.price_per_shard),
        "median price of one": _describe_median(quote, show(quote.median_price)),
        "claimed after its round opens": _describe_start(quote),
        "expected cost": show(quote.expected_cost),
        "most it can cost": show(quote.most_cost),
        "gas of posting": f"{quote.post_gas} gas, now {format_wei(quote.post_cost)}",
    }
    rows = [row for entry in quote.prices for row in _list_prices(entry)]
    prices = build_table(f"claimed for, in base units of asset {quote.asset}", _COLUMNS, rows)
    emit(quote, build_facts("quote", facts), prices, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the command to the group `job` of ``app``."""
    find_group(app, "job").command("quote")(quote_job)


def _find_inquiry(chain: Chain, job: str) -> Inquiry:
    if job.isascii() and job.isdigit():
        return ask_job(chain.get_job_creation(int(job)))
    path = Path(job)
    if not path.is_file():
        raise NotFound(f"{job} is neither a spec's file nor a job's number")
    return ask_spec(parse_spec(path.read_bytes()))


def _describe_median(quote: Quote, median: str) -> str:
    if quote.basis is None:
        return _NO_DATA
    leases = next(row.leases for row in quote.prices if row.of == quote.basis)
    return f"{median}, by the step, from {leases} leases ({quote.basis})"


def _describe_start(quote: Quote) -> str:
    if quote.covers_median is None:
        return _NO_DATA
    if quote.start_s is None:
        return "the full price is below the median: perhaps never"
    return f"{quote.start_s} s: then its price reaches the median"


def _list_prices(row: PriceRow) -> list[tuple[object, ...]]:
    if row.per_shard is None or row.per_step is None:
        return [(row.of, row.leases, *[_NO_DATA] * 4)]
    shard, step = row.per_shard, row.per_step
    return [
        (row.of, row.leases, "shard", shard.p10, shard.p50, shard.p90),
        ("", "", "step", step.p10, step.p50, step.p90),
    ]
