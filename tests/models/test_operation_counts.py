"""Operations of named networks: published figures, closed forms, and the convention of the cell
networks.
"""

import pytest
import torch
from torch import nn

from lockforge.models._named import NamedNetwork
from lockforge.models._operation_counts import operations
from lockforge.models.networks import CellNetwork, flops
from lockforge.records import NamedArchitecture, Op
from lockforge.spaces import counts, nasbench201
from lockforge.spaces.cells import cell_of

PUBLISHED = {
    "resnet18": 1.814,
    "resnet34": 3.664,
    "resnet50": 4.089,
    "vgg11_bn": 7.609,
    "vgg13_bn": 11.308,
    "mobilenet_v2": 0.301,
    "mobilenet_v3_small": 0.057,
    "mobilenet_v3_large": 0.217,
}  # torchvision's table of weights, 10^9 multiply-adds at 224 pixels


def at_224(name: str) -> dict[str, int]:
    """The operations of a network with 1,000 classes on an image of 224 pixels."""
    with torch.device("meta"):
        return operations(
            NamedNetwork(NamedArchitecture(name=name, classes=1000, shape=(3, 224, 224))).eval(),
            (3, 224, 224),
        )


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_multiply_adds_are_the_published_ones(name: str, billions: float) -> None:
    """Convolutions and linear layers together, to the three decimals that torchvision gives."""
    found = at_224(name)
    assert round((found["conv2d"] + found["linear"]) / 1e9, 3) == billions


def test_resnet18_at_224_pixels_operation_by_operation() -> None:
    """Each kind worked out by hand from table 1 of He et al. 2016; all of them are `flops`."""
    maps = (64 * 112**2, 64 * 56**2, 128 * 28**2, 256 * 14**2, 512 * 7**2)
    found = at_224("resnet18")
    assert found["conv2d"] + found["linear"] == 1_814_073_344
    assert found["norms"] == 2 * (maps[0] + sum(4 * size for size in maps[1:]) + sum(maps[2:]))
    assert found["activations"] == maps[0] + sum(4 * size for size in maps[1:])
    assert found["max_pool2d"] == 9 * maps[1]
    assert found["mean"] == 512 * 64
    architecture = NamedArchitecture(name="resnet18", classes=1000, shape=(3, 224, 224))
    assert flops(architecture) == sum(found.values())
    assert set(found) == {"conv2d", "linear", "norms", "activations", "max_pool2d", "mean"}


@pytest.mark.parametrize(
    "cell",
    [cell_of([Op.skip] * 6), cell_of([Op.skip, Op.none, Op.skip, Op.none, Op.none, Op.conv3x3])],
)
def test_cell_networks_cost_what_their_formula_says(cell: object) -> None:
    """The same convention as `counts`: where no ReLU is shared and no edge is dead, both ways give
    one number.
    """
    # a parameter of the test
    architecture = nasbench201.published(10, (3, 32, 32), cell)  # type: ignore[arg-type]
    with torch.device("meta"):
        found = operations(CellNetwork(architecture).eval(), architecture.shape)
    assert sum(found.values()) == counts.flops(architecture)


def test_attention_is_two_products_and_a_softmax() -> None:
    """Three heads of 64 over 65 tokens: q k^T and its product with v take 2 x 65^2 x 192, the
    softmax 3 x 65^2, twelve times.
    """
    with torch.device("meta"):
        found = operations(
            NamedNetwork(
                NamedArchitecture(name="vit_tiny-cifar", classes=10, shape=(3, 32, 32))
            ).eval(),
            (3, 32, 32),
        )
    assert found["scaled_dot_product_attention"] == 12 * (2 * 65**2 * 192 + 3 * 65**2)
    assert found["linear"] == 12 * 65 * 12 * 192**2 + 192 * 10
    assert found["conv2d"] == 64 * 192 * 48


def test_a_grouped_convolution_counts_its_own_channels() -> None:
    """8 channels, each filtered by itself with 3 x 3: 9 multiply-adds a value; relu6 and pooling
    count too.
    """
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6(), nn.AdaptiveAvgPool2d(2)
    ).to("meta")
    assert operations(network, (8, 6, 6)) == {
        "conv2d": 8 * 36 * 9,
        "activations": 8 * 36,
        "adaptive_avg_pool2d": 8 * 36,
    }
