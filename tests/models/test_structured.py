"""Filters leave a network: the function of silent filters exactly, constants kept where they can
be, a smaller network to store.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from lockforge.errors import IntegrityError, RecipeError
from lockforge.models import _mobilenet_v3 as mobilenet_v3
from lockforge.models import _vgg as vgg
from lockforge.models import _vit as vit
from lockforge.models import backbones
from lockforge.models._filters import Group, groups_of
from lockforge.models._named import NAMES, NamedNetwork
from lockforge.models.networks import build, flops, load, parameters, state
from lockforge.models.structured import (
    choose_filters,
    dead_filters,
    remove_filters,
    share_for,
    silence_filters,
)
from lockforge.records import NamedArchitecture
from lockforge.spaces.cells import Op, cell_of
from tests.network_fixtures import Make

FAMILIES = (
    "resnet18-cifar",
    "resnet50-cifar",
    "resnet20-cifar",
    "vgg11_bn-cifar",
    "vgg11_bn",
    "mobilenet_v2-cifar",
    "mobilenet_v3_small-cifar",
    "vit_tiny-cifar",
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same layers, fewer and narrower: one residual block, 4 to 12 channels in a VGG, two
    blocks of a transformer.
    """
    monkeypatch.setattr(backbones, "RESNETS", dict.fromkeys(backbones.RESNETS, (1, 0, 0, 0)))
    monkeypatch.setattr(backbones, "INVERTED", ((1, 16, 1, 1), (6, 24, 2, 2)))
    monkeypatch.setattr(
        mobilenet_v3, "TABLES", {"mobilenet_v3_small": (mobilenet_v3.SMALL[:6], 40)}
    )
    monkeypatch.setattr(vgg, "WIDTHS", (4, 6, 8, 10, 12))
    monkeypatch.setattr(vgg, "HIDDEN", 20)
    monkeypatch.setattr(vit, "SIZES", {"vit_tiny": (12, 3)})
    monkeypatch.setattr(vit, "DEPTH", 2)


def lively(name: str, generator: torch.Generator, *, side: int = 8) -> NamedNetwork:
    """A network in double precision whose biases, norms and statistics all differ from their first
    values.
    """
    network = (
        build(NamedArchitecture(name=name, classes=5, shape=(3, side, side)), generator)
        .double()
        .eval()
    )
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.5),
                    (module.running_var, 0.5, 2),
                    (module.bias, -0.5, 1),
                    (module.running_mean, -1, 1),
                ):
                    tensor.uniform_(low, high, generator=generator)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.uniform_(-0.5, 1, generator=generator)
    return network


def images(generator: torch.Generator, side: int = 8) -> Tensor:
    """Four of them."""
    return torch.randn(4, 3, side, side, generator=generator, dtype=torch.float64)


