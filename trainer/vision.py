"""Plain classifiers of rows: a multilayer perceptron and a residual convolutional network.

Neither has a tensor that changes in the forward pass: norms are over groups, not over the batch."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.models import fill_uniform


@dataclass(frozen=True, slots=True)
class MlpConfig:
    """Sizes of an `Mlp`."""

    input_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    classes: int
    dropout: float = 0.0


class Mlp(nn.Sequential):
    """Linear layers with GELU and dropout between them; returns the scores of the classes."""

    def __init__(self, config: MlpConfig, seed: int = 0) -> None:
        sizes = (math.prod(config.input_shape), *config.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in zip(sizes, config.hidden, strict=False):
            layers += [nn.Linear(inputs, outputs), nn.GELU(), nn.Dropout(config.dropout)]
        super().__init__(*layers, nn.Linear(sizes[-1], config.classes))
        initialize_by_fan(self, seed)


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """Sizes of a `ResNet`; ``widths`` are the channels of its stages, all but the first of which halve."""

    input_shape: tuple[int, int, int]  # channels, height, width
    widths: tuple[int, ...]
    blocks: int  # of each stage
    classes: int
    groups: int = 8


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which a 1x1 convolution fits to another shape."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(groups, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(groups, outputs)
        is_same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity() if is_same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the next feature map."""
        y_NCHW = torch.relu(self.first_norm(self.first(x_NCHW)))
        y_NCHW = self.second_norm(self.second(y_NCHW))
        return torch.relu(y_NCHW + self.shortcut(x_NCHW))


class ResNet(nn.Module):
    """A residual network with GroupNorm in place of BatchNorm; returns the scores of the classes."""

    def __init__(self, config: ResNetConfig, seed: int = 0) -> None:
        super().__init__()
        first, groups = config.widths[0], config.groups
        self.stem = nn.Conv2d(config.input_shape[0], first, 3, 1, 1, bias=False)
        self.stem_norm = nn.GroupNorm(groups, first)
        blocks, inputs = [], first
        for stage, outputs in enumerate(config.widths):
            for number in range(config.blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(ResidualBlock(inputs, outputs, stride, groups))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, config.classes)
        initialize_by_fan(self, seed)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the scores of the classes, N C."""
        x_NCHW = torch.relu(self.stem_norm(self.stem(x_NCHW)))
        scores: Tensor = self.head(self.blocks(x_NCHW).mean((2, 3)))
        return scores


def initialize_by_fan(model: nn.Module, seed: int) -> None:
    """Fill matrices and kernels with uniform values of deviation sqrt(2 / fan in), and biases with 0."""
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if parameter.ndim >= 2:
            fan_in = parameter.numel() // parameter.shape[0]
            fill_uniform(parameter, math.sqrt(6 / fan_in), seed, index)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
