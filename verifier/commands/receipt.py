"""What `touchstone receipt make` and `touchstone receipt verify` do."""

from pathlib import Path

import typer
from pydantic import BaseModel

from market.chain.ledger import Ledger
from market.commands.output import build_facts, build_table, emit
from market.settings import read_settings
from verifier.commands.replay import load_job
from verifier.receipt import Books, build_receipt, check_receipt, read_receipt


def make_receipt(job_id: int, out: Path, *, as_json: bool) -> None:
    """Write the receipt of a job as it stands to ``out``."""
    settings = read_settings()
    store = settings.open_store()
    with settings.connect() as chain:
        ledger, files = load_job(chain, store, job_id)
        made = build_receipt(Books(chain, ledger, store, files, job_id))
    out.write_text(made.text)
    facts: dict[str, object] = {
        "file": out,
        "leases": len(made.leases),
        "slashes": len(made.slashes),
        "model": "0x" + made.model_root.hex(),
    }
    emit(made, build_facts(f"receipt of job {job_id}", facts), as_json=as_json)


class CheckReport(BaseModel):
    """One thing that a receipt claims."""

    claim: str
    holds: bool
    fault: str | None


class ReceiptReport(BaseModel):
    """A receipt, checked."""

    holds: bool
    checks: tuple[CheckReport, ...]


def verify_receipt(file: Path, model: Path | None, *, as_json: bool) -> None:
    """Print whether all that the receipt in ``file`` claims holds; exit 0 if so, else 1."""
    settings = read_settings()
    with settings.connect() as chain:
        chain.require_deployed()
        found = check_receipt(
            read_receipt(file), chain, Ledger(chain), settings.open_store(), model
        )
        checks = tuple(
            CheckReport(claim=check.name, holds=check.fault is None, fault=check.fault)
            for check in found
        )
    report = ReceiptReport(holds=all(check.holds for check in checks), checks=checks)
    rows = [(check.claim, "holds" if check.holds else f"NO: {check.fault}") for check in checks]
    emit(report, build_table(str(file), ("claim", "verdict"), rows), as_json=as_json)
    raise typer.Exit(0 if report.holds else 1)
