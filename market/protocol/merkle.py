"""Binary Merkle trees whose depth follows from a committed count, so that positions are bound."""

from collections.abc import Sequence
from hashlib import sha256

from market.protocol.hashing import ZERO_HASH, Hash32, hash_node


def compute_depth(count: int) -> int:
    """Return the depth of a tree over ``count`` leaves: ``ceil(log2(max(1, count)))``."""
    return max(count - 1, 0).bit_length()


def compute_levels(leaves: Sequence[Hash32], depth: int | None = None) -> list[list[Hash32]]:
    """Return every level of the tree, leaves first; a level's missing right end is implied zeros."""
    levels = [list(leaves)]
    padding = ZERO_HASH  # the root of an all-missing subtree at the current height
    for _ in range(compute_depth(len(leaves)) if depth is None else depth):
        level = levels[-1]
        if len(level) & 1:
            level = [*level, padding]
        levels.append(
            [
                Hash32(sha256(left + right).digest())
                for left, right in zip(level[::2], level[1::2], strict=True)
            ]
        )
        padding = hash_node(padding, padding)
    return levels


def compute_root(leaves: Sequence[Hash32], depth: int | None = None) -> Hash32:
    """Return the root over ``leaves``; ``depth`` overrides the depth that their count implies."""
    if not leaves:
        return ZERO_HASH
    return compute_levels(leaves, depth)[-1][0]


def compute_branch(leaves: Sequence[Hash32], index: int, depth: int | None = None) -> list[Hash32]:
    """Return the siblings of leaf ``index`` from the leaf up."""
    branch: list[Hash32] = []
    padding = ZERO_HASH
    for level in compute_levels(leaves, depth)[:-1]:
        sibling = index ^ 1
        branch.append(level[sibling] if sibling < len(level) else padding)
        padding = hash_node(padding, padding)
        index >>= 1
    return branch


def compute_branch_root(leaf: Hash32, branch: Sequence[Hash32], index: int) -> Hash32:
    """Return the root obtained by hashing ``leaf`` at ``index`` up through ``branch``."""
    node = leaf
    for height, sibling in enumerate(branch):
        is_right = (index >> height) & 1
        node = hash_node(sibling, node) if is_right else hash_node(node, sibling)
    return node


def is_valid_branch(
    leaf: Hash32, branch: Sequence[Hash32], index: int, count: int, root: Hash32
) -> bool:
    """Check that ``leaf`` sits at ``index`` of the tree over ``count`` leaves with that ``root``."""
    # INVARIANT: a branch of another length proves a node, not a leaf; bits above the depth alias.
    if len(branch) != compute_depth(count) or not 0 <= index < count:
        return False
    return compute_branch_root(leaf, branch, index) == root
