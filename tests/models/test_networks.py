"""Networks against a plain reference, and the laws that build, load and prune_dead keep.

The reference below computes every edge of every cell, `none` and dead ones included, each
convolution behind its own ReLU, batch norm written out, in double precision.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lockforge.errors import IntegrityError
from lockforge.models.networks import CellNetwork, build, load, parameters, prune_dead, state
from lockforge.records import EDGES, Architecture, Op
from lockforge.spaces import NAMES, random_cell
from lockforge.spaces.cells import cell_of, connected, edge_uses

Make = Callable[..., Architecture]
Weights = dict[str, Tensor]


class Reference:
    """The published networks, spelt out with nothing shared and nothing left out."""

    def __init__(self, architecture: Architecture, weights: Weights, *, training: bool) -> None:
        self.architecture = architecture
        self.weights = weights
        self.training = training

    def norm(self, x: Tensor, name: str) -> Tensor:
        """(x - mean) / sqrt(variance + 1e-5) * scale + bias."""
        column = (1, -1, 1, 1)
        if self.training:
            mean = x.mean((0, 2, 3), keepdim=True)
            variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        else:
            mean, variance = (
                self.weights[f"{name}.running_{part}"].view(column) for part in ("mean", "var")
            )
        scale, bias = (self.weights[f"{name}.{part}"].view(column) for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + bias

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """A convolution without bias, padded by half its kernel."""
        kernel = self.weights[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def edge(self, x: Tensor, op: Op, name: str, stride: int, shape: torch.Size) -> Tensor:
        """One operation, in the size of the node it goes to."""
        match op:
            case Op.none:
                return x.new_zeros(shape)
            case Op.skip if x.shape == shape:
                return x
            case Op.skip:
                hot = x.clamp(min=0)
                shifted = torch.zeros_like(hot)
                shifted[:, :, :-1, :-1] = hot[:, :, 1:, 1:]
                halves = [
                    self.conv(part, f"{name}.convs.{place}", 2)
                    for place, part in enumerate((hot, shifted))
                ]
                return self.norm(torch.cat(halves, dim=1), f"{name}.bn")
            case Op.pool3x3:
                ones = functional.avg_pool2d(torch.ones_like(x), 3, 1, 1)
                return functional.avg_pool2d(x, 3, 1, 1) / ones
            case _:
                return self.norm(self.conv(x.clamp(min=0), f"{name}.conv", stride), f"{name}.bn")

    def cell(self, x: Tensor, name: str, channels: int, stride: int) -> Tensor:
        """Four nodes, six edges."""
        n, _, h, w = x.shape
        shape = torch.Size((n, channels, -(-h // stride), -(-w // stride)))
        nodes = [x, *(x.new_zeros(shape) for _ in range(3))]
        for index, ((start, end), op) in enumerate(
            zip(EDGES, self.architecture.cell.ops, strict=True)
        ):
            nodes[end] = nodes[end] + self.edge(
                nodes[start], op, f"{name}.edges.{index}", stride if start == 0 else 1, shape
            )
        return nodes[3]

    def reduction(self, x: Tensor, name: str) -> Tensor:
        """Two convolutions beside a shortcut of 2x2 means (even sizes only)."""
        means = (
            x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
        ) / 4
        inner = self.norm(self.conv(x.clamp(min=0), f"{name}.conv_a.conv", 2), f"{name}.conv_a.bn")
        inner = self.norm(self.conv(inner.clamp(min=0), f"{name}.conv_b.conv"), f"{name}.conv_b.bn")
        return self.conv(means, f"{name}.shortcut") + inner

    def features(self, x: Tensor) -> Tensor:
        """What the head sees."""
        width, small = self.architecture.stem_channels, self.architecture.shape[1] <= 32
        if self.architecture.space == "nasbench201":
            x = self.norm(self.conv(x, "stem.0"), "stem.1")
            plan = [(0, width, 1), (1, 2 * width, 1), (2, 4 * width, 1)]
        else:
            stride = 1 if small else 2
            x = self.norm(self.conv(x, "stem.0", stride), "stem.1").clamp(min=0)
            x = self.norm(self.conv(x, "stem.3", stride), "stem.4")
            plan = [
                (0, 2 * width, 2),
                (1, 2 * width, 1),
                (2, 4 * width, 2),
                (3, 4 * width, 1),
                (4, 8 * width, 2),
            ]
        for stage, channels, stride in plan:
            if self.architecture.space == "nasbench201" and stage:
                x = self.reduction(x, f"stages.{stage}.reduction")
            for cell in range(self.architecture.cells_per_stage):
                x = self.cell(
                    x, f"stages.{stage}.cells.{cell}", channels, stride if cell == 0 else 1
                )
        if self.architecture.space == "nasbench201":
            x = self.norm(x, "last").clamp(min=0)
        return x.flatten(2).mean(2)

    def __call__(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.features(x) @ self.weights["head.weight"].T + self.weights["head.bias"]


def lived_in(network: CellNetwork, generator: torch.Generator) -> CellNetwork:
    """The network in double precision with batch norms that are no identities, so that a wrong one
    shows.
    """
    for name, tensor in network.double().state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.3, generator=generator)
    return network


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("space", "shape", "channels", "cells"),
    [
        ("nasbench201", (1, 8, 8), 3, 1),
        ("nasbench201", (3, 12, 16), 4, 2),
        ("transnas101", (1, 8, 8), 3, 2),
        ("transnas101", (3, 80, 80), 2, 1),
    ],
)
def test_the_network_is_the_plain_reference(
    space: str,
    shape: tuple[int, int, int],
    channels: int,
    cells: int,
    *,
    training: bool,
    rng: np.random.Generator,
    tiny: Make,
    generator: torch.Generator,
) -> None:
    """The same logits and features within 1e-10 for 12 random cells, though only edges that matter
    are computed, ReLUs shared.
    """
    for _ in range(12):
        architecture = tiny(
            space, random_cell(space, rng), shape=shape, channels=channels, cells=cells
        )
        network = lived_in(build(architecture, generator), generator).train(training)
        reference = Reference(
            architecture,
            {name: tensor.clone() for name, tensor in network.state_dict().items()},
            training=training,
        )
        x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(network(x), reference(x), rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(
                network.features(x), reference.features(x), rtol=1e-9, atol=1e-10
            )


@pytest.mark.parametrize("space", NAMES)
def test_logits_are_the_head_of_the_features(
    space: str, rng: np.random.Generator, tiny: Make, generator: torch.Generator
) -> None:
    """forward(x) == head(features(x)), bit for bit, with as many features as the head has
    inputs.
    """
    network = build(tiny(space, random_cell(space, rng)), generator).eval()
    x = torch.randn(2, 1, 8, 8, generator=generator)
    features = network.features(x)
    assert features.shape == (2, network.head.in_features)
    assert torch.equal(network(x), network.head(features))


@pytest.mark.parametrize("space", NAMES)
def test_a_seed_gives_one_network_and_touches_no_global_state(
    space: str, rng: np.random.Generator, tiny: Make
) -> None:
    """Same seed, same weights; another seed, others; torch's and numpy's global generators stand
    where they stood.
    """
    architecture = tiny(space, random_cell(space, rng))
    # the global state is what is tested
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (
        state(build(architecture, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])


def test_convolutions_start_with_variance_two_over_fan_in(
    tiny: Make, generator: torch.Generator
) -> None:
    """He et al. 2015, equation 10, within 5 % on 36,864 weights; batch norm starts as scale 1, bias
    0.
    """
    weights = state(build(tiny("nasbench201", cell_of([Op.conv3x3] * 6), channels=16), generator))
    kernel = weights["stages.2.cells.0.edges.0.conv.weight"]
    assert abs(kernel.var().item() * 64 * 9 / 2 - 1) < 0.05
    assert weights["last.weight"].eq(1).all()
    assert weights["last.bias"].eq(0).all()
    assert weights["last.running_var"].eq(1).all()
    assert weights["head.weight"].abs().max() <= 1 / 8


@pytest.mark.parametrize("space", NAMES)
def test_channels_lie_side_by_side_from_the_first_convolution_on(
    space: str, tiny: Make, generator: torch.Generator
) -> None:
    """Built or loaded, with one input channel or three: every layer hands the faster order on;
    stored tensors are plain.
    """
    for channels in (1, 3):
        architecture = tiny(space, cell_of([Op.conv3x3] * 6), shape=(channels, 8, 8), channels=8)
        built = build(architecture, generator)
        for network in (built, load(architecture, state(built))):
            x = network.stem(torch.randn(2, channels, 8, 8, generator=generator))
            assert x.is_contiguous(memory_format=torch.channels_last)
            assert network.stages[0].cells[0](x).is_contiguous(memory_format=torch.channels_last)
            assert all(tensor.is_contiguous() for tensor in state(network).values())


def test_names_of_weights_are_stable(tiny: Make, generator: torch.Generator) -> None:
    """Stored checkpoints rely on these names."""
    cell = cell_of([Op.skip, Op.none, Op.conv3x3, Op.none, Op.none, Op.conv1x1])
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    first = set(state(build(tiny("nasbench201", cell), generator)))
    edges = {
        f"stages.0.cells.0.edges.{edge}.{part}"
        for edge in (2, 5)
        for part in ("conv.weight", *(f"bn.{name}" for name in norm))
    }
    assert {name for name in first if name.startswith("stages.0.")} == edges
    assert {"stem.0.weight", "stem.1.bias", "last.weight", "head.weight", "head.bias"} <= first
    assert {
        f"stages.1.reduction.{part}.weight"
        for part in ("conv_a.conv", "conv_a.bn", "conv_b.conv", "conv_b.bn", "shortcut")
    } <= first
    second = set(state(build(tiny("transnas101", cell), generator)))
    assert {
        "stem.3.weight",
        "stages.4.cells.0.edges.5.conv.weight",
        "stages.0.cells.0.edges.0.convs.1.weight",
    } <= second
    assert "stages.1.cells.0.edges.0.convs.1.weight" not in second


@pytest.mark.parametrize("space", NAMES)
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 15, 9), (4, 16, 16), (3, 33, 40)])
def test_images_of_any_size_go_through_and_back(
    space: str,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
    tiny: Make,
    generator: torch.Generator,
) -> None:
    """Logits of the right shape, finite gradients, for odd and tiny images and one to four
    channels.
    """
    cell = cell_of([Op.conv3x3, Op.skip, Op.conv1x1, *random_cell(space, rng).ops[3:5], Op.conv3x3])
    network = build(tiny(space, cell, shape=shape), generator)
    logits = network(torch.randn(3, *shape, generator=generator))
    logits.square().sum().backward()
    assert logits.shape == (3, 5)
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("space", NAMES)
def test_exactly_the_edges_called_live_get_gradients(
    space: str, rng: np.random.Generator, tiny: Make, generator: torch.Generator
) -> None:
    """In the last cell: a convolution has a gradient when its edge is live, only its batch norm
    when constant, nothing when dead.
    """
    for _ in range(30):
        cell = random_cell(space, rng)
        network = build(tiny(space, cell), generator)
        network(torch.randn(4, 1, 8, 8, generator=generator)).sum().backward()
        edges = network.stages[-1].cells[0].edges
        for index, use in enumerate(edge_uses(cell)):
            if cell.ops[index] in {Op.conv1x1, Op.conv3x3}:
                edge = edges[str(index)]
                assert (edge.conv.weight.grad is not None) == (use == "live")
                assert (edge.bn.bias.grad is not None) == (use != "dead")


@pytest.mark.parametrize("space", NAMES)
def test_dead_weights_can_go_without_changing_a_bit(
    space: str, rng: np.random.Generator, tiny: Make, generator: torch.Generator
) -> None:
    """The same logits bit for bit; whatever is left of the cells gets a gradient; the original is
    untouched; loading knows both forms.
    """
    drawn = [random_cell(space, rng) for _ in range(400)]
    cells = [
        cell
        for cell in drawn
        if connected(cell) and set(edge_uses(cell)) == {"live", "constant", "dead"}
    ]
    assert len(cells) >= 6
    for cell in cells[:6]:
        architecture = tiny(space, cell, cells=2)
        network = build(architecture, generator).eval()
        x = torch.randn(3, 1, 8, 8, generator=generator)
        pruned = prune_dead(network)
        assert torch.equal(pruned(x), network(x))
        pruned(x).square().sum().backward()
        assert all(weight.grad is not None for weight in pruned.parameters())
        assert sum(weight.numel() for weight in network.parameters()) == parameters(architecture)
        assert len(state(pruned)) < len(state(network))
        for form in (network, pruned):
            loaded = load(architecture, state(form)).eval()
            assert list(loaded.state_dict()) == list(form.state_dict())
            assert torch.equal(loaded(x), network(x))


def test_a_loaded_network_shares_no_memory_with_what_it_was_loaded_from(
    tiny: Make, generator: torch.Generator
) -> None:
    """Neither `state` nor `load` keeps a view; loaded weights can be trained."""
    architecture = tiny("nasbench201", cell_of([Op.conv1x1] * 6))
    network = build(architecture, generator)
    kept = state(network)
    loaded = load(architecture, kept)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        loaded.head.weight.zero_()
    assert kept["stem.0.weight"].any()
    assert kept["head.weight"].any()
    assert all(weight.requires_grad and weight.is_leaf for weight in loaded.parameters())


def test_weights_of_another_architecture_are_refused_with_every_difference(
    tiny: Make, generator: torch.Generator
) -> None:
    """Missing, foreign and misshapen tensors are named."""
    architecture = tiny("nasbench201", cell_of([Op.conv1x1] * 6))
    tensors = state(build(architecture, generator))
    tensors["stranger"] = tensors.pop("head.bias")
    tensors["head.weight"] = torch.zeros(2, 16)
    with pytest.raises(IntegrityError, match="do not fit nasbench201") as caught:
        load(architecture, tensors)
    text = str(caught.value)
    assert "head.bias is missing" in text
    assert "stranger is not part of the network" in text
    assert "head.weight is (2, 16) where (5, 16) is needed" in text


def test_a_disconnected_cell_gives_the_same_logits_for_every_image(
    tiny: Make, generator: torch.Generator
) -> None:
    """Nothing of the image arrives, and the network says so instead of failing."""
    for cell in (
        cell_of([Op.none] * 6),
        cell_of([Op.none, Op.none, Op.skip, Op.none, Op.conv3x3, Op.pool3x3]),
    ):
        network = build(tiny("nasbench201", cell), generator).eval()
        logits = network(torch.randn(4, 1, 8, 8, generator=generator))
        assert torch.equal(logits, logits[:1].expand(4, -1))