def answers(network: nn.Module, x: Tensor, *, training: bool = False) -> Tensor:
    """The logits."""
    with torch.no_grad():
        logits: Tensor = network.train(training)(x)
    network.eval()
    return logits


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_smaller_network_is_the_one_with_silent_filters(
    name: str, generator: torch.Generator
) -> None:
    """In eval and in training mode, to rounding in double precision; the network that was given is
    another one and stays as it was.
    """
    network, x = lively(name, generator), images(generator)
    before, kept = answers(network, x), state(network)
    chosen = choose_filters(network, 0.5)
    silent, small = silence_filters(network, chosen), remove_filters(network, chosen)
    assert far(answers(small, x), answers(silent, x)) < 1e-10
    assert far(answers(small, x, training=True), answers(silent, x, training=True)) < 1e-10
    assert far(answers(small, x), before) > 1e-3
    assert all(torch.equal(tensor, kept[key]) for key, tensor in state(network).items())
    assert small.architecture.widths == tuple(
        sorted((name, group.channels) for name, group in groups_of(small, small.head).items())
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_smaller_network_is_stored_and_built_again(name: str, generator: torch.Generator) -> None:
    """Its record as JSON and its tensors give the same logits; parameters and operations are its
    own; all its weights can be trained.
    """
    network, x = lively(name, generator), images(generator).float()
    small = remove_filters(network, choose_filters(network, 0.5)).float()
    architecture = NamedArchitecture.from_json(small.architecture.to_json())
    again = load(architecture, state(small))
    assert torch.equal(answers(again, x), answers(small, x))
    assert (
        parameters(architecture)
        == sum(weight.numel() for weight in small.parameters())
        < parameters(network.architecture)
    )
    assert flops(architecture) < flops(network.architecture)
    fresh = build(architecture, generator)
    fresh(x).square().sum().backward()
    assert all(weight.grad is not None and weight.is_leaf for weight in fresh.parameters())
    assert {key: tensor.shape for key, tensor in state(fresh).items()} == {
        key: tensor.shape for key, tensor in state(small).items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_filters_without_weights_go_and_take_nothing_along(
    name: str, generator: torch.Generator
) -> None:
    """Every third filter is all zero: `dead_filters` finds nothing else, and what it finds changes
    no logit.
    """
    network, x = lively(name, generator), images(generator)
    zeroed = {}
    with torch.no_grad():
        for key, group in groups_of(network, network.head).items():
            zeroed[key] = set(range(0, group.channels, 3))
            for step in group.steps:
                step.layer.weight[::3] = 0
    dead = dead_filters(network)
    assert dead
    assert all(set(places) <= zeroed[key] for key, places in dead.items())
    small = remove_filters(network, dead)
    assert far(answers(small, x), answers(network, x)) < 1e-10
    assert parameters(small.architecture) < parameters(network.architecture)


def test_a_constant_is_kept_before_a_1x1_convolution_and_not_before_a_padded_one(
    generator: torch.Generator,
) -> None:
    """Filters without weights, positive behind the norm: the 3x3 reads its padding too, so only its
    reader's channels can go, exactly.
    """
    network, x = lively("resnet50-cifar", generator), images(generator)
    block = network.body.get_submodule("layer1.0")
    assert isinstance(block, backbones.Bottleneck)
    with torch.no_grad():
        for conv, norm in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
            conv.weight[:2] = 0
            norm.bias[0], norm.running_mean[0] = 1, 0
            norm.bias[1], norm.running_mean[1] = -1, 0
    assert dead_filters(network) == {"body.layer1.0.conv1": (1,), "body.layer1.0.conv2": (0, 1)}
    moved = silence_filters(network, {"body.layer1.0.conv2": (0,)})
    assert far(answers(moved, x), answers(network, x)) < 1e-10
    lost = silence_filters(network, {"body.layer1.0.conv1": (0,)})
    assert far(answers(lost, x), answers(network, x)) > 1e-4


def test_a_factor_of_the_image_keeps_its_constant(generator: torch.Generator) -> None:
    """Behind squeeze and excite a constant differs from image to image: only channels that are
    zero can go.
    """
    network, x = lively("mobilenet_v3_small-cifar", generator), images(generator)
    depthwise = network.get_submodule("body.features.4.block.1.0")
    norm = network.get_submodule("body.features.4.block.1.1")
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        depthwise.weight[:2] = 0
        norm.running_mean[:2] = 0
        norm.bias[0], norm.bias[1] = 2, -4
    dead = dead_filters(network)
    assert dead == {"body.features.4.block.0.0": (1,)}
    assert far(answers(remove_filters(network, dead), x), answers(network, x)) < 1e-10


def test_a_depthwise_filter_of_nothing_goes_though_it_has_weights(
    generator: torch.Generator,
) -> None:
    """A widening filter without weights is cut off at zero behind its norm, or is a constant that
    the depthwise padding spoils.
    """
    network, x = lively("mobilenet_v2-cifar", generator), images(generator)
    widening, norm = (network.get_submodule(f"body.features.2.conv.0.{place}") for place in (0, 1))
    assert isinstance(widening, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        widening.weight[:2] = 0
        norm.running_mean[:2] = 0
        norm.bias[0], norm.bias[1] = 1, -1
    dead = dead_filters(network)
    assert dead == {"body.features.2.conv.0.0": (1,)}
    assert far(answers(remove_filters(network, dead), x), answers(network, x)) < 1e-10


def test_one_filter_of_a_dead_layer_stays(generator: torch.Generator) -> None:
    """A layer without any weights keeps its first filter, and the function."""
    network, x = lively("vit_tiny-cifar", generator), images(generator)
    fc1 = network.get_submodule("body.blocks.0.mlp.fc1")
    assert isinstance(fc1, nn.Linear)
    with torch.no_grad():
        fc1.weight.zero_()
    dead = dead_filters(network)
    assert dead == {"body.blocks.0.mlp.fc1": tuple(range(1, 48))}
    assert far(answers(remove_filters(network, dead), x), answers(network, x)) < 1e-10


def test_the_weakest_filters_are_chosen(generator: torch.Generator) -> None:
    """By the norm over all that makes a channel: a strong depthwise filter saves one whose widening
    is weak, and a bias saves none.
    """
    network = lively("mobilenet_v2-cifar", generator)
    (name, group), *_ = groups_of(network, network.head).items()
    widening, depthwise = (step.layer for step in group.steps)
    with torch.no_grad():
        widening.weight[10:58] *= 1e-3
        depthwise.weight[10:58] *= 1e-3
        depthwise.weight[20] = 100
    assert choose_filters(network, 0.49)[name] == tuple(
        place for place in range(10, 58) if place != 20
    )
    assert group.channels == 96
    hidden = lively("vgg11_bn", generator)
    layer = hidden.get_submodule("body.classifier.0")
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight[[3, 7]] *= 1e-3
        layer.bias[3] = 100
    assert choose_filters(hidden, 0.1)["body.classifier.0"] == (3, 7)


def test_of_equal_filters_the_first_go(generator: torch.Generator) -> None:
    """Ties are broken by place, so that a choice can be made again."""
    network = lively("resnet20-cifar", generator)
    layer = network.get_submodule("body.layer1.0.conv1")
    assert isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        layer.weight.fill_(1)
    assert choose_filters(network, 0.25)["body.layer1.0.conv1"] == (0, 1, 2, 3)


def test_half_the_filters_are_a_quarter_of_a_vggs_weights(generator: torch.Generator) -> None:
    """Convolutions between halved layers have a quarter of their multiply-adds, the first and last
    layers half: by hand.
    """
    network = lively("vgg11_bn-cifar", generator, side=32)
    small = remove_filters(network, choose_filters(network, 0.5))

    def by_hand(widths: list[int]) -> int:
        layers = sum(
            (9 * inputs + 1 + 2) * outputs
            for inputs, outputs in zip([3, *widths], widths, strict=False)
        )
        return layers + (widths[-1] + 1) * 5

    assert parameters(network.architecture) == by_hand([4, 6, 8, 8, 10, 10, 12, 12])
    assert parameters(small.architecture) == by_hand([2, 3, 4, 4, 5, 5, 6, 6])


def prunable(network: nn.Module) -> int:
    """Weights of all convolutions and linear layers."""
    return sum(
        layer.weight.numel()
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_share_of_weights_becomes_the_smallest_share_of_filters(
    name: str, generator: torch.Generator
) -> None:
    """What was foretold has gone once the filters have, and a thousandth less of them would not
    have been enough.
    """
    network = lively(name, generator)
    share = share_for(network, 0.4)
    shares = [
        1 - prunable(remove_filters(network, choose_filters(network, one))) / prunable(network)
        for one in (share, share - 0.001)
    ]
    assert shares[0] >= 0.4 > shares[1]


def test_a_sparsity_that_filters_cannot_reach_is_refused(generator: torch.Generator) -> None:
    """A transformer's two layers are not all of it: the hint's sparsity can be had, and a little
    more cannot.
    """
    network = lively("vit_tiny-cifar", generator)
    with pytest.raises(RecipeError, match=r"cannot take 0\.9 of the weights") as caught:
        share_for(network, 0.9)
    most = float(caught.value.hint.split("at most ")[1].split(",")[0])
    assert 0.5 < most < 0.9
    assert share_for(network, most) > 0.9
    for sparsity in (most + 0.001, 0.0, 1.0, math.nan):
        with pytest.raises(RecipeError):
            share_for(network, sparsity)


def test_filters_can_be_taken_out_twice(generator: torch.Generator) -> None:
    """First of one layer, then of all: the record has the widths of both, and an empty choice
    changes nothing.
    """
    network, x = lively("resnet20-cifar", generator), images(generator)
    once = remove_filters(network, {"body.layer2.1.conv1": (0, 31)})
    assert once.architecture.widths == (("body.layer2.1.conv1", 30),)
    twice = remove_filters(once, choose_filters(once, 0.5))
    widths = dict(twice.architecture.widths)
    assert (len(widths), widths["body.layer2.1.conv1"], widths["body.layer3.0.conv1"]) == (
        9,
        15,
        32,
    )
    silent = silence_filters(once, choose_filters(once, 0.5))
    assert far(answers(twice, x), answers(silent, x)) < 1e-10
    same = remove_filters(network, {"body.layer1.0.conv1": ()})
    assert same.architecture == network.architecture


@pytest.mark.parametrize("name", NAMES)
def test_groups_hold_together_in_every_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size: a group's layers, norms, factors and readers all have its channels, and no
    layer makes those of two.
    """
    monkeypatch.undo()
    with torch.device("meta"):
        network = NamedNetwork(NamedArchitecture(name=name, classes=5, shape=(3, 32, 32)))
    groups = groups_of(network, network.head)
    made = [step.layer for group in groups.values() for step in group.steps]
    assert groups
    assert len({id(layer) for layer in made}) == len(made)
    for group in groups.values():
        assert all(len(step.layer.weight) == group.channels for step in group.steps)
        assert all(
            step.norm is None or step.norm.num_features == group.channels for step in group.steps
        )
        assert all(
            reader.layer.weight.shape[1] == group.channels * reader.pixels
            for reader in group.readers
        )
        assert group.gate is None or len(group.gate.weight) == group.channels
        assert step_gives_zero_for_zero(group)


def step_gives_zero_for_zero(group: Group) -> bool:
    """Whether nothing stays nothing on its way."""
    return all(step.act(torch.zeros(1, device="cpu")).item() == 0 for step in group.steps)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "share of 0.0"),
        (1.0, "share of 1.0"),
        (math.nan, "share of nan"),
        (0.99, "body.features.0: 4 filters"),
        (0.001, "no filter"),
    ],
)
def test_a_share_that_leaves_nothing_or_takes_nothing_is_refused(
    share: float, words: str, generator: torch.Generator
) -> None:
    """The layers that would vanish are all named."""
    with pytest.raises(RecipeError) as caught:
        choose_filters(lively("vgg11_bn-cifar", generator), share)
    assert words in str(caught.value)
    assert len(caught.value.faults) in {0, 8}


def test_a_choice_that_does_not_fit_is_refused(generator: torch.Generator) -> None:
    """An unknown layer, one whose channels are summed from block to block, filters that are not
    there, and all of a layer: all listed.
    """
    network = lively("resnet20-cifar", generator)
    chosen = {
        "nothing": (1,),
        "body.layer1.0.conv2": (1,),
        "body.layer1.0.conv1": (16,),
        "body.layer1.1.conv1": tuple(range(16)),
    }
    with pytest.raises(RecipeError, match="cannot be taken out of resnet20-cifar") as caught:
        remove_filters(network, chosen)
    assert len(caught.value.faults) == 4


def test_a_cell_network_says_what_to_do_instead(tiny: Make, generator: torch.Generator) -> None:
    """Its channels are summed over a stage: it keeps its filters, and the error names the recipe's
    keys.
    """
    network = build(tiny("nasbench201", cell_of([Op.conv3x3] * 6)), generator)
    for refused in (
        lambda: choose_filters(network, 0.5),
        lambda: dead_filters(network),
        lambda: remove_filters(network, {}),
    ):
        with pytest.raises(RecipeError, match=r"stem_channels"):
            refused()


@pytest.mark.parametrize(
    "widths",
    [
        (("body.layer1.0.conv2", 3),),
        (("nothing", 3),),
        (("body.layer1.0.conv1", 16),),
        (("body.layer1.0.conv1", 10**12),),
    ],
)
def test_a_record_with_widths_that_cannot_be_is_refused(
    widths: tuple[tuple[str, int], ...], generator: torch.Generator
) -> None:
    """Unknown layers, ones that keep their channels, and layers that are no narrower: before
    anything is built.
    """
    with pytest.raises(
        IntegrityError, match=f"resnet20-cifar cannot be made this narrow(.|\n)*{widths[0][0]}"
    ):
        build(
            NamedArchitecture(name="resnet20-cifar", classes=5, shape=(3, 8, 8), widths=widths),
            generator,
        )
