"""What `touchstone conformance` does, and what every daemon does first."""

from collections.abc import Sequence

import torch
import typer
from pydantic import BaseModel

from market.commands.output import build_table, emit
from market.protocol.constants import CONFORMANCE_DIGEST
from market.protocol.errors import NondeterministicEnvironment
from trainer.exact import fused, torch_ops
from trainer.exact.conformance import ConformanceReport, require_conformance, run_conformance
from trainer.execution import choose_default_backend, choose_default_carrier


class FormReport(BaseModel):
    """What one form of the arithmetic computed here."""

    form: str
    carrier: str
    digest: str
    conforms: bool


class Conformance(BaseModel):
    """What this machine computes, and what it may use for it."""

    digest: str
    release_digest: str
    conforms: bool
    carriers: dict[str, bool]
    forms: tuple[FormReport, ...]


def _run_forms(name: str = "cpu") -> list[tuple[str, ConformanceReport]]:
    """Run the vectors through every form and carrier that this machine would train with on a device."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise NondeterministicEnvironment("torch finds no CUDA device here")
    reports = [("torch", run_conformance(torch_ops, device))]
    backend = choose_default_backend(device)
    if backend == "fused":
        chosen = choose_default_carrier(name, backend).name
        reports.append((backend, run_conformance(fused, device, chosen)))
    elif backend == "triton":
        from trainer.exact import triton_ops  # needs a GPU's packages
        from trainer.exact.triton_carriers import TRITON_CARRIERS

        reports.append((backend, run_conformance(triton_ops, device, carriers=TRITON_CARRIERS)))
    return reports


def use_threads(threads: int | None) -> None:
    """Let torch use so many threads in this process; as many as there are cores if None."""
    if threads is not None:
        torch.set_num_threads(threads)


def require_release_arithmetic() -> None:
    """Raise NondeterministicEnvironment unless every form gives the release's digest."""
    for _, report in _run_forms():
        require_conformance(report, CONFORMANCE_DIGEST.hex())


def _list_carriers(reports: Sequence[tuple[str, ConformanceReport]]) -> dict[str, bool]:
    """Return which carriers are exact; those of the Triton kernels bear their name."""
    return {
        f"{form} {name}" if form == "triton" else name: exact
        for form, report in reports
        for name, exact in report.carriers.items()
    }


def report_conformance(device: str, *, as_json: bool) -> None:
    """Print what this machine computes on ``device``; exit 0 if it is what the release computes, else 1."""
    release = CONFORMANCE_DIGEST.hex()
    reports = _run_forms(device)
    forms = tuple(
        FormReport(form=f, carrier=r.chosen, digest=r.digest, conforms=r.digest == release)
        for f, r in reports
    )
    conforms = all(form.conforms for form in forms)
    odd = next((form.digest for form in forms if not form.conforms), release)
    result = Conformance(
        digest=odd,
        release_digest=release,
        conforms=conforms,
        carriers=_list_carriers(reports),
        forms=forms,
    )
    rows = [(f.form, f.carrier, f.digest, "yes" if f.conforms else "NO") for f in forms]
    exact = [(name, "exact" if ok else "not usable here") for name, ok in result.carriers.items()]
    emit(
        result,
        build_table("arithmetic", ("form", "carrier used", "digest", "conforms"), rows),
        build_table("carriers", ("carrier", "integers"), exact),
        as_json=as_json,
    )
    raise typer.Exit(0 if conforms else 1)
