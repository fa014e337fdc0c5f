"""The Fisher engine against closed forms, laws and an independent implementation."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lockforge.embed.fisher import diagonal_fisher, directions


class Small(nn.Module):
    """Every kind of layer the engine knows: stride, groups, dilation, 1x1, linear; many positions
    and few.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.c = nn.Conv2d(8, 6, 1, stride=2, bias=False)
        self.d = nn.Conv2d(6, 12, 3, padding=2, dilation=2)
        self.unused = nn.Conv2d(1, 1, 1)
        self.e = nn.Linear(12, 7)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)
        nn.init.uniform_(self.bn.running_var, 0.5, 2, generator=generator)
        self.eval().requires_grad_(requires_grad=False)

    def pooled(self, x: Tensor) -> Tensor:
        """Seven features."""
        x = torch.relu(self.b(torch.relu(self.bn(self.a(x)))))
        return torch.tanh(self.e(torch.tanh(self.d(self.c(x))).mean((2, 3))))


@pytest.fixture
def generator() -> torch.Generator:
    """Where this test's draws come from."""
    return torch.Generator().manual_seed(3)


@pytest.fixture
def small(generator: torch.Generator) -> Small:
    """A small network with random weights."""
    return Small(generator)


def head_of(features: int, classes: int, generator: torch.Generator) -> nn.Linear:
    """A random head."""
    head = nn.Linear(features, classes)
    for parameter in head.parameters():
        nn.init.normal_(parameter, generator=generator)
    return head.requires_grad_(requires_grad=False)


def by_vmap(network: Small, head: nn.Linear, images: Tensor) -> Tensor:
    """The definition, spelt out: per-sample gradients of every log p(y|x), squared, weighted by
    p(y|x), averaged.
    """
    weights = {
        name: p
        for name, p in network.named_parameters()
        if p.ndim > 1 and not name.startswith("unused")
    }

    def log_p(given: dict[str, Tensor], image: Tensor, y: int) -> Tensor:
        features = functional_call(
            _Pooled(network), {f"network.{name}": p for name, p in given.items()}, (image[None],)
        )
        return torch.log_softmax(head(features), dim=1)[0, y]

    probabilities = torch.softmax(head(network.pooled(images)), dim=1)
    parts: dict[str, Tensor] = {
        name: torch.zeros(p.shape, dtype=torch.float64) for name, p in weights.items()
    }
    for y in range(probabilities.shape[1]):
        for name, g in vmap(grad(log_p), (None, 0, None))(weights, images, y).items():
            parts[name] += torch.einsum(
                "n,n...->...", probabilities[:, y].double(), g.double().square()
            ) / len(images)
    return torch.cat([part.flatten(1).mean(1) for part in parts.values()])


class _Pooled(nn.Module):
    def __init__(self, network: Small) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.pooled(images)


def test_the_engine_equals_per_sample_gradients(small: Small, generator: torch.Generator) -> None:
    """On every kind of layer the hooks give what vmap(grad) gives, within 1e-4; a layer that is not
    run through has no entry.
    """
    images, head = torch.randn((6, 3, 16, 16), generator=generator), head_of(7, 4, generator)
    found = diagonal_fisher(small, head, [images], generator=generator)
    wanted = by_vmap(small, head, images)
    assert found.shape == (4 + 8 + 6 + 12 + 7,)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=0)


def test_a_linear_softmax_model_has_its_closed_form(generator: torch.Generator) -> None:
    """For logits W x the Fisher of row y is E p_y (1 - p_y) x^2, so its mean over inputs is E p_y
    (1 - p_y) |x|^2 / i.
    """

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Linear(12, 5, bias=False)
            nn.init.normal_(self.w.weight, std=0.3, generator=generator)

        def pooled(self, x: Tensor) -> Tensor:
            return self.w(x.flatten(1))

    network = Linear().requires_grad_(requires_grad=False)
    head = nn.Linear(5, 5)
    nn.init.eye_(head.weight)
    nn.init.zeros_(head.bias)
    images = torch.randn((9, 3, 2, 2), generator=generator)
    p = torch.softmax(network.pooled(images), dim=1)
    wanted = (p * (1 - p) * images.flatten(1).square().sum(1, keepdim=True)).mean(0) / 12
    found = diagonal_fisher(
        network, head.requires_grad_(requires_grad=False), [images], generator=generator
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def test_images_do_not_feel_each_other(small: Small, generator: torch.Generator) -> None:
    """Per sample: the result is the mean over single images, however they are batched (minibatch
    gradients would not be).
    """
    images, head = torch.randn((6, 3, 16, 16), generator=generator), head_of(7, 3, generator)
    whole = diagonal_fisher(small, head, [images], generator=generator)
    batched = diagonal_fisher(small, head, images.split(4), generator=generator)
    singles = torch.stack(
        [diagonal_fisher(small, head, [image[None]], generator=generator) for image in images]
    ).mean(0)
    torch.testing.assert_close(batched, whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(singles, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("classes", [2, 5])
def test_directions_are_exact_up_to_five_classes(classes: int, generator: torch.Generator) -> None:
    """Sum v v^T = diag(p) - p p^T, and nothing is drawn."""
    p = torch.softmax(torch.randn((4, classes), generator=generator), dim=1)
    before = generator.get_state()
    v = directions(p, generator)
    torch.testing.assert_close(
        torch.einsum("rnk,rnl->nkl", v, v),
        torch.diag_embed(p) - p[:, :, None] * p[:, None, :],
        rtol=1e-5,
        atol=1e-7,
    )
    assert torch.equal(generator.get_state(), before)


def test_sign_draws_are_right_in_expectation(generator: torch.Generator) -> None:
    """The mean of v v^T over 20,000 draws is diag(p) - p p^T within six standard errors (an entry's
    deviation is below .25).
    """
    p = torch.softmax(torch.randn((1, 8), generator=generator), dim=1).expand(20_000, -1)
    v = directions(p, generator, most=1)
    mean = torch.einsum("rnk,rnl->kl", v, v) / 20_000
    assert v.shape == (1, 20_000, 8)
    torch.testing.assert_close(
        mean, torch.diag(p[0]) - p[0][:, None] * p[0][None], rtol=0, atol=6 * 0.25 / 20_000**0.5
    )


def test_sign_draws_come_near_the_exact_diagonal(small: Small, generator: torch.Generator) -> None:
    """On ten classes and 128 images five draws give each filter within 25 % of the sum over all
    y, the whole within a cosine of .995.
    """
    images, head = torch.randn((128, 3, 16, 16), generator=generator), head_of(7, 10, generator)
    drawn = diagonal_fisher(small, head, [images], generator=generator)
    exact = diagonal_fisher(small, head, [images], generator=generator, most=10)
    torch.testing.assert_close(drawn, exact, rtol=0.25, atol=0)
    assert float(torch.cosine_similarity(drawn, exact, dim=0)) > 0.995


def test_no_images_have_no_information(small: Small, generator: torch.Generator) -> None:
    """An empty iterable is a mistake, not a zero."""
    with pytest.raises(ValueError, match="no images"):
        diagonal_fisher(small, head_of(7, 3, generator), [], generator=generator)


def test_an_unknown_padding_is_refused(generator: torch.Generator) -> None:
    """Reflected borders would be unfolded wrongly: better an error than a wrong number."""
    network = Small(generator)
    network.a = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect", bias=False)
    with pytest.raises(ValueError, match="reflect"):
        diagonal_fisher(
            network, head_of(7, 3, generator), [torch.zeros((1, 3, 16, 16))], generator=generator
        )
