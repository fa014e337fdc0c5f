"""Named networks: published sizes and names, one interface, weights from the given generator
alone.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.models._named import KNOWN, NAMES, NamedNetwork, from_published, to_published
from lockforge.models._read_state_dict import read_network
from lockforge.models._vit import VisionTransformer
from lockforge.models.backbones import new_backbone
from lockforge.models.networks import Classifier, build, flops, load, parameters, prune_dead, state
from lockforge.records import NamedArchitecture

PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
}
LIGHT = (
    "mobilenet_v2-cifar",
    "mobilenet_v3_small-cifar",
    "resnet18-cifar",
    "resnet20-cifar",
    "vgg11_bn-cifar",
    "vit_tiny-cifar",
)


def named(
    name: str, classes: int = 5, shape: tuple[int, int, int] = (3, 32, 32)
) -> NamedArchitecture:
    """An architecture for small images."""
    return NamedArchitecture(name=name, classes=classes, shape=shape)


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_a_network_has_the_published_number_of_weights(name: str, count: int) -> None:
    """With 1,000 classes at 224 pixels: torchvision's counts, exactly."""
    assert parameters(named(name, 1000, (3, 224, 224))) == count


def test_a_transformer_has_as_many_weights_as_its_layers_imply() -> None:
    """Width d, 196 patches: (768 + 1) d + 198 d + 12 (12 d^2 + 13 d) + 2 d + 1000 (d + 1): DeiT's
    5.7 and 22 million.
    """
    for name, d in (("vit_tiny", 192), ("vit_small", 384)):
        wanted = 769 * d + 198 * d + 12 * (12 * d * d + 13 * d) + 2 * d + 1000 * (d + 1)
        assert parameters(named(name, 1000, (3, 224, 224))) == wanted
        assert round(wanted / 1e6, 1) == {192: 5.7, 384: 22.1}[d]


def test_small_networks_have_the_weights_of_the_published_cifar_ones() -> None:
    """ResNet-20's .27 million (He et al., table 6); a stem or classifier less than the large ones,
    by hand.
    """
    assert parameters(named("resnet20-cifar", 10)) == 269_722
    stem = 64 * 3 * (49 - 9)
    assert parameters(named("resnet18-cifar", 1000)) == PUBLISHED["resnet18"] - stem
    hidden = 25_088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4097 * 1000
    assert parameters(named("vgg11_bn-cifar", 1000)) == PUBLISHED["vgg11_bn"] - hidden + 513 * 1000
    assert parameters(named("mobilenet_v3_small-cifar", 1000)) == PUBLISHED["mobilenet_v3_small"]


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("vgg11_bn", "features.4.weight", (128, 64, 3, 3)),
        ("vgg11_bn", "classifier.3.weight", (4096, 4096)),
        ("vgg13_bn", "features.3.bias", (64,)),
        ("vgg11_bn-cifar", "classifier.weight", (10, 512)),
        ("mobilenet_v3_small", "features.1.block.1.fc1.weight", (8, 16, 1, 1)),
        ("mobilenet_v3_small", "features.12.0.weight", (576, 96, 1, 1)),
        ("mobilenet_v3_small", "classifier.0.weight", (1024, 576)),
        ("mobilenet_v3_large", "features.15.block.2.fc2.bias", (960,)),
        ("resnet18-cifar", "conv1.weight", (64, 3, 3, 3)),
        ("resnet20-cifar", "layer3.2.bn2.running_var", (64,)),
        ("vit_tiny", "blocks.11.attn.qkv.weight", (576, 192)),
        ("vit_tiny", "pos_embed", (1, 197, 192)),
    ],
)
def test_a_network_uses_the_published_names(name: str, key: str, shape: tuple[int, ...]) -> None:
    """Spot checks of names and shapes as published weight files have them."""
    side = 32 if name.endswith("-cifar") else 224
    with torch.device("meta"):
        tensors = NamedNetwork(named(name, 10, (3, side, side))).state_dict()
    assert tuple(to_published(name, tensors)[key].shape) == shape


def test_published_names_come_back() -> None:
    """From published names and back, for every network: nothing lost, and the head's tensors are
    the ones called head.
    """
    for name, known in KNOWN.items():
        with torch.device("meta"):
            published = known.make(5, (3, 32, 32)).state_dict()
            network = NamedNetwork(named(name))
        ours = from_published(name, published)
        assert set(ours) == set(network.state_dict())
        assert {key for key in ours if key.startswith("head.")} == {"head.weight", "head.bias"}
        assert list(to_published(name, ours)) == list(published)


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 24, 40)])
def test_every_network_is_a_classifier_of_images_of_many_sizes(
    name: str, shape: tuple[int, int, int], generator: torch.Generator
) -> None:
    """Logits are the head of the features bit for bit, of the right shape and finite, with
    gradients everywhere they can be.
    """
    network = build(named(name, 5, shape), generator)
    assert isinstance(network, Classifier)
    x = torch.randn(2, *shape, generator=generator)
    network.eval()
    features, logits = network.features(x), network(x)
    assert features.shape == (2, network.head.in_features)
    assert logits.shape == (2, 5)
    assert torch.equal(logits, network.head(features))
    assert network.maps(x).ndim == 4
    logits.square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters()
    )


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "vit_tiny"])
def test_large_image_networks_take_large_images(name: str, generator: torch.Generator) -> None:
    """One grey image of 64 pixels through the published stems; another size than the
    architecture's patches is refused.
    """
    network = build(named(name, 3, (1, 64, 64)), generator).eval()
    assert network(torch.randn(1, 1, 64, 64, generator=generator)).isfinite().all()


