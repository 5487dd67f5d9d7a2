"""`touchstone bench market`: what the contracts cost, and whether outbox and index keep their word."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Console

from market.commands.output import build_table
from market.protocol.errors import MarketError
from market.settings import read_settings

bench = typer.Typer(no_args_is_help=True, help="Benchmarks: the project's figures, measured here.")


class MarketFigures(BaseModel):
    """The figures by name. Gas is of whole transactions, in steady state; seconds are of one core."""

    gas_lease: int
    gas_by_call: dict[str, int]
    gas_per_extra_shard: int
    gas_pay_out: int
    outbox_calls: int
    outbox_kills: int
    outbox_lost: int
    outbox_duplicates: int
    outbox_s: float
    rebuild_100k_s: float


@bench.command("market")
def bench_market(
    figures: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Measure gas, the outbox and the index on a devnet of its own: some minutes.

    Exits 1 if the outbox lost a call or made one happen twice."""
    measured = measure_market()
    rows = [
        ("gas of an honest lease, one shard", "350,000", f"{measured.gas_lease:,}"),
        ("each further shard of a lease", "2,000", f"{measured.gas_per_extra_shard:,}"),
        ("being paid for any number of leases", "80,000", f"{measured.gas_pay_out:,}"),
        ("calls lost by the outbox", "0", str(measured.outbox_lost)),
        ("calls that it made happen twice", "0", str(measured.outbox_duplicates)),
        ("index: rebuild of 100,000 events", "60 s", f"{measured.rebuild_100k_s:.1f} s"),
    ]
    Console().print(build_table("The market", ("what", "at most", "measured"), rows))
    if figures is not None:
        figures.write_text(measured.model_dump_json(indent=2) + "\n")
    raise typer.Exit(1 if measured.outbox_lost or measured.outbox_duplicates else 0)


def measure_market() -> MarketFigures:
    """Return the market's figures on this machine."""
    try:
        from market.storage.index.bench import measure_rebuild
    except ModuleNotFoundError as error:
        raise MarketError(
            f"the index needs {error.name}: install touchstone-market[api]"
        ) from error
    from market.chain.bench_outbox import measure_outbox
    from market.chain.devnet import find_anvil
    from market.commands.lease_gas import measure_lease_gas

    anvil = find_anvil(read_settings().anvil)
    gas = measure_lease_gas(anvil)
    with tempfile.TemporaryDirectory() as folder:
        outbox = measure_outbox(anvil, Path(folder))
    return MarketFigures(
        gas_lease=gas.lifecycle,
        gas_by_call=gas.one,
        gas_per_extra_shard=gas.per_extra_shard,
        gas_pay_out=gas.pay_out,
        outbox_calls=outbox.calls,
        outbox_kills=outbox.kills,
        outbox_lost=outbox.lost,
        outbox_duplicates=outbox.duplicates,
        outbox_s=outbox.duration_s,
        rebuild_100k_s=measure_rebuild(),
    )


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.add_typer(bench, name="bench")
