"""Rules of convolutions: contractions over windows.

Each of a convolution's three products (output, gradient of the input, gradient of the weight) copies its
windows into rows, which are then quantized like those of any matrix."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from market.protocol.constants import MAX_DOT_LENGTH
from trainer.lower import instructions
from trainer.lower.layout import Layout, simplify
from trainer.lower.lowering import Lowering, Rules
from trainer.lower.values import Lazy, Shape, Value, permute
from trainer.lower.windows import Window, unfold, unfold_back

RULES: Final = Rules()


@dataclass(frozen=True, slots=True)
class _Geometry:
    window: Window
    groups: int

    @property
    def spatial(self) -> int:
        """The number of spatial axes."""
        return len(self.window.sizes)


def _read_geometry(to: Lowering, weight: Value, *options: Any) -> _Geometry:
    stride, padding, dilation, is_transposed, _output_padding, groups = options
    if is_transposed:
        raise to.unsupported("a transposed convolution")
    sizes = weight.shape[2:]

    def widen(numbers: Sequence[int]) -> tuple[int, ...]:
        return tuple(numbers) if len(numbers) == len(sizes) else tuple(numbers) * len(sizes)

    return _Geometry(Window(sizes, widen(stride), widen(padding), widen(dilation)), groups)


@RULES.register("convolution")
def _convolution(to: Lowering, x: Any, weight: Any, bias: Any, *options: Any) -> Value:
    image, kernel = to.cast(x, "f"), to.cast(weight, "f")
    geometry = _read_geometry(to, kernel, *options)
    rows = unfold(to.builder, image, geometry.window)
    grouped = _group_kernel(to, kernel, geometry.groups)
    out = _contract_windows(to, rows, grouped, (to.find_bits(0), to.find_bits(1)))
    if bias is None:
        return out
    wide = to.builder.reshape(to.cast(bias, "f"), (kernel.shape[0], *(1,) * geometry.spatial))
    return to.builder.map(lambda a, b: a + b, out, wide)


def _group_kernel(to: Lowering, kernel: Value, groups: int) -> Lazy:
    outputs, *rest = kernel.shape
    return to.builder.reshape(kernel, (groups, outputs // groups, *rest))


def _contract_windows(to: Lowering, rows: Lazy, kernel: Value, bits: tuple[int, int]) -> Value:
    """Return [N, G O, positions..]: [N, G C, positions.., window..] times [G, O, C, window..]."""
    groups, outputs, inputs, *sizes = kernel.shape
    spatial, batch = len(sizes), rows.shape[0]
    positions = rows.shape[2 : 2 + spatial]
    count, length = math.prod(positions), inputs * math.prod(sizes)
    split = to.builder.reshape(rows, (batch, groups, inputs, *rows.shape[2:]))
    order = [1, 0, *range(3, 3 + spatial), 2, *range(3 + spatial, 3 + 2 * spatial)]
    left = to.builder.reshape(permute(split, order), (groups, batch * count, length))
    right = to.builder.reshape(kernel, (groups, outputs, length))
    lines = simplify(((batch, groups * outputs * count), (count, 1)))
    place = Layout((((groups, outputs * count),), lines, ((outputs, count),)))
    product = instructions.dot(to.builder, left, right, batch=1, bits=bits, out=place)
    apart = to.builder.reshape(product, (groups, batch, count, outputs))
    channels_first = permute(apart, [1, 0, 3, 2])
    return to.builder.reshape(channels_first, (batch, groups * outputs, *positions))


@RULES.register("convolution_backward")
def _convolution_backward(
    to: Lowering, gradient: Any, x: Any, weight: Any, _bias: Any, *rest: Any
) -> tuple[Value | None, ...]:
    *options, wanted = rest
    flow, image, kernel = (to.cast(item, "f") for item in (gradient, x, weight))
    geometry = _read_geometry(to, kernel, *options)
    flow = to.builder.store(flow)
    return (
        _differentiate_input(to, flow, image.shape[2:], kernel, geometry) if wanted[0] else None,
        _differentiate_kernel(to, flow, image, geometry) if wanted[1] else None,
        _sum_channels(to, flow) if wanted[2] else None,
    )


def _differentiate_input(
    to: Lowering, flow: Value, sizes: Shape, kernel: Value, geometry: _Geometry
) -> Value:
    rows = unfold_back(to.builder, flow, geometry.window, sizes)
    turned = _group_kernel(to, _reverse_windows(to, kernel), geometry.groups)
    swapped = permute(turned, [0, 2, 1, *range(3, 3 + geometry.spatial)])
    return _contract_windows(to, rows, swapped, (to.find_bits(0), to.find_bits(2)))


def _reverse_windows(to: Lowering, kernel: Value) -> Value:
    """Return the kernel with its elements in each window in reverse order."""
    outputs, inputs, *sizes = kernel.shape
    count = math.prod(sizes)
    flat = to.builder.reshape(kernel, (outputs, inputs, count))
    index = to.builder.reshape(instructions.iota(to.builder, count, count - 1, -1), (1, 1, count))
    turned = instructions.gather(to.builder, index, flat, 2)
    return to.builder.reshape(turned, kernel.shape)


def _differentiate_kernel(to: Lowering, flow: Value, image: Value, geometry: _Geometry) -> Value:
    """Return [G O, C, window..]: over samples and positions, in parts where these are too many."""
    rows, groups = unfold(to.builder, image, geometry.window), geometry.groups
    batch, count = flow.shape[0], math.prod(flow.shape[2:])
    parts = next((n for n in range(1, batch + 1) if _fits(batch, n, count)), None)
    if parts is None:
        raise to.unsupported(f"{count} positions of a window: at most {MAX_DOT_LENGTH}")
    outputs, inputs = flow.shape[1] // groups, image.shape[1] // groups
    sizes = geometry.window.sizes

    def divide(value: Value, channels: int, trailing: int) -> Value:
        """Return [parts, G, channels and the ``trailing`` axes, samples and positions]."""
        shape = (parts, batch // parts, groups, channels, *value.shape[2:])
        rank = len(shape)
        last = list(range(rank - trailing, rank))
        order = [0, 2, 3, *last, 1, *range(4, rank - trailing)]
        moved = permute(to.builder.reshape(value, shape), order)
        lines = channels * math.prod(shape[rank - trailing :])
        return to.builder.reshape(moved, (parts, groups, lines, batch // parts * count))

    left, right = divide(flow, outputs, 0), divide(rows, inputs, geometry.spatial)
    bits = to.find_bits(0), to.find_bits(1)
    product: Value = instructions.dot(to.builder, left, right, batch=2, bits=bits)
    if parts > 1:
        product = instructions.reduce_sum(to.builder, product, [0])
    return to.builder.reshape(product, (groups * outputs, inputs, *sizes))


def _fits(batch: int, parts: int, count: int) -> bool:
    return batch % parts == 0 and batch // parts * count <= MAX_DOT_LENGTH


def _sum_channels(to: Lowering, flow: Value) -> Value:
    axes = [0, *range(2, len(flow.shape))]
    return to.builder.reshape(instructions.reduce_sum(to.builder, flow, axes), (flow.shape[1],))
