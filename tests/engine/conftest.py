"""A small image task, a small network with batch norm, and generators of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import Fitted, RunContext, fit
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

MakeNet = Callable[[], nn.Module]


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """A torch generator of the test's own."""
    return torch_generator(0, request.node.name)


@pytest.fixture(scope="session")
def make_net() -> Callable[[], nn.Module]:
    """`make_net()`: the same small convolutional network for 1 x 4 x 4 images in 3 classes each
    time.
    """

    def make() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 3),
        )
        draws = torch_generator(0, "test network")
        with torch.no_grad():
            for parameter in (net[0].weight, net[4].weight, net[4].bias):
                parameter.normal_(0, 0.2, generator=draws)
            net[0].weight.data = net[0].weight.data.contiguous(memory_format=torch.channels_last)
        return net

    return make


def _images(count: int, name: str) -> TensorFeed:
    draws = torch_generator(0, "test pictures", name)
    images = torch.randn(count, 1, 4, 4, generator=draws)
    means = torch.stack(
        [
            images[:, 0, :2].mean((1, 2)),
            images[:, 0, 2:, :2].mean((1, 2)),
            images[:, 0, 2:, 2:].mean((1, 2)),
        ],
        1,
    )
    return TensorFeed(images, means.argmax(1))


@pytest.fixture(scope="session")
def train() -> TensorFeed:
    """100 noise images in three classes: which of three regions is brightest."""
    return _images(100, "train")


@pytest.fixture(scope="session")
def val() -> TensorFeed:
    """60 others."""
    return _images(60, "val")


@pytest.fixture
def run(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed
) -> Callable[..., tuple[Fitted, Tensor]]:
    """`run(recipe, folder, report)`: always the same question; the outcome and the generator's last
    state.
    """

    def ask(
        recipe: FitRecipe, folder: Path | None = None, report: Callable[..., None] = lambda *_: None
    ) -> tuple[Fitted, Tensor]:
        generator = torch_generator(0, "resumed")
        fitted = fit(
            make_net(),
            train,
            recipe,
            generator=generator,
            val=val,
            context=RunContext(folder=folder, report=report, save_every=0),
        )
        return fitted, generator.get_state()

    return ask
