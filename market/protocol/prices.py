"""Prices: how a shard's rises while nobody claims it, and what others were claimed at.

Amounts are integers in base units of the job's asset, times seconds of the market's clock, rates bps."""

from collections.abc import Sequence
from dataclasses import dataclass

from market.protocol.constants import BPS
from market.protocol.spec import Wei


@dataclass(frozen=True, slots=True)
class Ramp:
    """What a shard pays, from a floor at the opening of its round to the full price (`Jobs.priceBpsAt`)."""

    full_price: int
    floor_bps: int
    ramp_time: int
    opened_at: int

    def compute_bps(self, time: int) -> int:
        """Return the share of the full price that a claim at ``time`` fixes."""
        elapsed = time - self.opened_at
        if elapsed >= self.ramp_time:
            return BPS
        return self.floor_bps + (BPS - self.floor_bps) * elapsed // self.ramp_time

    def compute_time(self, bps: int) -> int:
        """Return the first moment at which a claim fixes at least ``bps``, which is at most all of it."""
        if bps <= self.floor_bps:
            return self.opened_at
        rise = (bps - self.floor_bps) * self.ramp_time
        return self.opened_at + -(-rise // (BPS - self.floor_bps))

    def compute_price(self, bps: int) -> int:
        """Return what a shard claimed at ``bps`` pays."""
        return self.full_price * bps // BPS

    def find_bps(self, price: int) -> int | None:
        """Return the least share at which a shard pays ``price``; None if it never does."""
        bps = max(self.floor_bps, -(-price * BPS // self.full_price))
        return bps if bps <= BPS else None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Three ranks of some prices: each is one of them."""

    p10: Wei
    p50: Wei
    p90: Wei


def find_percentiles(prices: Sequence[int]) -> Percentiles | None:
    """Return three of ``prices``, each the nearest at or above its share of them; None of none."""
    if not prices:
        return None
    ordered = sorted(prices)
    ranks = (-(-len(ordered) * share // 100) - 1 for share in (10, 50, 90))
    return Percentiles(*(ordered[rank] for rank in ranks))
