"""Fusion: maps over the same elements become one, so that a value is read and written once.

A map that reads what another wrote, element by element, takes over its expression; maps that read the
same tensor become one map with several outputs. What nothing reads is dropped."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from market.protocol.constants import MAX_MAP_OUTPUTS
from trainer.lower.drafts import AnyDraft, Buffer, MapDraft, Store, find_walk, is_within_limits
from trainer.lower.expressions import Expr, Load, find_loads, rewrite
from trainer.lower.layout import Layout, simplify


@dataclass
class _Fuser:
    """A list of drafts in which merged ones leave a hole."""

    drafts: list[AnyDraft | None]
    buffers: list[Buffer]
    kept: set[int]

    def __post_init__(self) -> None:
        self.readers: dict[int, set[int]] = defaultdict(set)
        self.writers: dict[int, set[int]] = defaultdict(set)
        for position, draft in enumerate(self.drafts):
            if draft is not None:
                self._index(position, draft)

    def _index(self, position: int, draft: AnyDraft) -> None:
        for buffer in draft.reads:
            self.readers[buffer].add(position)
        for buffer in draft.writes:
            self.writers[buffer].add(position)

    def remove(self, position: int) -> None:
        draft = self.drafts[position]
        assert draft is not None
        for buffer in draft.reads:
            self.readers[buffer].discard(position)
        for buffer in draft.writes:
            self.writers[buffer].discard(position)
        self.drafts[position] = None

    def put(self, position: int, draft: AnyDraft) -> None:
        self.drafts[position] = draft
        self._index(position, draft)

    def find_partners(self, position: int, draft: MapDraft) -> list[int]:
        """Return earlier maps that write or read in full what ``draft`` reads, nearest first."""
        found: set[int] = set()
        for source, layout in find_loads(draft.roots):
            if all(stride for _, stride in layout.factors):
                found |= self.writers[source] | self.readers[source]
        earlier = sorted((p for p in found if p < position), reverse=True)
        return [p for p in earlier if isinstance(self.drafts[p], MapDraft)]

    def find_place(self, first: int, second: int, merged: MapDraft) -> int | None:
        """Return the position at which ``merged`` can replace both maps, or None."""
        ready = [w for buffer in merged.reads for w in self.writers[buffer]]
        if all(w < first for w in ready):
            return first
        draft = self.drafts[first]
        assert draft is not None
        needed = [r for buffer in draft.writes for r in self.readers[buffer]]
        is_sinkable = all(r >= second for r in needed) and all(w < second for w in ready)
        return second if is_sinkable else None

    def merge(self, first: int, second: int) -> bool:
        """Put both maps into one instruction if the rules and the limits allow it."""
        a, b = self.drafts[first], self.drafts[second]
        assert isinstance(a, MapDraft)
        assert isinstance(b, MapDraft)
        if a.count != b.count:
            return False
        stores = self._select_stores(a, b, second)
        merged = MapDraft(a.count, stores)
        if len(stores) > MAX_MAP_OUTPUTS or merged.reads & merged.writes:
            return False
        place = self.find_place(first, second, merged)
        if place is None or not is_within_limits(merged.roots):
            return False
        if find_walk(merged, self.buffers) is None:
            return False
        self.remove(first)
        self.remove(second)
        self.put(place, merged)
        return True

    def _select_stores(self, a: MapDraft, b: MapDraft, second: int) -> tuple[Store, ...]:
        inlined = _inline(a, b)
        own = {store.buffer for store in a.stores} - {
            source for source, _ in find_loads([store.expr for store in inlined])
        }
        dropped = {
            buffer
            for buffer in own - self.kept
            if self.readers[buffer] <= {second} and len(self.writers[buffer]) == 1
        }
        return (*(store for store in a.stores if store.buffer not in dropped), *inlined)


def _inline(a: MapDraft, b: MapDraft) -> tuple[Store, ...]:
    """Return the stores of ``b`` with each load of what ``a`` stores there replaced by its value."""
    values = {(s.buffer, _normalize(s.layout)): s.expr for s in a.stores}

    def change(node: Load) -> Expr:
        return values.get((node.source, _normalize(node.layout)), node)

    roots = rewrite(b.roots, change)
    pairs = zip(b.stores, roots, strict=True)
    return tuple(Store(store.buffer, store.layout, root) for store, root in pairs)


def _normalize(layout: Layout) -> Layout:
    return Layout((simplify(layout.factors),), layout.offset)


def _drop_dead(drafts: list[AnyDraft], kept: set[int]) -> list[AnyDraft]:
    """Return the drafts, and the stores of maps, that something kept depends on."""
    needed, result = set(kept), []
    for draft in reversed(drafts):
        if isinstance(draft, MapDraft):
            draft = MapDraft(draft.count, tuple(s for s in draft.stores if s.buffer in needed))
        if draft.writes & needed:
            needed |= draft.reads
            result.append(draft)
    return result[::-1]


def fuse(
    drafts: list[AnyDraft], buffers: list[Buffer], kept: set[int], fences: Sequence[int] = ()
) -> list[AnyDraft]:
    """Return drafts that write the same ``kept`` buffers with fewer maps, none moved over a fence."""
    result: list[AnyDraft] = []
    needed = set(kept)
    for start, stop in reversed([*pairwise((0, *fences, len(drafts)))]):
        section = _fuse_section(drafts[start:stop], buffers, needed)
        needed = needed.union(*(draft.reads for draft in section))
        result = section + result
    return result


def _fuse_section(drafts: list[AnyDraft], buffers: list[Buffer], kept: set[int]) -> list[AnyDraft]:
    fuser = _Fuser([*_drop_dead(drafts, kept)], buffers, kept)
    is_changed = True
    while is_changed:
        is_changed = False
        for position in range(len(fuser.drafts)):
            draft = fuser.drafts[position]
            if not isinstance(draft, MapDraft):
                continue
            partners = fuser.find_partners(position, draft)
            if any(fuser.merge(partner, position) for partner in partners):
                is_changed = True
    return _drop_dead([draft for draft in fuser.drafts if draft is not None], kept)
