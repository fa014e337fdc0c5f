"""A disguise is learned from outputs alone, along a gradient that points the right way."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from lockforge.audit._closed_form import left_out_error, standardised, targets_of
from lockforge.audit._queries import oracle_of
from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers._disguise import PAIRS, Form, asked_error, disguise, settings, spsa
from lockforge.audit.protocol import Attempt, Budget, Capabilities, InitialModel
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.models.networks import CellNetwork, build, load, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Cell, ImageSet, Op
from lockforge.spaces.counts import flops

CELL = Cell(ops=(Op.none, Op.none, Op.none, Op.conv3x3, Op.none, Op.none))
DRAW = partial(torch_generator, 0, "worn")

Run = Callable[..., Sequence[Attempt]]


def network(channels: int = 1) -> CellNetwork:
    """A random network for four classes."""
    shape = Architecture(
        space="nasbench201",
        cell=CELL,
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(channels, 6, 6),
    )
    return build(shape, torch_generator(0, "asked"))


def test_without_parameters_nothing_is_changed_and_many_disguises_are_worn_as_one_by_one() -> None:
    """All zeros: the same pixels. Three disguises at once, coloured images: as each by itself."""
    form = Form(3, 7, 5)
    generator = torch_generator(0, "form")
    x, theta = (
        torch.randn(4, 3, 7, 5, generator=generator),
        torch.randn(3, sum(form.sizes), generator=generator),
    )
    assert torch.equal(form.wear(x, torch.zeros(1, sum(form.sizes))), x)
    together = form.wear(x, theta)
    torch.testing.assert_close(together, torch.cat([form.wear(x, one[None]) for one in theta]))
    assert not torch.allclose(together[:4], together[4:8])


def test_the_estimated_gradient_points_along_the_true_one(data: AttackerData) -> None:
    """Against the gradient that backpropagation through the same network gives: a clearly positive
    cosine, and no better by chance.
    """
    given, form = network(), Form(1, 6, 6)
    oracle, _ = oracle_of(InitialModel(given))
    batch = data.train.pixels(), data.train.labels
    theta = torch.zeros(sum(form.sizes), requires_grad=True)
    z, _, _ = standardised(given.eval().features(form.wear(batch[0], theta[None])))
    left_out_error(z[None], targets_of(batch[1], 4)[0], 0.1).sum().backward()
    signs = torch.randint(2, (256, len(theta)), generator=torch_generator(0, "signs")) * 2.0 - 1
    estimate = spsa(asked_error(form, oracle, batch, 4), theta.detach(), signs, 0.003)
    assert theta.grad is not None
    assert float(torch.cosine_similarity(estimate, theta.grad, dim=0)) > 0.7


def test_no_backward_pass_is_made(
    data: AttackerData, run_attack: Run, facts: Capabilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every query is asked without a graph, and `backward` is never called; the network is as it
    was.
    """
    given = network()
    before = state(given)
    asked: list[int] = []
    original = CellNetwork.features

    def counted(self: CellNetwork, x: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        asked.append(len(x))
        return original(self, x)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a backward pass")

    monkeypatch.setattr(CellNetwork, "features", counted)
    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    attempts = run_attack(disguise, given, data, settings(AuditRecipe(), facts), Budget(3, 8), DRAW)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(given).items())
    each = 3 * 8 * 2 * PAIRS + 20
    assert sum(asked) == 2 * (each + 20)  # the last 20: his validation images
    assert [attempt.operations for attempt in attempts] == [flops(given.architecture) * each] * 2


def test_a_disguise_undoes_what_was_done_to_the_images(
    files: object,
    target: ImageSet,
    train: Callable[..., object],
    data: AttackerData,
    run_attack: Run,
    facts: Capabilities,
) -> None:
    """A network that knows the patterns sees them faint and dark: after the steps more of the
    training images are told apart.
    """
    known = train(CELL, target, 80)
    # checkpoint and files
    given = load(known.architecture, files.get_tensors(known.weights))  # type: ignore[attr-defined]
    faint = AttackerData(train=_faint(data), val=_faint(data))
    form, steps = Form(1, 6, 6), Budget(30, 20)
    head = {
        name.removeprefix("head."): tensor
        for name, tensor in state(given).items()
        if name.startswith("head.")
    }
    service = InitialModel(given, source_head=head)
    oracle, _ = oracle_of(service)
    error = asked_error(form, oracle, (faint.train.pixels(), faint.train.labels), 4)
    for attempt in run_attack(
        disguise, service, faint, settings(AuditRecipe(), facts), steps, DRAW
    ):
        theta = attempt.network.theta
        assert float(error(theta[None])) < 0.9 * float(error(torch.zeros_like(theta)[None]))
        assert accuracy(*logits_of(attempt.network, faint.val)) == attempt.val_accuracy


def _faint(data: AttackerData) -> object:
    """The training images with a tenth of the contrast and darker."""
    images = (data.train.images.float() / 10 + 5).to(torch.uint8)
    return type(data.train)(
        images, data.train.labels, data.train.mean, data.train.std, data.train.classes
    )
