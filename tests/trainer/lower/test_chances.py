"""Random operators: which words they read, and that dropout is autograd's with that mask."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from market.protocol.errors import UnsupportedOperator
from market.protocol.philox import random_words
from market.protocol.program import Kind
from tests.trainer.lower.interpreter import Interpreter
from tests.trainer.lower.oracle import (
    OPTIMIZER,
    SEED,
    compute_autograd,
    make_inputs,
    make_tokens,
    read_rows,
    relative_error,
)
from tests.trainer.lower.test_operators import DATA, Probe
from trainer.lower.noise import FIRST_STREAM
from trainer.lower.step import lower_step

PLACE = {"round_index": 3, "slot": 7, "index": 11}


def draw(stream, shape, place):
    counter = place["round_index"] * 2**16 + place["slot"]
    count = int(np.prod(shape))
    words = random_words(SEED, place["index"], counter, stream, count)
    return torch.tensor(words, dtype=torch.int64).reshape(shape)


def run(model, place):
    step, tokens = lower_step(model, None, DATA, OPTIMIZER), make_tokens(DATA.tokens)
    _, gradients, metrics = Interpreter(step.program).run(make_inputs(step, tokens, **place))
    return gradients, metrics["metrics"][0]


@pytest.mark.parametrize("chance", [0.1, 0.5, 1 / 3, 1.0])
@pytest.mark.parametrize("place", [PLACE, {**PLACE, "index": 12}])
def test_each_dropout_keeps_the_words_of_its_stream_that_are_not_below_its_chance(chance, place):
    def mask(stream, shape):
        words = draw(stream, shape, place).flatten().tolist()
        kept = [word >= Fraction(chance) * 2**32 for word in words]
        return torch.tensor(kept).reshape(shape) / ((1 - chance) or 1)

    model = Probe(lambda x, w, _: F.dropout(F.dropout(x, chance) * w[0], chance))
    masked = Probe(lambda x, w, _: x * mask(FIRST_STREAM, x.shape) * w[0] * mask(3, x.shape))

    gradients, loss = run(model, place)

    expected_loss, expected = compute_autograd(masked, read_rows(make_tokens(1000), DATA, **place))
    errors = [relative_error(gradients[name], g) for name, g in expected.items()]
    assert max(errors) < 1e-6
    assert abs(loss - expected_loss) < 1e-6


def test_a_dropout_in_place_and_of_whole_channels_draw_words_too():
    model = Probe(lambda x, w, _: F.dropout2d(F.dropout(x * w[0], 0.2, inplace=True)[None], 0.5)[0])

    step = lower_step(model, None, DATA, OPTIMIZER)

    counts = [i.shape[0] for i in step.program.instructions if i.kind is Kind.RANDOM]
    assert counts == [DATA.batch, 48, 2]


def test_a_dropout_that_is_off_draws_nothing():
    model = Probe(lambda x, w, _: F.dropout(x * w[0], 0.0) + F.dropout(x, 0.5, training=False))

    step = lower_step(model, None, DATA, OPTIMIZER)

    assert sum(i.kind is Kind.RANDOM for i in step.program.instructions) == 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: torch.rand_like(x), lambda words: (words >> 8) * 2.0**-24),
        (lambda x: torch.rand(x.shape), lambda words: (words >> 8) * 2.0**-24),
        (lambda x: x.detach().clone().uniform_(-1, 3), lambda words: (words >> 8) * 2.0**-22 - 1),
        (lambda x: torch.full_like(x, 0.3).bernoulli_(0.3), lambda words: words < 0.3 * 2**32),
        (lambda x: torch.bernoulli(x.detach() * 0 + 0.25), lambda words: words < 2**30),
    ],
)
def test_a_random_tensor_is_made_of_the_words_of_its_stream(function, expected):
    model = Probe(lambda x, w, _: w[0] * function(x))

    gradients, _ = run(model, PLACE)

    table = torch.linspace(-1, 1.5, 48).reshape(2, 4, 6)
    found = (expected(draw(FIRST_STREAM, (2, 4, 6), PLACE)) * table).sum((0, 1))
    assert relative_error(gradients["w"][0], found) < 1e-6


def test_chances_that_are_tensors_are_refused_in_place():
    model = Probe(lambda x, w, _: torch.zeros_like(x).bernoulli_(x.detach().sigmoid()) * w[0])

    with pytest.raises(UnsupportedOperator, match="a probability that is a tensor"):
        lower_step(model, None, DATA, OPTIMIZER)
