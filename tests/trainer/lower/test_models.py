"""The preset decoder: its size, its initial weights, its causality."""

import torch

from market.protocol.philox import random_words
from trainer.exact.torch_ops import run_random
from trainer.models import PRESETS, Llama, LlamaConfig, generate


def test_the_array_generator_is_the_protocol_s():
    words = torch.empty(37, dtype=torch.int64)
    run_random(2**64 - 9, 3, 2**31, 1, words)

    assert words.tolist() == random_words(2**64 - 9, 3, 2**31, 1, 37)


def test_the_demo_has_about_a_million_parameters():
    model = Llama(PRESETS["demo"])

    assert sum(p.numel() for p in model.parameters()) == 1_000_576


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = Llama(PRESETS["tiny"], seed=5)
    torch.manual_seed(2)
    second, other = Llama(PRESETS["tiny"], seed=5), Llama(PRESETS["tiny"], seed=6)

    pairs = zip(first.parameters(), second.parameters(), other.parameters(), strict=True)

    assert all(torch.equal(a, b) and (a.ndim < 2 or not torch.equal(a, c)) for a, b, c in pairs)
    deviation = float(first.head.weight.detach().std()) * PRESETS["tiny"].d_model ** 0.5
    assert 0.95 < deviation < 1.05


def test_a_position_does_not_see_what_follows():
    model, tokens = Llama(PRESETS["tiny"]), torch.arange(16)[None]
    changed = tokens.clone()
    changed[0, 10:] = 99

    before, after = model.logits(tokens), model.logits(changed)

    assert torch.allclose(before[0, :10], after[0, :10], atol=1e-5)
    assert not torch.allclose(before[0, 10:], after[0, 10:], atol=1e-3)


def test_tied_weights_are_one_parameter():
    model = Llama(LlamaConfig(256, 32, 1, 4, 2, 48, 16, tied=True))

    assert model.head.weight is model.embedding.weight


def test_generation_is_repeatable_and_longer_than_the_context():
    model = Llama(PRESETS["tiny"])

    greedy = [generate(model, b"abc", 30) for _ in range(2)]
    sampled = [generate(model, b"abc", 30, temperature=1.0, seed=s) for s in (1, 1, 2)]

    assert len(greedy[0]) == 30
    assert greedy[0] == greedy[1]
    assert sampled[0] == sampled[1] != sampled[2]
