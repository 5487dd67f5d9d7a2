import pytest
import torch
from torch import Tensor

from market.protocol.errors import NondeterministicEnvironment
from trainer.exact.carriers import (
    CARRIERS,
    QUANTIZED_BOUNDS,
    choose_carrier,
    probe_carriers,
    require_carrier,
    split_digits,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def exact() -> dict[str, bool]:
    return probe_carriers(CPU)


def draw_integers(seed: int, bits: int, *shape: int) -> Tensor:
    bound = QUANTIZED_BOUNDS[bits]
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(-bound, bound + 1, shape, generator=generator)
    q[..., ::3] = q[..., ::3].sign() * bound
    return q.to(torch.int32 if bits > 16 else torch.int16)


@pytest.mark.parametrize("bits_a", QUANTIZED_BOUNDS)
@pytest.mark.parametrize("bits_b", QUANTIZED_BOUNDS)
@pytest.mark.parametrize("shape", [(1, 5, 4, 300), (3, 2, 1, 1), (2, 1, 7, 1025)])
def test_every_exact_carrier_gives_the_integers(
    bits_a: int, bits_b: int, shape: tuple[int, int, int, int], exact: dict[str, bool]
) -> None:
    batch, m, n, k = shape
    a, b = draw_integers(1, bits_a, batch, m, k), draw_integers(2, bits_b, batch, n, k)
    expected = (a.long().unsqueeze(2) * b.long().unsqueeze(1)).sum(-1)

    for name in (name for name, is_exact in exact.items() if is_exact):
        assert torch.equal(CARRIERS[name].multiply(a, b, bits_a, bits_b), expected), name


@pytest.mark.parametrize(("bits", "bound"), QUANTIZED_BOUNDS.items())
def test_digits_are_balanced_and_add_up(bits: int, bound: int) -> None:
    q = torch.arange(-bound, bound + 1, 1 + bound // 2**18, dtype=torch.int32)
    limit, width = (64, 7) if bits == 14 else (128, 8)

    digits = split_digits(q, bits)

    assert torch.equal(sum(d << i * width for i, d in enumerate(digits)), q)
    assert all(-limit <= int(d.min()) and int(d.max()) <= min(limit, 127) for d in digits)


def test_an_inexact_product_is_found_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_pairs_in_16_bits(a: Tensor, b: Tensor, *, out: Tensor) -> None:
        """What CPUs without VNNI do: pairs of products saturate."""
        products = a.int().unsqueeze(1) * b.t().int().unsqueeze(0)
        pairs = products.unflatten(-1, (-1, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)
        out.copy_(pairs.sum(-1))

    monkeypatch.setattr(torch, "_int_mm", add_pairs_in_16_bits)  # another machine's kernel
    exact = probe_carriers(CPU)

    assert exact["float64"]
    assert not exact["int8"]
    with pytest.raises(NondeterministicEnvironment, match="int8"):
        require_carrier("int8", exact)


def test_the_chosen_carrier_is_exact(exact: dict[str, bool]) -> None:
    assert exact["float64"]
    assert exact[choose_carrier(exact, CPU).name]
    assert require_carrier("float64", exact) is CARRIERS["float64"]


def test_a_machine_without_an_exact_carrier_is_refused() -> None:
    with pytest.raises(NondeterministicEnvironment):
        choose_carrier(dict.fromkeys(CARRIERS, False), CPU)
