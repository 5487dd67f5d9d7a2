"""A Llama-style decoder as an ordinary module: what a requester might bring to `lower`.

Initial weights come from Philox words by exact means, so a preset names the same bits everywhere."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from trainer.exact.torch_ops import run_random

_INIT_STREAM: Final = 1  # c3 of the initial weights; a job's data order has c3 = 0


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The sizes of a decoder; ``length`` is the longest context, ``tied`` shares embedding and head."""

    vocab: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    d_ff: int
    length: int
    tied: bool = False

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.d_model // self.heads


PRESETS: Final = {
    "demo": LlamaConfig(256, 128, 4, 4, 2, 480, 128),  # 1,000,576 parameters, byte-level
    "tiny": LlamaConfig(256, 32, 2, 4, 2, 64, 16),
}


class RMSNorm(nn.Module):
    """Divide rows by their root mean square and scale each channel."""

    def __init__(self, size: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return the normalized rows, same shape."""
        scale = torch.rsqrt(x_BTD.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return x_BTD * scale * self.weight


class Attention(nn.Module):
    """Causal attention with rotary positions and grouped key-value heads."""

    causal: Tensor

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        kv_size = config.kv_heads * config.head_size
        self.config = config
        self.q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.k = nn.Linear(config.d_model, kv_size, bias=False)
        self.v = nn.Linear(config.d_model, kv_size, bias=False)
        self.o = nn.Linear(config.d_model, config.d_model, bias=False)
        causal = torch.ones(config.length, config.length, dtype=torch.bool).tril()
        self.register_buffer("causal", causal, persistent=False)

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return what each position reads from itself and those before it, B T D."""
        batch, length, _ = x_BTD.shape
        heads, kv_heads, size = self.config.heads, self.config.kv_heads, self.config.head_size
        q = self.q(x_BTD).view(batch, length, heads, size)
        k = self.k(x_BTD).view(batch, length, kv_heads, size)
        v = self.v(x_BTD).view(batch, length, kv_heads, size)
        q, k = rotate(q, cos_TE, sin_TE), rotate(k, cos_TE, sin_TE)
        k, v = (_repeat_heads(x, heads // kv_heads) for x in (k, v))
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) * (1 / math.sqrt(size))
        scores = scores.masked_fill(~self.causal[:length, :length], float("-inf"))
        mixed = scores.softmax(-1) @ v.transpose(1, 2)
        out: Tensor = self.o(mixed.transpose(1, 2).reshape(batch, length, heads * size))
        return out


def _repeat_heads(x_BTHE: Tensor, times: int) -> Tensor:
    batch, length, heads, size = x_BTHE.shape
    grouped = x_BTHE[:, :, :, None, :].expand(batch, length, heads, times, size)
    return grouped.reshape(batch, length, heads * times, size)


def rotate(x_BTHE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Turn each pair of channels (i, i + E/2) by its position's angle."""
    cos, sin = cos_TE[:, None, :], sin_TE[:, None, :]
    left, right = x_BTHE.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


class Block(nn.Module):
    """One decoder layer: attention and a gated feed-forward, each on normalized rows."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.d_model)
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Return the next residual stream, B T D."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), cos_TE, sin_TE)
        y_BTD = self.mlp_norm(x_BTD)
        out: Tensor = x_BTD + self.down(nn.functional.silu(self.gate(y_BTD)) * self.up(y_BTD))
        return out


class Llama(nn.Module):
    """A decoder whose forward pass is the mean cross-entropy of the next token."""

    cos_TE: Tensor
    sin_TE: Tensor

    def __init__(self, config: LlamaConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        for name, table in zip(("cos_TE", "sin_TE"), _rotary_tables(config), strict=True):
            self.register_buffer(name, table, persistent=False)
        initialize(self, seed, config.layers)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        """Return the scores of every next token, B T V."""
        length = tokens_BT.shape[1]
        x_BTD = self.embedding(tokens_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, self.cos_TE[:length], self.sin_TE[:length])
        scores: Tensor = self.head(self.norm(x_BTD))
        return scores

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Return the mean loss over all positions, a scalar."""
        logits = self.logits(tokens_BT)
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())


def _rotary_tables(config: LlamaConfig) -> tuple[Tensor, Tensor]:
    half = config.head_size // 2
    angles = [[t * 10000.0 ** (-i / half) for i in range(half)] for t in range(config.length)]
    cos = torch.tensor([[math.cos(a) for a in row] for row in angles])
    sin = torch.tensor([[math.sin(a) for a in row] for row in angles])
    return cos, sin


def initialize(model: nn.Module, seed: int, layers: int) -> None:
    """Fill every matrix with uniform values of deviation 1/sqrt(fan in); vectors stay as they are.

    What writes to the residual stream (`o`, `down`) is divided by sqrt(2 ``layers``)."""
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.ndim < 2:
            continue
        bound = math.sqrt(3 / parameter.shape[-1])
        if name.endswith(("o.weight", "down.weight")):
            bound /= math.sqrt(2 * layers)
        fill_uniform(parameter, bound, seed, index)


def fill_uniform(parameter: Tensor, bound: float, seed: int, index: int, part: int = 0) -> None:
    """Fill a parameter with values between -``bound`` and ``bound``: words ``index`` of ``part``."""
    words = torch.empty(parameter.numel(), dtype=torch.int64)
    run_random(seed, index, part, _INIT_STREAM, words)
    centered = (2 * words + 1 - 2**32).to(torch.float64)
    values = (centered * (bound * 2.0**-32)).to(torch.float32)
    with torch.no_grad():
        parameter.copy_(values.view(parameter.shape))


def generate(
    model: Llama, prompt: bytes, count: int, temperature: float = 0.0, seed: int = 0
) -> bytes:
    """Return ``count`` bytes that continue a nonempty ``prompt``; temperature 0 takes the likeliest."""
    tokens = list(prompt)
    noise = torch.Generator().manual_seed(seed)
    for _ in range(count):
        context = torch.tensor([tokens[-model.config.length :]])
        with torch.no_grad():
            scores = model.logits(context)[0, -1]
        if temperature > 0:
            chances = torch.softmax(scores / temperature, -1)
            tokens.append(int(torch.multinomial(chances, 1, generator=noise)))
        else:
            tokens.append(int(scores.argmax()))
    return bytes(tokens[len(prompt) :])
