"""What the demo shows: the shards while they are worked on, then what came of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from market.chain.client import Chain
from market.chain.events import Event, RecordChallenged, SegmentsDrawn, ShardsClaimed
from market.chain.ledger import Ledger
from market.commands.output import format_wei
from market.protocol.lifecycle import LeaseStatus
from market.protocol.records import split_position
from verifier.demo.cast import Scene
from verifier.demo.figures import LIFECYCLE, DemoFigures, name_operators

_STYLES: Final = {
    LeaseStatus.LEASED: "cyan",
    LeaseStatus.ATTESTED: "green",
    LeaseStatus.FINAL: "green",
    LeaseStatus.SETTLED: "bold green",
    LeaseStatus.ACCUSED: "bold red",
    LeaseStatus.SLASHED: "bold red",
}


def count_trained(scene: Scene, chain: Chain, claimed: ShardsClaimed, provider: str) -> int | None:
    """Return how many segments a provider has on disk for a lease, while it keeps them."""
    folder = scene.home / provider / "leases"
    paths = list(folder.glob(f"{chain.deployment.market}-{claimed.lease_id}-*.json"))
    try:
        done = [len(json.loads(path.read_text())["records"]) - 1 for path in paths]
    except FileNotFoundError:  # the lease ended meanwhile, and its provider dropped it
        return None
    return sum(done) if done else None


def _draw_segments(trained: int, segments: int, drawn: Sequence[int], false_at: int | None) -> Text:
    """Return one mark a segment: trained, drawn, or false."""
    marks = Text()
    for segment in range(segments):
        if false_at is not None and segment + 1 == false_at:
            marks.append("✗", "bold red")
        elif segment in drawn:
            marks.append("◆", "bold yellow" if false_at is None else "yellow")
        else:
            marks.append("■" if segment < trained else "·", "blue" if segment < trained else "dim")
    return marks


class Screen:
    """Shows the market's leases live on a terminal; elsewhere, each event as a line."""

    def __init__(self, scene: Scene, chain: Chain, ledger: Ledger, segments: int) -> None:
        self._scene = scene
        self._chain = chain
        self._ledger = ledger
        self._segments = segments
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._shown = 0
        self._trained: dict[int, int] = {}

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Show what the chain and the providers' disks say now."""
        self._ledger.refresh()
        if self._console.is_terminal:
            self._live.update(self.build_table(), refresh=True)
            return
        events = list(self._ledger.iterate(Event))
        for event in events[self._shown :]:
            lease = getattr(event, "lease_id", None)
            subject = f"lease {lease}: " if lease is not None else ""
            self._console.print(f"  block {event.block_number}: {subject}{type(event).__name__}")
        self._shown = len(events)

    def build_table(self) -> Table:
        """Return a row for each lease, with a mark for each of its segments."""
        table = Table(
            "lease",
            "round",
            "shard",
            "provider",
            "segments",
            "status",
            title="the market",
            title_justify="left",
        )
        names = name_operators(self._ledger)
        for claimed in self._ledger.iterate(ShardsClaimed):
            lease, provider = claimed.lease_id, names[claimed.operator]
            status = self._chain.get_status(lease)
            trained = count_trained(self._scene, self._chain, claimed, provider)
            if trained is not None:
                self._trained[lease] = trained
            drawn = self._ledger.find(SegmentsDrawn, lease)
            table.add_row(
                str(lease),
                str(claimed.round + 1),
                _show_shards(range(claimed.first, claimed.first + claimed.count)),
                provider,
                _draw_segments(
                    self._trained.get(lease, 0),
                    self._segments * claimed.count,
                    drawn.segments if drawn else (),
                    self._find_false(lease),
                ),
                Text(status.name.lower().replace("_", " "), _STYLES.get(status, "")),
            )
        return table

    def _find_false(self, lease_id: int) -> int | None:
        """Return the segment before the record that was accused of a lease, counted from 1."""
        for event in self._ledger.iterate(RecordChallenged):
            if event.lease_id == lease_id:
                shard, index = split_position(event.position, self._segments)
                return shard * self._segments + index
        return None


