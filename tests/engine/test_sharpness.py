"""Sharpness-aware steps against a loop written out with torch, and what they leave alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from lockforge.engine._sharpness import ETA, sam_perturbation
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import RunContext, fit
from lockforge.engine.schedule import learning_rate
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

MakeNet = Callable[[], nn.Module]
RECIPE = FitRecipe(steps=6, batch_size=100, learning_rate=0.1)


def test_the_peak_of_a_linear_loss_is_where_the_formula_says() -> None:
    """For w = (3, -1) and gradient (1, 2), by hand: T = (3.01, 1.01), T g = (3.01, 2.02), epsilon =
    rho T (T g) / |T g|.
    """
    line = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[3.0, -1.0]]))
    line.weight.grad = torch.tensor([[1.0, 2.0]])
    length = (3.01**2 + 2.02**2) ** 0.5
    with sam_perturbation(line, 0.5, {}):
        expected = torch.tensor([[3 + 0.5 * 3.01 * 3.01 / length, -1 + 0.5 * 1.01 * 2.02 / length]])
        torch.testing.assert_close(line.weight.data, expected)
    assert line.weight.tolist() == [[3.0, -1.0]]


def test_masked_weights_do_not_climb() -> None:
    """A mask of (0, 1): only the second weight moves, and the norm is its own, so that it moves by
    rho T sign(g).
    """
    line = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[0.0, -1.0]]))
    line.weight.grad = torch.tensor([[1.0, 2.0]])
    with sam_perturbation(line, 0.5, {"weight": torch.tensor([[0.0, 1.0]])}):
        torch.testing.assert_close(line.weight.data, torch.tensor([[0.0, -1 + 0.5 * 1.01]]))


def written_out(net: nn.Module, feed: TensorFeed, rho: float) -> None:
    """Whole-batch SGD (Nesterov) whose gradient is taken at the peak; statistics are of the first
    pass alone.
    """
    groups = [
        {
            "params": [p for p in net.parameters() if p.dim() > 1],
            "weight_decay": RECIPE.weight_decay,
        },
        {"params": [p for p in net.parameters() if p.dim() <= 1]},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=0.1, momentum=RECIPE.momentum, nesterov=True, foreach=False
    )
    net.train()
    for step in range(RECIPE.steps or 0):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, RECIPE.steps or 0, RECIPE)
        optimizer.zero_grad()
        functional.cross_entropy(net(feed.inputs), feed.labels).backward()
        statistics = {name: buffer.clone() for name, buffer in net.named_buffers()}
        with torch.no_grad():
            before = [p.clone() for p in net.parameters()]
            units = [p.abs() + ETA if p.dim() > 1 else torch.ones_like(p) for p in net.parameters()]
            length = (
                sum(((t * p.grad) ** 2).sum() for t, p in zip(units, net.parameters(), strict=True))
                ** 0.5
            )
            for t, p in zip(units, net.parameters(), strict=True):
                p.add_(rho * t**2 * p.grad / length)
        optimizer.zero_grad()
        functional.cross_entropy(net(feed.inputs), feed.labels).backward()
        with torch.no_grad():
            for p, old in zip(net.parameters(), before, strict=True):
                p.copy_(old)
            for name, buffer in net.named_buffers():
                if not name.endswith("num_batches_tracked"):
                    buffer.copy_(statistics[name])
        optimizer.step()


def test_the_loop_is_the_loop_written_out(make_net: MakeNet, train: TensorFeed) -> None:
    """Weights and batch-norm statistics are those of an independent implementation, and not those
    of plain steps.
    """
    sharp, plain = (
        fit(
            make_net(), train, RECIPE, generator=torch_generator(0, "sharp"), sharpness=rho
        ).module.state_dict()
        for rho in (0.5, 0.0)
    )
    expected = make_net()
    written_out(expected, train, 0.5)
    torch.testing.assert_close(sharp, expected.state_dict(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(sharp["0.weight"], plain["0.weight"], rtol=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("sharpness", [0.0, 0.5])
def test_a_mask_holds_weights_at_zero(
    make_net: MakeNet, train: TensorFeed, optimizer: str, sharpness: float
) -> None:
    """Weights under the mask are zero after training, with momentum and penalty too; all others
    have moved.
    """
    net = make_net()
    mask = torch.ones_like(net[0].weight)  # type: ignore[index,arg-type]
    mask[:, :, 1] = 0
    before = net[0].weight.detach().clone()  # type: ignore[index,operator,union-attr]
    recipe = RECIPE.model_copy(update={"optimizer": optimizer, "batch_size": 20})
    fit(
        net,
        train,
        recipe,
        generator=torch_generator(0, "held"),
        sharpness=sharpness,
        mask={"0.weight": mask},
    )
    after = net[0].weight.detach()  # type: ignore[index,operator,union-attr]
    assert bool((after[mask == 0] == 0).all())
    assert bool((after != before)[mask == 1].all())


def test_a_stored_run_with_another_mask_or_sharpness_is_not_used(
    make_net: MakeNet, train: TensorFeed, tmp_path: Path
) -> None:
    """The same folder, asked for a masked, then a sharp run, trains anew each time; asked for the
    same again, it does not.
    """
    mask = {"0.weight": torch.zeros(6, 1, 3, 3)}
    plain: dict[str, object] = {}
    for more in (plain, {"mask": mask}, {"mask": mask}, {"mask": mask, "sharpness": 0.5}):
        alone = fit(make_net(), train, RECIPE, generator=torch_generator(0, "kept"), **more)  # type: ignore[arg-type]
        context = RunContext(folder=tmp_path, save_every=0)
        stored = fit(
            make_net(), train, RECIPE, generator=torch_generator(0, "kept"), context=context, **more
        )  # type: ignore[arg-type]
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                alone.module.state_dict().values(), stored.module.state_dict().values(), strict=True
            )
        )
