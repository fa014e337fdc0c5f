"""The building blocks."""

import torch

from lockforge.models._cell_blocks import CellBlock, ConvBN, FactorizedReduce
from lockforge.records import Op
from lockforge.spaces.cells import cell_of


def test_a_factorised_reduction_reads_even_pixels_and_odd_pixels() -> None:
    """With one weight each, the first half is x[0::2, 0::2], the second x[1::2, 1::2], zeros coming
    in at the end of odd sizes.
    """
    block = FactorizedReduce(1, 2).eval()
    with torch.no_grad():
        for conv in block.convs:
            conv.weight.fill_(1)
        block.bn.weight.fill_((1 + 1e-5) ** 0.5)
        x = torch.arange(1.0, 16.0).view(1, 1, 3, 5)
        even, odd = block(x)[0]
    torch.testing.assert_close(even, torch.tensor([[1.0, 3, 5], [11, 13, 15]]))
    torch.testing.assert_close(odd, torch.tensor([[7.0, 9, 0], [0, 0, 0]]))


def test_a_convolution_keeps_the_size_or_halves_it_upwards() -> None:
    """Stride 1 keeps 5 x 4; stride 2 makes 3 x 2 of it, for both kernels."""
    x = torch.zeros(2, 3, 5, 4)
    for kernel in (1, 3):
        assert ConvBN(3, 6, kernel, 1)(x).shape == (2, 6, 5, 4)
        assert ConvBN(3, 6, kernel, 2)(x).shape == (2, 6, 3, 2)


def test_pooling_averages_over_the_image_only() -> None:
    """The mean of a constant image is that constant up to its rim: padding is not counted."""
    cell = CellBlock(cell_of([Op.none, Op.none, Op.none, Op.pool3x3, Op.none, Op.none]), 2, 2, 1)
    assert cell(torch.full((1, 2, 4, 4), 7.0)).eq(7).all()


def test_skips_add_up() -> None:
    """Six skips: four paths from input to output, so the output is four times the input."""
    cell = CellBlock(cell_of([Op.skip] * 6), 2, 2, 1)
    x = torch.arange(32.0).view(1, 2, 4, 4)
    assert torch.equal(cell(x), 4 * x)


def test_a_convolution_of_zeros_is_the_bias_of_its_batch_norm() -> None:
    """0>1 none, 1>3 convolution: every pixel is the bias, and the input is not read."""
    cell = CellBlock(cell_of([Op.none, Op.none, Op.none, Op.none, Op.conv3x3, Op.none]), 2, 2, 1)
    bias = torch.tensor([0.5, -2.0])
    with torch.no_grad():
        cell.edges["4"].bn.bias.copy_(bias)
    assert torch.equal(
        cell(torch.full((3, 2, 4, 4), torch.nan)), bias.view(1, 2, 1, 1).expand(3, 2, 4, 4)
    )