def _show_shards(slots: Sequence[int]) -> str:
    return ", ".join(str(slot + 1) for slot in slots)


def _build_grid(rows: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 3))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name, "dim"), value)
    return grid


def _show_losses(figures: DemoFigures) -> Panel:
    gap = figures.loss_after / figures.loss_after_fp32 - 1
    rows = [
        ("before", f"{figures.loss_before:.4f}"),
        ("after, exact and audited", f"[bold]{figures.loss_after:.4f}[/]"),
        ("after, ordinary torch fp32", f"{figures.loss_after_fp32:.4f}   (exact {gap:+.2%})"),
    ]
    title = f"held-out loss, nats per byte ({figures.parameters:,} parameters)"
    return Panel(_build_grid(rows), title=title, title_align="left")


def _show_leases(figures: DemoFigures) -> Table:
    table = Table(
        "lease", "round", "shard", "provider", "audited segments", "ended", title="leases"
    )
    for lease in figures.leases:
        ended = f"[bold red]{lease.status}[/]" if lease.status == "slashed" else lease.status
        audited = ", ".join(str(segment + 1) for segment in sorted(lease.audited))
        table.add_row(
            str(lease.lease_id),
            str(lease.round + 1),
            _show_shards(lease.slots),
            lease.provider,
            f"{audited} of {lease.segments}",
            ended,
        )
    return table


def _show_slashes(figures: DemoFigures) -> Panel:
    rows = []
    for slash in figures.slashes:
        rows += [
            ("who", f"{slash.provider} lost {format_wei(slash.amount)}"),
            ("to the auditor", f"{format_wei(slash.rewarded)}; the rest is burned"),
            (
                "why",
                f"segment {slash.record_index} of lease {slash.lease_id} does not end as claimed",
            ),
            ("claimed", slash.claimed.hex()),
            ("recomputed", slash.recomputed.hex()),
        ]
    return Panel(_build_grid(rows), title="slashed", title_align="left", border_style="red")


def _show_payments(figures: DemoFigures) -> Panel:
    rows = [(who, format_wei(amount)) for who, amount in figures.paid.items()]
    escrow = f"paid, from an escrow of {format_wei(figures.escrow_in)}"
    return Panel(_build_grid(rows), title=escrow, title_align="left", border_style="green")


def _show_gas(figures: DemoFigures) -> Table:
    table = Table("transaction", "sent", "gas, mean", title="gas")
    for kind, values in sorted(figures.gas.items(), key=lambda item: -max(item[1])):
        table.add_row(kind, str(len(values)), f"{sum(values) // len(values):,}")
    table.add_section()
    table.add_row("an honest lease: " + " + ".join(LIFECYCLE), "", f"{figures.gas_lifecycle:,}")
    return table


def show_report(figures: DemoFigures) -> None:
    """Print what came of the demo."""
    seconds = [(name, f"{value:.1f} s") for name, value in figures.seconds.items()]
    seconds.append(("in all", f"{figures.total_seconds:.1f} s"))
    where = [
        ("model", figures.model),
        (
            "receipt",
            figures.receipt + (" (verified)" if figures.receipt_holds else " (DOES NOT HOLD)"),
        ),
        ("loss curve", figures.plot),
    ]
    facts = [
        ("audit coverage", f"{figures.audit_coverage:.0%} of the attested segments"),
        ("peak memory of a process", f"{figures.peak_memory_bytes / 2**20:.0f} MiB"),
    ]
    Console().print(
        Group(
            _show_losses(figures),
            Panel(Text(figures.sample), title="a sample of the model", title_align="left"),
            _show_leases(figures),
            _show_slashes(figures),
            _show_payments(figures),
            _show_gas(figures),
            Panel(_build_grid(facts), title="checked", title_align="left"),
            Panel(_build_grid(seconds), title="time", title_align="left"),
            Panel(_build_grid(where), title="to keep", title_align="left"),
        )
    )


def show_step(text: str) -> None:
    """Say what happens now."""
    Console().print(f"[bold]»[/] {text}")


def show_path(path: Path) -> str:
    """Return ``path`` as short as it can be typed from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
