"""The proxies against closed forms, laws and independent ways to the same number."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lockforge.models.backbones import new_backbone
from lockforge.models.networks import build, flops, state
from lockforge.randomness import torch_generator
from lockforge.records import Architecture, Cell
from lockforge.search._data_free import score_data_free
from lockforge.search._proxies import (
    PROXIES,
    jacobian_score,
    overlap_score,
    preference,
    score_network,
)

CELL = (
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
)
DEAD = "|none~0|+|none~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def batch(shape: tuple[int, ...] = (6, 1, 8, 8), classes: int = 4) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    generator = torch_generator(0, "batch", shape)
    return torch.randn(shape, generator=generator), torch.randint(
        classes, shape[:1], generator=generator
    )


def cell_network(text: str = CELL, space: str = "nasbench201") -> nn.Module:
    """A small network of one cell a stage."""
    architecture = Architecture(
        space=space,
        cell=Cell.parse(text),
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(1, 8, 8),
    )
    return build(architecture, torch_generator(0, "weights"))


class Plain(nn.Module):
    """flatten -> linear -> relu -> linear."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch_generator(0, "plain")
        self.first, self.second = nn.Linear(9, 5), nn.Linear(5, 4)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        out: Tensor = self.second(torch.relu(self.first(x.flatten(1))))
        return out