@pytest.mark.parametrize(
    "name", ["mobilenet_v2-cifar", "mobilenet_v3_small-cifar", "resnet20-cifar", "resnet18-cifar"]
)
def test_features_are_the_means_of_the_maps_where_nothing_comes_between(
    name: str, generator: torch.Generator
) -> None:
    """Mean over pixels, except MobileNetV3, whose hidden layer comes between."""
    network = build(named(name), generator).eval()
    x = torch.randn(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        maps, features = network.maps(x).mean((2, 3)), network.features(x)
    if name.startswith("mobilenet_v3"):
        assert maps.shape != features.shape
    else:
        torch.testing.assert_close(features, maps)


def test_cifar_networks_leave_out_two_halvings(generator: torch.Generator) -> None:
    """At 32 pixels the last maps have 4 x 4 pixels where the large stem leaves one; VGG halves five
    times in both.
    """
    x = torch.randn(2, 3, 32, 32, generator=generator)
    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small"):
        sizes = [
            build(named(name + suffix), generator).eval().maps(x).shape[2:]
            for suffix in ("", "-cifar")
        ]
        assert sizes == [(1, 1), (4, 4)], name
    assert build(named("vgg11_bn-cifar"), generator).eval().maps(x).shape[2:] == (1, 1)


def test_the_transformer_is_the_papers_equations(generator: torch.Generator) -> None:
    """Dosovitskiy et al. 2021, equations 1 to 4, spelt out with matrices in double precision; the
    class token is the features.
    """
    network = build(named("vit_tiny-cifar", 3, (1, 8, 8)), generator).double().eval()
    x = torch.randn(2, 1, 8, 8, generator=generator, dtype=torch.float64)
    w = {key.removeprefix("body."): tensor for key, tensor in network.state_dict().items()}
    patches = x.reshape(2, 2, 4, 2, 4).permute(0, 1, 3, 2, 4).reshape(2, 4, 16)
    tokens = patches @ w["patch_embed.proj.weight"].reshape(192, 16).T + w["patch_embed.proj.bias"]
    z = torch.cat([w["cls_token"].expand(2, 1, 192), tokens], 1) + w["pos_embed"]

    def norm(z: torch.Tensor, name: str) -> torch.Tensor:
        centred = z - z.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    def linear(z: torch.Tensor, name: str) -> torch.Tensor:
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for index in range(12):
        block = f"blocks.{index}"
        q, k, v = linear(norm(z, f"{block}.norm1"), f"{block}.attn.qkv").split(192, -1)
        heads = []
        for head in range(3):
            part = slice(64 * head, 64 * head + 64)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / 8).exp()
            heads.append(weights / weights.sum(-1, keepdim=True) @ v[..., part])
        z = z + linear(torch.cat(heads, -1), f"{block}.attn.proj")
        inner = linear(norm(z, f"{block}.norm2"), f"{block}.mlp.fc1")
        z = z + linear(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), f"{block}.mlp.fc2")
    z = norm(z, "norm")
    with torch.no_grad():
        torch.testing.assert_close(network.features(x), z[:, 0], rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(
            network.maps(x), z[:, 1:].transpose(1, 2).reshape(2, 192, 2, 2), rtol=1e-9, atol=1e-10
        )


@pytest.mark.parametrize("name", LIGHT)
def test_a_seed_gives_one_network_and_training_draws_nothing_global(name: str) -> None:
    """Same seed, same weights; another, others; building and a pass in training mode leave torch's
    and numpy's generators alone.
    """
    # the global state is what is tested
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    networks = [build(named(name), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    first, again, other = (state(network) for network in networks)
    networks[0].train()(torch.ones(2, 3, 32, 32))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(first[key], again[key]) for key in first)
    varied = [key for key in first if not torch.equal(first[key], other[key])]
    drawn = [
        key for key, module in _weights(networks[0]) if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert set(drawn) <= set(varied)


def _weights(network: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (f"{name}.weight", module)
        for name, module in network.named_modules()
        if hasattr(module, "weight")
    ]


def test_first_weights_follow_the_stated_rules(generator: torch.Generator) -> None:
    """Convolutions of variance 2 / fan-in with bias 0, tokens of deviation .02, norms 1 and 0."""
    vgg = state(build(named("vgg11_bn-cifar"), generator))
    kernel = vgg["body.features.8.weight"]
    assert abs(kernel.var().item() * 128 * 9 / 2 - 1) < 0.02
    assert vgg["body.features.8.bias"].eq(0).all()
    assert vgg["body.features.9.weight"].eq(1).all()
    transformer = state(build(named("vit_tiny-cifar"), generator))
    assert abs(transformer["body.pos_embed"].std().item() / 0.02 - 1) < 0.05
    assert transformer["body.blocks.3.norm1.weight"].eq(1).all()
    assert transformer["body.blocks.3.norm1.bias"].eq(0).all()
    assert transformer["head.weight"].abs().max() <= 1 / math.sqrt(192)


@pytest.mark.parametrize("name", LIGHT)
def test_stored_weights_come_back_the_same_network(name: str, generator: torch.Generator) -> None:
    """State and load: the same tensors, sharing no memory, in a copy that `prune_dead` leaves as it
    is.
    """
    network = build(named(name), generator).eval()
    kept = state(network)
    loaded = load(network.architecture, kept).eval()
    x = torch.randn(2, 3, 32, 32, generator=generator)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))
        assert torch.equal(prune_dead(loaded)(x), network(x))
        for weight in loaded.parameters():
            weight.zero_()
    assert kept["head.weight"].any()
    assert all(weight.requires_grad and weight.is_leaf for weight in loaded.parameters())


def test_what_does_not_exist_or_does_not_fit_is_refused(generator: torch.Generator) -> None:
    """An unknown name lists the known ones; patches that do not fill the image and foreign
    tensors are errors with names.
    """
    with pytest.raises(RecipeError, match="resnet18-cifar"):
        build(named("resnet19"), generator)
    with pytest.raises(DataError, match="multiples of 4 pixels, not 30 x 30"):
        build(named("vit_tiny-cifar", shape=(3, 30, 30)), generator)
    with pytest.raises(
        IntegrityError, match=r"do not fit resnet20-cifar(.|\n)*body\.conv1\.weight is missing"
    ):
        load(named("resnet20-cifar"), {})


def test_the_backbones_of_the_probes_are_the_same_networks(generator: torch.Generator) -> None:
    """A named ResNet gives the logits of the backbone of that name with the same tensors: taking
    the head off changes nothing.
    """
    network = build(named("resnet18", 7, (3, 64, 64)), generator).eval()
    backbone = new_backbone("resnet18", 7).to_empty(device="cpu").eval()
    backbone.load_state_dict(to_published("resnet18", state(network)))
    x = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        assert torch.equal(network(x), backbone(x))
        assert torch.equal(network.features(x), backbone.pooled(x))


def test_a_transformers_features_depend_on_where_a_patch_lies(generator: torch.Generator) -> None:
    """Swapping two patches changes the class token, through the positions alone."""
    network = build(named("vit_tiny-cifar", 3, (1, 8, 8)), generator).eval()
    assert isinstance(network.body, VisionTransformer)
    x = torch.randn(1, 1, 8, 8, generator=generator)
    swapped = torch.cat([x[..., 4:], x[..., :4]], dim=-1)
    with torch.no_grad():
        assert not torch.allclose(network.features(x), network.features(swapped), atol=1e-4)
        network.body.pos_embed.zero_()
        torch.testing.assert_close(
            network.features(x), network.features(swapped), rtol=1e-4, atol=1e-4
        )


def test_published_resnet20_knows_cifar10(shared_data: Path) -> None:
    """Its stated accuracy is .915; 200 test images must give at least .85 (.85 is 3.3 deviations
    below).
    """
    weights, images = (
        shared_data / "weights/resnet20_cifar10.safetensors",
        shared_data / "images/cifar10.npz",
    )
    if not (weights.is_file() and images.is_file()):
        pytest.skip("the weights or CIFAR-10 are not here")
    architecture, tensors = read_network(weights, "resnet20-cifar", (32, 32), classes=10)
    assert architecture.shape == (3, 32, 32)
    network = load(architecture, tensors).eval()
    with np.load(images) as data:
        x, y = data["x_test"][:200], data["y_test"][:200]
    images = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        guessed = network((images - mean) / std).argmax(1).numpy()
    assert (guessed == y.reshape(-1)).mean() >= 0.85


def test_published_mobilenet_v2_is_the_probes_backbone(
    shared_data: Path, generator: torch.Generator
) -> None:
    """The weights in half precision give the logits that the embedding's own reader gives, whose
    accuracy has its own test.
    """
    from safetensors.torch import load_file

    from lockforge.models.backbones import load_backbone

    path = shared_data / "weights/mobilenet_v2_imagenet.safetensors"
    if not path.is_file():
        pytest.skip("the weights are not here")
    architecture, tensors = read_network(path, "mobilenet_v2", (64, 64))
    assert (architecture.classes, architecture.shape) == (1000, (3, 64, 64))
    x = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        assert torch.equal(
            load(architecture, tensors).eval()(x), load_backbone("mobilenet_v2", load_file(path))(x)
        )


def test_names_and_costs_are_all_there() -> None:
    """Every name can be counted for small images; a network of more layers takes more."""
    assert set(LIGHT) < set(NAMES)
    assert all(parameters(named(name)) > 0 for name in NAMES)
    assert flops(named("resnet18-cifar")) < flops(named("resnet34-cifar"))
    assert (
        flops(named("vgg11_bn-cifar"))
        < flops(named("vgg13_bn-cifar"))
        < flops(named("vgg16_bn-cifar"))
    )
