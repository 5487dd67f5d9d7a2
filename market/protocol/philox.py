"""Philox4x32-10 (Salmon et al., 2011): the counter-based generator of every random number.

It also owns the order in which a shard reads its data (docs/protocol.md, Data order)."""

from typing import Final

Counter = tuple[int, int, int, int]

MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_MASK: Final = 0xFFFFFFFF
ROUNDS: Final = 10


def philox_words(key: int, counter: Counter) -> Counter:
    """Return the four 32-bit words at ``counter`` under the 64-bit ``key`` (low word first)."""
    key0, key1 = key & _MASK, (key >> 32) & _MASK
    c0, c1, c2, c3 = (word & _MASK for word in counter)
    for _ in range(ROUNDS):
        product0, product1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> 32) ^ c1 ^ key0,
            product1 & _MASK,
            (product0 >> 32) ^ c3 ^ key1,
            product0 & _MASK,
        )
        key0, key1 = (key0 + WEYL[0]) & _MASK, (key1 + WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_words(key: int, c1: int, c2: int, c3: int, count: int) -> list[int]:
    """Return the first ``count`` words of the stream (key, c1, c2, c3): the `random` instruction."""
    blocks = [philox_words(key, (block, c1, c2, c3)) for block in range((count + 3) // 4)]
    return [word for block in blocks for word in block][:count]


def compute_batch_starts(  # noqa: PLR0913 - the coordinates of a batch
    seed: int, round_index: int, slot: int, step: int, batch: int, tokens: int, length: int
) -> list[int]:
    """Return the start positions of a step's rows of ``length`` + 1 tokens in a dataset of ``tokens``."""
    words = random_words(seed, step, (round_index << 16) + slot, 0, batch)
    return [(word * (tokens - length)) >> 32 for word in words]
