"""Bits by need: which operand has which role, and what a line of bits says."""

from collections import Counter

import pytest
import torch
from torch import nn

from market.protocol.errors import UnsupportedOperator
from market.protocol.program import Kind
from trainer.lower.graph import trace
from trainer.lower.optimizer import AdamW
from trainer.lower.precision import Precision, Roles
from trainer.lower.step import DataSpec, lower_step
from trainer.models import Llama, LlamaConfig

CONFIG = LlamaConfig(vocab=80, d_model=16, layers=1, heads=2, kv_heads=1, d_ff=24, length=8)
DATA = DataSpec(tokens=500, batch=2, length=8)


def find_operand_bits(precision: Precision) -> list[tuple[int, int]]:
    program = lower_step(Llama(CONFIG), None, DATA, AdamW(), precision=precision).program
    return [
        tuple(program.tensors[view.tensor].type.bits for view in instruction.operands)
        for instruction in program.instructions
        if instruction.kind is Kind.DOT
    ]


def test_each_operand_of_a_decoder_has_the_bits_of_its_role():
    weight, activation, gradient, logits, attention = 8, 14, 16, 24, 8

    found = find_operand_bits(Precision(weight, activation, gradient, logits, attention))

    assert Counter(tuple(sorted(pair)) for pair in found) == {
        (weight, activation): 8,  # forward: q, k, v, o, gate, up, down, head
        (weight, gradient): 7,  # the gradients of what they read, but for the head
        (activation, gradient): 7,  # and of the weights
        (weight, logits): 1,
        (activation, logits): 1,
        (attention, attention): 6,  # scores and mixture, and two products for the gradient of each
    }


def test_logits_are_found_where_embedding_and_head_are_one_tensor():
    model = Llama(LlamaConfig(80, 16, 1, 2, 1, 24, 8, tied=True))

    program = lower_step(model, None, DATA, AdamW(), precision=Precision(logits=24)).program

    rows = sorted(t.type.shape for t in program.tensors if t.type.bits == 24)
    assert rows == [(16, 80), (80, 16)]  # 16 positions by 80 classes, and the same transposed


@pytest.mark.parametrize(("vocabulary", "widths"), [(8191, {0, 16}), (8192, {0, 16, 24})])
def test_a_large_vocabulary_gives_the_logits_24_bits_unless_told_otherwise(vocabulary, widths):
    model = Llama(LlamaConfig(vocabulary, 8, 1, 1, 1, 8, 8))

    chosen = lower_step(model, None, DATA, AdamW()).program
    told = lower_step(model, None, DATA, AdamW(), precision=Precision(logits=16)).program

    assert {t.type.bits for t in chosen.tensors} == widths
    assert {t.type.bits for t in told.tensors} == {0, 16}


def test_a_batch_of_numbers_is_an_activation_and_a_constant_is_a_weight():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3, bias=False)
            self.register_buffer("mixture", torch.ones(3, 3))

        def forward(self, x):
            return self.linear(x) @ self.mixture

    batch = torch.ones(2, 4), torch.zeros(2, dtype=torch.int64)

    joint = trace(Model(), nn.functional.cross_entropy, batch)

    roles = Roles(joint)
    found = [
        (roles.find(node, 0), roles.find(node, 1))
        for node in joint.graph.nodes
        if str(node.target) == "aten.mm.default"
    ]
    assert found == [
        ("activation", "weight"),
        ("activation", "weight"),
        ("logits", "weight"),
        ("gradient", "activation"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14", Precision(14, 14, 14, 14, 14)),
        ("logits=24", Precision(logits=24)),
        ("weight=8,attention=14", Precision(weight=8, attention=14)),
    ],
)
def test_a_line_of_bits_names_all_or_some_roles(text, expected):
    assert Precision.parse(text) == expected


@pytest.mark.parametrize("text", ["", "15", "bias=8", "weight", "weight=8,weight=8", "weight=-8"])
def test_another_line_of_bits_is_refused(text):
    with pytest.raises(UnsupportedOperator, match="bits"):
        Precision.parse(text)
