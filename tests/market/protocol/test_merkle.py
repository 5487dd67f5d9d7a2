import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.protocol.hashing import ZERO_HASH, Hash32, Role, compute_digest, hash_leaf, hash_node
from market.protocol.merkle import (
    compute_branch,
    compute_depth,
    compute_root,
    is_valid_branch,
)

leaf_lists = st.lists(st.binary(min_size=32, max_size=32).map(Hash32), min_size=1, max_size=40)


@given(leaves=leaf_lists, data=st.data())
def test_a_branch_proves_its_leaf_at_its_index_and_nowhere_else(leaves, data):
    count = len(leaves)
    index = data.draw(st.integers(0, count - 1))
    other = data.draw(st.integers(0, 4 * count).filter(lambda i: i != index))

    root, branch = compute_root(leaves), compute_branch(leaves, index)

    assert is_valid_branch(leaves[index], branch, index, count, root)
    is_twin = other < count and leaves[other] == leaves[index]
    assert is_twin or not is_valid_branch(leaves[index], branch, other, count, root)


@given(leaves=leaf_lists, data=st.data())
def test_no_inner_node_can_be_proven_as_a_leaf(leaves, data):
    count = len(leaves)
    index = data.draw(st.integers(0, count - 1))
    root, branch = compute_root(leaves), compute_branch(leaves, index)
    if not branch:
        return
    pair = (leaves[index], branch[0]) if index % 2 == 0 else (branch[0], leaves[index])

    node = hash_node(*pair)

    assert not is_valid_branch(node, branch[1:], index >> 1, count, root)


@given(leaves=leaf_lists, data=st.data())
def test_a_changed_bit_anywhere_in_a_branch_is_refused(leaves, data):
    count = len(leaves)
    index = data.draw(st.integers(0, count - 1))
    root, branch = compute_root(leaves), compute_branch(leaves, index)
    if not branch:
        return
    level = data.draw(st.integers(0, len(branch) - 1))
    bit = data.draw(st.integers(0, 255))
    damaged = int.from_bytes(branch[level], "big") ^ (1 << bit)

    branch[level] = Hash32(damaged.to_bytes(32, "big"))

    assert not is_valid_branch(leaves[index], branch, index, count, root)


@pytest.mark.parametrize(
    ("count", "depth"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3)]
)
def test_the_depth_follows_from_the_count(count, depth):
    assert compute_depth(count) == depth


def test_missing_leaves_are_zeros_under_ordinary_nodes():
    leaves = [compute_digest(bytes([i])) for i in range(5)]

    root = compute_root(leaves)

    zeros = hash_node(ZERO_HASH, ZERO_HASH)
    left = hash_node(hash_node(*leaves[:2]), hash_node(*leaves[2:4]))
    assert root == hash_node(left, hash_node(hash_node(leaves[4], ZERO_HASH), zeros))


def test_leaves_of_different_roles_differ():
    payload = bytes(64)

    leaves = {hash_leaf(role, payload) for role in Role}

    assert len(leaves) == len(Role)