def loss_of(weights: tuple[Tensor, Tensor], network: Plain, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of `Plain` as a function of its two weight matrices."""
    hidden = torch.relu(x.flatten(1) @ weights[0].T + network.first.bias)
    return functional.cross_entropy(hidden @ weights[1].T + network.second.bias, y)


def test_gradient_proxies_equal_their_equations_on_a_small_network() -> None:
    """snip, grad_norm and grasp from the gradient and the whole Hessian, written out; flops are the
    weights.
    """
    network = Plain()
    x, y = batch((6, 1, 3, 3))
    weights = (network.first.weight.detach(), network.second.weight.detach())
    gradients = torch.autograd.functional.jacobian(
        lambda a, b: loss_of((a, b), network, x, y), weights
    )
    hessian = torch.autograd.functional.hessian(
        lambda a, b: loss_of((a, b), network, x, y), weights
    )
    flat = torch.cat([g.flatten() for g in gradients])
    square = torch.cat(
        [
            torch.cat([h.reshape(w.numel(), -1) for h in row], dim=1)
            for w, row in zip(weights, hessian, strict=True)
        ]
    )
    everything = torch.cat([w.flatten() for w in weights])
    scores = score_network(network, x, y)
    assert scores["snip"] == pytest.approx(float((everything * flat).abs().sum()), rel=1e-5)
    assert scores["grad_norm"] == pytest.approx(float(sum(g.norm() for g in gradients)), rel=1e-5)
    assert scores["grasp"] == pytest.approx(-float(everything @ square @ flat), rel=1e-4)
    assert scores["flops"] == 9 * 5 + 5 * 4


@pytest.mark.parametrize("network", [Plain(), cell_network()], ids=["plain", "cell"])
def test_grasp_by_a_difference_is_near_the_exact_one(network: nn.Module) -> None:
    """One more pass, rectifiers held, gives W (H g) within a twentieth; the other proxies are the
    very same.
    """
    x, y = batch((6, 1, 3, 3)) if isinstance(network, Plain) else batch()
    exact, near = score_network(network, x, y), score_network(network, x, y, grasp="difference")
    assert near.pop("grasp") == pytest.approx(exact.pop("grasp"), rel=0.05)
    assert near == exact


def test_fisher_of_a_linear_layer_has_a_closed_form() -> None:
    """One linear layer: dL/da = (softmax - one-hot) / n, and each output counts once for each of
    its weights.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    x, y = batch((6, 1, 3, 3))
    with torch.no_grad():
        logits = network(x)
        slope = (logits.softmax(1) - functional.one_hot(y, 4)) / len(x)
        expected = ((logits * slope) ** 2).mean(0).sum() / 2 * 9
    assert score_network(network, x, y)["fisher"] == pytest.approx(float(expected), rel=1e-5)


def test_a_network_is_left_as_it_was() -> None:
    """Weights, batch-norm statistics, modes and gradients are untouched, and a second look gives
    the same numbers.
    """
    network = cell_network().eval()
    network.stem.train()
    before, modes = state(network), [module.training for module in network.modules()]
    scores = score_network(network, *batch())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in state(network).items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert score_network(network, *batch()) == scores


def test_a_score_does_not_depend_on_networks_scored_before() -> None:
    """Public jacov code lets the input's gradient pile up from network to network; here it does
    not.
    """
    images, labels = batch()
    alone = score_network(cell_network(), images, labels)
    for _ in range(2):
        score_network(
            Plain().requires_grad_() if images.shape[2] == 3 else cell_network(DEAD), images, labels
        )
    assert score_network(cell_network(), images, labels) == alone
    assert images.grad is None
    assert not images.requires_grad


def test_all_proxies_of_a_sound_cell_are_numbers() -> None:
    """Seven finite numbers in both spaces; flops as the closed form counts them."""
    for space, text in (
        ("nasbench201", CELL),
        ("transnas101", CELL.replace("avg_pool_3x3", "nor_conv_1x1")),
    ):
        network = cell_network(text, space)
        scores = score_network(network, *batch())
        assert tuple(scores) == PROXIES
        assert all(value is not None and math.isfinite(value) for value in scores.values())
        assert scores["flops"] == flops(network.architecture)


def backbone(name: str) -> nn.Module:
    """A published network with random weights."""
    network = new_backbone(name, 5).to_empty(device="cpu")
    generator = torch_generator(0, name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.normal_(
                module.weight, std=math.sqrt(2 / module.weight[0].numel()), generator=generator
            )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_any_network_has_proxies(name: str) -> None:
    """Depthwise convolutions, ReLU6, dropout, blocks of all kinds: equal numbers twice, snip and
    flops as counted apart, none missing.
    """
    network = backbone(name)
    images, labels = batch((4, 3, 32, 32), 5)
    drawn = torch.get_rng_state()
    scores = score_network(network, images, labels)
    free = score_data_free(network, (3, 32, 32), torch_generator(0, "free"))
    assert all(value is not None for value in scores.values())
    assert all(value is not None for value in free.values())
    assert score_network(network, images, labels) == scores
    assert torch.equal(torch.get_rng_state(), drawn)

    counted = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda layer, _, out: counted.append(layer.weight.numel() * out[0, 0].numel())
            )
    functional.cross_entropy(network.train()(images), labels).backward()
    weights = [
        module.weight for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert scores["snip"] == pytest.approx(
        sum(float((w.detach() * w.grad).abs().sum()) for w in weights), rel=1e-4
    )
    assert scores["flops"] == sum(counted)


class Reused(nn.Module):
    """An in-place ReLU6 on a convolution without batch norm, then dropout and one linear layer used
    twice, with a bias.
    """

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.stem, self.act, self.drop = nn.Conv2d(1, 4, 3), nn.ReLU6(in_place), nn.Dropout(0.5)
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        for layer in (self.stem, self.mix, self.head):
            nn.init.normal_(layer.weight, std=2, generator=torch_generator(0, "reused"))
            nn.init.ones_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.drop(self.act(self.stem(x)).mean((2, 3)))
        out: Tensor = self.head(torch.tanh(self.mix(torch.tanh(self.mix(x)))))
        return out


def test_in_place_rectifiers_and_shared_layers_change_nothing() -> None:
    """In place or not, a layer's output is what the layer gave; grasp by a difference follows a
    layer that is used twice.
    """
    images, labels = batch()
    there, apart = (score_network(Reused(in_place=yes), images, labels) for yes in (True, False))
    assert there == apart
    near = score_network(Reused(in_place=True), images, labels, grasp="difference")
    assert near["grasp"] == pytest.approx(there["grasp"], rel=0.05)


def test_a_frozen_network_scores_as_any_other_and_stays_frozen() -> None:
    """Proxies need gradients whether or not the owner trains these weights."""
    network = cell_network()
    images, labels = batch()
    free = score_network(network, images, labels)
    assert score_network(network.requires_grad_(requires_grad=False), images, labels) == free
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_network_without_layers_or_rectifiers_has_little_to_say() -> None:
    """No weights: only the operations (none) and the images' gradients; no rectifier: no
    overlap.
    """
    images, labels = batch((6, 1, 2, 2))
    scores = score_network(nn.Sequential(nn.Flatten(), nn.Tanh()), images, labels)
    assert [name for name, value in scores.items() if value is not None] == ["flops", "jacov"]
    scores = score_network(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), images, labels, grasp="difference"
    )
    assert [name for name, value in scores.items() if value is None] == ["nwot"]


def test_what_cannot_be_said_is_missing() -> None:
    """A cell that never sees its input has no input gradient; images that are not finite leave
    only the operation count.
    """
    assert score_network(cell_network(DEAD), *batch())["jacov"] is None
    images, labels = batch()
    scores = score_network(cell_network(), images * torch.nan, labels)
    assert {name for name, value in scores.items() if value is not None} <= {"flops", "nwot"}
    same = score_network(cell_network(), images[:1].repeat(4, 1, 1, 1), labels[:4])
    assert same["nwot"] is None


def test_one_image_is_refused() -> None:
    """Overlap and correlation need two."""
    images, labels = batch()
    with pytest.raises(ValueError, match="at least 2"):
        score_network(cell_network(), images[:1], labels[:1])


def test_jacov_is_highest_for_uncorrelated_gradients() -> None:
    """Orthogonal zero-mean rows: every eigenvalue 1, score -n; copies of one row: one eigenvalue n,
    the others 0, far lower.
    """
    rows = torch.linalg.qr(
        torch.cat(
            [torch.ones(8, 1), torch.randn(8, 5, generator=torch_generator(0, "rows"))], dim=1
        )
    ).Q.T[1:]
    assert jacobian_score(rows) == pytest.approx(-5, abs=1e-3)
    assert jacobian_score(rows[:1].repeat(5, 1)) < -1e5
    assert jacobian_score(torch.ones(3, 8)) is None


class Shared(nn.Module):
    """Two convolutions that read one ReLU, or each its own: the same function."""

    def __init__(self, *, share: bool) -> None:
        super().__init__()
        self.share = share
        self.stem, self.a, self.b = (nn.Conv2d(c, 3, 3, padding=1, bias=False) for c in (1, 3, 3))
        for layer in (self.stem, self.a, self.b):
            nn.init.normal_(layer.weight, generator=torch_generator(0, "shared"))
        self.head = nn.Linear(3, 4)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x)
        hot = self.act(x)
        total = self.a(hot) + self.b(hot if self.share else functional.relu(x))
        out: Tensor = self.head(total.mean((2, 3)))
        return out


