"""Each ATen rule, forward and backward, against float64 autograd.

The bound is the recipes' binary32 accuracy, which the oracle keeps; a wrong rule is off by far more."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from market.protocol.errors import UnsupportedOperator
from market.protocol.program import Kind, Op
from tests.trainer.lower.oracle import OPTIMIZER, find_errors
from trainer.lower.operators import OPERATORS
from trainer.lower.step import DataSpec, lower_step

BOUND = 2e-6
DATA = DataSpec(1000, 2, 4)


class Probe(nn.Module):
    """x_BTD from an embedding and a parameter w_ED through a function, weighted and summed."""

    def __init__(self, function):
        super().__init__()
        noise = np.random.default_rng(0)
        self.embedding = nn.Embedding(256, 6)
        self.w = nn.Parameter(torch.tensor(noise.normal(size=(5, 6)), dtype=torch.float32))
        with torch.no_grad():
            self.embedding.weight.copy_(torch.tensor(noise.normal(size=(256, 6))))
        self.function = function

    def forward(self, tokens, targets):
        y = self.function(self.embedding(tokens), self.w, targets)
        table = torch.linspace(-1, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
        return (y * table).sum()


def causal(x):
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()


FUNCTIONS = {
    "add alpha": lambda x, w, _: torch.add(x, w[0], alpha=3),
    "sub, rsub": lambda x, w, _: torch.rsub(x, w[1], alpha=2) - x * 0.3,
    "div": lambda x, w, _: x / (w[0].square() + 1) + 2 / (x.abs() + 1),
    "pow": lambda x, w, _: x.pow(3) + (x.pow(2) + 1).pow(0.5) + (w[0].pow(2) + 1).pow(-0.5),
    "exp log": lambda x, w, _: torch.log(torch.exp(x) + w[0].exp()),
    "sigmoid tanh": lambda x, w, _: torch.sigmoid(x) * torch.tanh(x + w[0]),
    "tanh": lambda x, w, _: torch.tanh(x * w[0]),
    "silu": lambda x, w, _: F.silu(x * w[0]),
    "gelu": lambda x, w, _: F.gelu(x * w[0]),
    "gelu tanh": lambda x, w, _: F.gelu(x * w[0], approximate="tanh"),
    "relu leaky": lambda x, w, _: F.relu(x * w[0]) + F.leaky_relu(x, 0.1),
    "softplus": lambda x, w, _: torch.logsumexp(torch.stack((x * w[0], x), 0), 0),
    "clamp": lambda x, w, _: x.clamp(-0.5, 0.7) + w[0].clamp(min=0.1) + w[1].clamp(max=0.2),
    "maximum": lambda x, w, _: torch.maximum(x, w[0]) + torch.minimum(x, w[1]),
    "abs neg sign": lambda x, w, _: x.abs() - (-x) * torch.sign(w[0]),
    "round floor": lambda x, _w, _: x * (x.round() + x.floor() + torch.ceil(x) + torch.trunc(x)),
    "where": lambda x, w, _: torch.where(x > w[0], x * 2, w[1]),
    "masks": lambda x, w, _: x.masked_fill((x < 0) & ~(w[0] > 0) | (x >= 2), 0.25),
    "integers": lambda x, _w, t: x * ((t // 7) * 2 - 1 > 10)[..., None].float(),
    "sum mean": lambda x, w, _: x.sum(1) + x.mean((0, 1)) + w.sum() + w.mean(0, keepdim=True),
    "var std": lambda x, w, _: x.var(-1) + x.var(1, keepdim=True, correction=0).sqrt()[..., 0] + w.var(),
    "amax": lambda x, w, _: x * w.amax() + x.amax(1, keepdim=True) - x.amin(-1, keepdim=True),
    "softmax": lambda x, w, _: torch.softmax(x * w[0], -1) + torch.softmax(x, 1),
    "log_softmax": lambda x, w, _: torch.log_softmax(x * w[0], 2),
    "layer norm": lambda x, w, _: F.layer_norm(x, (6,), w[0], w[1]) + F.layer_norm(x, (4, 6)),
    "group norm": lambda x, w, _: F.group_norm(x.transpose(1, 2), 2, w[0], w[1]).sum(2),
    "rms norm": lambda x, w, _: F.rms_norm(x, (6,), w[0], 1e-5),
    "linear": lambda x, w, _: F.linear(x, w, w[:, 0]),
    "linear 1d": lambda x, w, _: x[0, 0] @ w.t(),
    "bmm": lambda x, w, _: torch.bmm(x, x.transpose(1, 2)) @ (x * w[0]),
    "matmul broadcast": lambda x, w, _: x @ w.t() @ w,
    "einsum": lambda x, w, _: torch.einsum("btd,ed,bsd->bets", x, w, x),
    "outer": lambda x, w, _: torch.einsum("btd,bte->bde", x, x * w[0]),
    "attention": lambda x, w, _: F.scaled_dot_product_attention(
        x.view(2, 4, 2, 3).transpose(1, 2) * w[0, 0],
        x.view(2, 4, 2, 3).transpose(1, 2),
        x.view(2, 4, 2, 3).transpose(1, 2),
        is_causal=True,
    ),
    "permuted rows": lambda x, w, _: (
        x.view(2, 4, 2, 3).permute(0, 2, 1, 3).reshape(4, 12) @ x.new_ones(12, 2) * w.sum()
    ),
    "views": lambda x, w, _: x.transpose(0, 1).flatten(1)[:, 1:11:2] * w[:, None, 0].t() + x[1, :, :5],
    "select step": lambda x, w, _: x[:, ::2, 1] * w[0, ::3] + x[:, 1:3, -1],
    "chunks": lambda x, w, _: torch.cat(
        [p * q for p, q in zip(x.chunk(3, -1), w[0].split(2), strict=True)], -1
    ),
    "rotate half": lambda x, w, _: torch.cat((-x[..., 3:], x[..., :3]), -1) * w[0] + x * w[1],
    "cat uneven": lambda x, w, _: torch.cat((x, x[:, :1] * w[0]), 1).transpose(1, 2).reshape(2, 30),
    "stack repeat": lambda x, w, _: torch.stack((x, x * w[0]), 2).repeat(1, 2, 1, 1),
    "pad": lambda x, w, _: F.pad(x * w[0], (1, 2, 0, 1), value=0.5),
    "in place": lambda x, w, _: _write_in_place(x * w[0]),
    "embedding twice": lambda x, w, t: x + F.embedding(t, torch.cat([w] * 52)),
    "index": lambda x, w, t: x + w[t // 52] + w.index_select(0, (t // 60).flatten()).view(2, 4, 6),
    "gather": lambda x, w, t: torch.gather(x, 2, (t // 43)[..., None]) * w[0, 0],
    "cross entropy": lambda x, w, t: F.cross_entropy((x @ w.t()).flatten(0, 1), (t // 52).flatten()),
    "cross entropy ignoring": lambda x, w, t: F.cross_entropy(
        (x @ w.t()).flatten(0, 1), torch.where(t < 128, t // 52, -100).flatten()
    ),
    "expanded heads": lambda x, w, _: (
        x.view(2, 4, 3, 1, 2).expand(2, 4, 3, 2, 2).reshape(2, 4, 12) * w[0].repeat(2)
    ),
    "masked attention": lambda x, w, _: torch.softmax(
        (x @ x.mT * w[0, 0]).masked_fill(~causal(x), float("-inf")), -1
    ) @ x,
    "additive mask": lambda x, w, _: torch.softmax(
        x @ x.mT + torch.full((4, 4), float("-inf")).triu(1), -1
    ) @ (x * w[0]),
    "token sums": lambda x, _w, t: x * (t.sum(1, keepdim=True) + (t > 99).sum(0))[..., None].float() / 500,
    "integer index": lambda x, w, t: x * torch.index_select(t[0], 0, t[1] // 64).float()[:, None] + w[0],
    "conv": lambda x, w, _: F.conv2d(image(x), kernel(w, 4, 3, 3, 3)),
    "conv strided": lambda x, w, _: F.conv2d(
        image(x), kernel(w, 4, 3, 3, 3), w[:4, 1], stride=2, padding=1
    ),
    "conv padded more than it reaches": lambda x, w, _: F.conv2d(
        image(x), kernel(w, 3, 3, 2, 2), stride=(1, 2), padding=(3, 2)
    ),
    "conv dilated": lambda x, w, _: F.conv2d(
        image(x), kernel(w, 3, 3, 2, 2), stride=3, padding=2, dilation=3
    ),
    "conv of points": lambda x, w, _: F.conv2d(image(x), kernel(w, 2, 3, 1, 1), stride=2),
    "conv of patches": lambda x, w, _: F.conv2d(image(x), kernel(w, 5, 3, 2, 2), stride=2),
    "conv 1d": lambda x, w, _: F.conv1d(x, kernel(w, 2, 4, 3), w[:2, 0], padding=1),
    "avg pool": lambda x, w, _: F.avg_pool2d(image(x), 2) + F.avg_pool2d(image(x * w[0]), 3, 2, 1),
    "avg pool adaptive": lambda x, w, _: (
        F.adaptive_avg_pool2d(image(x), 2) + F.adaptive_avg_pool2d(image(x * w[0]), 1)
    ),
    "max pool": lambda x, w, _: F.max_pool2d(image(x), 2) + F.max_pool2d(image(x * w[0]), 3, 2, 1),
    "max pool dilated": lambda x, _w, _t: F.max_pool2d(image(x), 2, 1, 1, 2),
    "conv in groups": lambda x, w, _: F.conv2d(
        torch.cat((image(x), image(x * w[0])), 1), kernel(w, 4, 3, 2, 2), padding=1, groups=2
    ),
    "conv of each channel": lambda x, w, _: F.conv2d(image(x), kernel(w, 3, 1, 2, 2), groups=3),
    "conv 3d": lambda x, w, _: F.conv3d(
        x.reshape(2, 1, 2, 3, 4), kernel(w, 2, 1, 2, 2, 3), padding=1
    ),
    "elu softplus": lambda x, w, _: F.elu(x * w[0]) + F.softplus(x) + F.mish(x * w[1]),
    "norms": lambda x, w, _: F.normalize(x * w[0], dim=-1) + F.instance_norm(x.mT * w[1, 0]).mT,
    "max of an axis": lambda x, w, _: (x * w[0]).max(1)[0] + (x * w[1]).min(1)[0] + x.max() * w[2],
    "argmax": lambda x, w, _: x * (x * 2).argmax(-1, keepdim=True) + w[0] * x.argmin(),
    "remainder": lambda x, w, t: x * (t % 7)[..., None].to(x.dtype) * w[0],
    "index of two axes": lambda x, w, t: (
        w[t // 52 - 4, t // 43 - 5][..., None] * x[:, torch.tensor([[1], [-2]]), torch.arange(2)].sum()
    ),
    "index from the end": lambda x, w, t: x * w[t // 52 - 5] + w[torch.tensor([-1, 0, -3, 2])],
    "upsample": lambda x, w, _: F.interpolate(image(x * w[0]), scale_factor=2)
    + F.interpolate(image(x), scale_factor=2, mode="bilinear"),
    "pad by reflection": lambda x, w, _: F.pad(image(x * w[0]), (1, 1, 2, 0), mode="reflect"),
    "flip": lambda x, w, _: x.flip(1, 2) * w[0],
    "smoothed labels": lambda x, w, t: F.cross_entropy(
        (x @ w.t()).flatten(0, 1), (t // 52).flatten(), label_smoothing=0.1
    ),
    "smoothed labels ignoring": lambda x, w, t: F.cross_entropy(
        (x @ w.t()).flatten(0, 1),
        torch.where(t < 128, t // 52, -100).flatten(),
        label_smoothing=0.1,
    ),
    "cat nothing": lambda x, w, _: torch.cat((x[:, :0], x * w[0]), 1),
    "mse": lambda x, w, _: F.mse_loss(x, x.detach() * 0.5 + w[0]),
}  # fmt: skip


def image(x):
    return torch.cat([x, x * 0.5 + x.square() * 2], 1).reshape(2, 3, 4, 4)


def kernel(w, *shape):
    return w.flatten().repeat(4)[: math.prod(shape)].reshape(shape)


def _write_in_place(y):
    z = y.clone()
    z[:, 1:3] = y[:, :2] * 2
    z[:, 0] += 1
    return z


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operator_and_its_gradient_are_those_of_autograd(name):
    errors = find_errors(Probe(FUNCTIONS[name]), data=DATA)

    assert max(errors.values()) < BOUND, errors


def test_alpha_is_a_product_then_a_sum():
    program = lower_step(Probe(FUNCTIONS["add alpha"]), None, DATA, OPTIMIZER).program

    codes = [[op[0] for op in i.code] for i in program.instructions if i.kind is Kind.MAP]

    assert any(code[:2] == [Op.MUL, Op.ADD] for code in codes)


def test_an_operator_without_a_rule_is_named_with_its_module_and_the_table():
    class Inner(nn.Module):
        def forward(self, x):
            return torch.cumsum(x, 1)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(256, 6)
            self.mixers = nn.ModuleList([Inner()])

        def forward(self, tokens, _targets):
            return self.mixers[0](self.embedding(tokens)).sum()

    with pytest.raises(UnsupportedOperator) as caught:
        lower_step(Outer(), None, DATA, OPTIMIZER)

    message = str(caught.value)
    assert "aten.cumsum.default" in message
    assert "in mixers.0 (Inner): return torch.cumsum(x, 1)" in message
    assert ", ".join(sorted(OPERATORS)) in message


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, _w, _t: x.abs().pow(2.5), "the exponent 2.5"),
        (lambda x, _w, _t: x.double(), "float64"),
        (lambda x, _w, _t: x * torch.randn(6), r"aten.randn.default .* has no lowering"),
        (lambda x, _w, _t: x if x.sum() > 0 else -x, "control flow that depends on data, in the m"),
        (lambda x, _w, _t: x * float(x.sum()), "control flow that depends on data"),
        (lambda x, _w, _t: x * torch.from_numpy(x.detach().numpy()), "torch cannot trace .*numpy"),
        (
            lambda x, w, _t: x[x > 0].sum() * w[0],
            "a mask, or indices along axes that are not neighbours",
        ),
        (lambda x, _w, t: x[t[0] // 128, :, t[0] // 43], "axes that are not neighbours"),
        (lambda x, _w, _t: torch.linalg.svdvals(x), r"aten._linalg_svd.default in the model"),
        (lambda x, _w, _t: torch.fft.rfft(x).abs(), r"aten._fft_r2c.default in the model"),
        (lambda x, _w, _t: torch.sort(x)[0], r"aten.sort.default in the model"),
        (
            lambda x, _w, _t: torch.igamma(x.abs(), x),
            "torch cannot differentiate it: the derivative",
        ),
        (lambda x, w, _t: F.conv_transpose2d(image(x), kernel(w, 3, 1, 2, 2)), "a transposed conv"),
        (lambda x, _w, _t: torch.remainder(x, 2.0), "a remainder other than of integers"),
        (lambda x, _w, _t: F.max_pool2d(image(x), 3, ceil_mode=True), "ceil_mode"),
        (lambda x, _w, _t: F.adaptive_avg_pool2d(image(x), 3), "windows of different sizes"),
        (
            lambda x, _w, _t: (
                x.flatten()[None].expand(2000, 48).reshape(-1, 1).mT @ x.new_ones(96000, 1)
            ),
            "aten.mm.default in the model .* a contraction of 96000 terms: at most 65536",
        ),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(function, reason):
    with pytest.raises(UnsupportedOperator, match=reason):
        lower_step(Probe(function), None, DATA, OPTIMIZER)


class Counter(nn.Module):
    """Changes a buffer in the forward pass: in place, or by putting another in its place."""

    def __init__(self, is_in_place):
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))
        self.is_in_place = is_in_place

    def forward(self, x):
        if self.is_in_place:
            self.seen += x.detach().mean((0, 1))
        else:
            self.seen = self.seen + x.detach().mean((0, 1))
        return x * self.seen


@pytest.mark.parametrize("is_in_place", [True, False])
def test_a_buffer_that_the_forward_pass_changes_is_refused(is_in_place):
    counter = Counter(is_in_place)
    model = Probe(lambda x, _w, _t: counter(x))
    model.counter = counter

    with pytest.raises(UnsupportedOperator, match=r"changes its counter\.seen in the forward pass"):
        lower_step(model, None, DATA, OPTIMIZER)


class Sort(nn.Module):
    def forward(self, x):
        return torch.sort(x)[0]


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (Sort(), r"aten.sort.default in 1.0 \(Sort\): return torch.sort"),
        (Counter(is_in_place=True), r"changes its 1.0.seen in"),
        (Counter(is_in_place=False), r"changes its 1.0.seen in"),
    ],
)
def test_the_paths_of_a_model_with_a_loss_are_its_own(inner, reason):
    model = nn.Sequential(nn.Embedding(256, 6), nn.Sequential(inner))

    with pytest.raises(UnsupportedOperator, match=reason):
        lower_step(model, lambda y, t: (y * t[..., None]).sum(), DATA, OPTIMIZER)


def test_a_model_that_trains_nothing_is_refused():
    model = Probe(FUNCTIONS["mse"]).requires_grad_(requires_grad=False)

    with pytest.raises(UnsupportedOperator, match="no parameter that is trained"):
        lower_step(model, None, DATA, OPTIMIZER)


def test_batch_norm_is_refused_because_its_buffers_change():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(256, 6)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, tokens, _targets):
            return self.norm(self.embedding(tokens)).sum()

    with pytest.raises(UnsupportedOperator, match=r"norm.running_mean.*BatchNorm"):
        lower_step(Model(), None, DATA, OPTIMIZER)