def test_nwot_counts_a_shared_rectifier_once_for_each_reader() -> None:
    """Sharing a ReLU between convolutions is our way of computing, not another network; modules and
    functions are both seen.
    """
    assert (
        score_network(Shared(share=True), *batch())["nwot"]
        == score_network(Shared(share=False), *batch())["nwot"]
    )
    assert overlap_score([torch.eye(3).bool()] * 2, [1, 1]) == overlap_score(
        [torch.eye(3).bool()], [2]
    )


def test_nwot_equals_hamming_distances() -> None:
    """K_ij = units - Hamming distance of the codes (Mellor et al. 2021, equation 2)."""
    code = torch.rand(5, 40, generator=torch_generator(0, "code")) > 0.5
    kernel = 40 - (code[:, None] != code[None]).sum(-1).double()
    assert overlap_score([code], [1]) == pytest.approx(
        float(torch.linalg.slogdet(kernel)[1]), rel=1e-9
    )
    assert overlap_score([], []) is None


def test_a_tied_or_missing_proxy_prefers_neither() -> None:
    """The vote is antisymmetric, and None never loses."""
    a = {"snip": 1.0, "nwot": None, "jacov": 2.0, "flops": 5.0}
    b = {"snip": 1.0, "nwot": 9.0, "jacov": 1.0, "flops": None}
    assert (preference(a, b), preference(b, a), preference(a, a)) == (1, -1, 0)
