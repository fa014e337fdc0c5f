"""Stacked training: the same as one by one."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import Fitted, RunContext, fit
from lockforge.engine.stack import Member, fit_stack, groups_of
from lockforge.errors import DataError, InterruptedRunError, OutcomeError
from lockforge.models.networks import build
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe
from lockforge.records import Architecture, Cell

SGD = FitRecipe(
    steps=11,
    batch_size=6,
    learning_rate=0.05,
    weight_decay=0.05,
    warmup=0.2,
    label_smoothing=0.1,
    select="last",
)
ADAM = SGD.model_copy(update={"optimizer": "adam", "learning_rate": 0.01, "schedule": "constant"})
NB201 = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_3x3~1|none~2|"
# edges behind a zero node, one dead node
DEAD = "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_3x3~1|none~2|"
# shifted halves side by side
TRANS = (
    "transnas101 "
    "|skip_connect~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
)
IMAGES = (1, 6, 6)


def network(cell: str, seed: int) -> nn.Module:
    """A small network of a space, in float64."""
    space, _, spelt = cell.rpartition(" ")
    shape = Architecture(
        space=space or "nasbench201",
        cell=Cell.parse(spelt),
        stem_channels=4,
        cells_per_stage=1,
        classes=3,
        shape=IMAGES,
    )
    return build(shape, torch_generator(seed, "network")).double()


def tiny(seed: int) -> nn.Module:
    """A convolution, a batch norm and a head, in float64."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    with torch.no_grad():
        for parameter in (net[0].weight, net[5].weight, net[5].bias):
            parameter.normal_(0, 0.4, generator=torch_generator(seed, "tiny"))
    return net.double()


def feed(count: int, seed: int) -> TensorFeed:
    """Noise images whose class is the brightest of three rows."""
    images = torch.randn(
        count, *IMAGES, generator=torch_generator(seed, "pictures"), dtype=torch.float64
    )
    return TensorFeed(images, images[:, 0, :3].mean(2).argmax(1))


def member(
    seed: int, recipe: FitRecipe = SGD, module: nn.Module | None = None, **more: Any
) -> Member:
    """One run with its own weights, data and draws; the same each time."""
    module = tiny(seed) if module is None else module
    return Member(
        module,
        feed(20 + seed, seed),
        feed(15, 100 + seed),
        recipe,
        torch_generator(seed, "draws"),
        **more,
    )


def one_by_one(members: list[Member]) -> list[Fitted]:
    """The truth: `fit` for each."""
    return [
        fit(one.module, one.train, one.recipe, generator=one.generator, val=one.val)
        for one in members
    ]


def compare(stacked: tuple[Fitted | OutcomeError, ...], alone: list[Fitted]) -> None:
    """Weights, statistics and history agree to rounding in float64. (Adam makes 1e-9 of gradients
    that are zero but for rounding.)
    """
    for one, other in zip(stacked, alone, strict=True):
        assert isinstance(one, Fitted)
        torch.testing.assert_close(
            one.module.state_dict(), other.module.state_dict(), rtol=1e-8, atol=1e-8
        )
        assert one.val_accuracy == pytest.approx(other.val_accuracy, abs=0, nan_ok=True)
        assert one.steps == other.steps
        assert len(one.history) == len(other.history)
        for line, wanted in zip(one.history, other.history, strict=True):
            assert line.val_accuracy == wanted.val_accuracy
            assert line.model_dump(exclude={"val_accuracy"}) == pytest.approx(
                wanted.model_dump(exclude={"val_accuracy"}), rel=1e-8
            )
        assert not one.module.training


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("cell", [NB201, DEAD, TRANS], ids=["nb201", "zero node", "trans"])
def test_a_stack_is_its_members_trained_alone(cell: str, recipe: FitRecipe) -> None:
    """Own weights, data, draws, rate, penalty, momentum, warm-up and length: histories and final
    states of K runs of `fit`.
    """
    own = [
        {"learning_rate": 0.02},
        {"momentum": 0.5, "warmup": 0.0},
        {"weight_decay": 0.2, "steps": 7},
        {"steps": 14, "schedule": "cosine", "learning_rate": 0.03},
    ]
    members, twins = (
        [
            member(i, recipe.model_copy(update=update), network(cell, i))
            for i, update in enumerate(own)
        ]
        for _ in range(2)
    )
    assert groups_of(members) == ((0, 1, 2, 3),)
    compare(fit_stack(members), one_by_one(twins))
    for one, other in zip(members, twins, strict=True):
        assert one.generator.get_state().equal(other.generator.get_state())


def test_epochs_and_the_best_state() -> None:
    """Runs given in epochs have a line each, and the state that validation likes best is kept, each
    member its own.
    """
    recipe = SGD.model_copy(
        update={"steps": None, "epochs": 5, "select": "best", "learning_rate": 0.3}
    )
    members, twins = ([member(i, recipe) for i in range(3)] for _ in range(2))
    alone = one_by_one(twins)
    compare(fit_stack(members), alone)
    assert any(
        one.history[-1].val_accuracy != one.val_accuracy for one in alone
    )  # an earlier state was kept somewhere


def test_frozen_parts_stay_as_they_are() -> None:
    """A frozen stem keeps weights and statistics; the rest is trained as `fit` trains it."""
    members, twins = ([member(i) for i in range(2)] for _ in range(2))
    for one in members + twins:
        one.module[:2].requires_grad_(requires_grad=False)
    before = copy.deepcopy(members[1].module[:2].state_dict())
    compare(fit_stack(members), one_by_one(twins))
    assert all(
        tensor.equal(before[name]) for name, tensor in members[1].module[:2].state_dict().items()
    )


def test_a_head_on_features_is_stacked_too() -> None:
    """Linear layers on plain features; without validation data the accuracy is not a number."""

    def heads() -> list[Member]:
        found = []
        for i in range(3):
            net = nn.Sequential(
                nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3, bias=False)
            ).double()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.normal_(0, 0.5, generator=torch_generator(i, "head"))
            inputs = torch.randn(
                30, 5, generator=torch_generator(i, "features"), dtype=torch.float64
            )
            found.append(
                Member(
                    net,
                    TensorFeed(inputs, inputs[:, :3].argmax(1)),
                    None,
                    ADAM,
                    torch_generator(i, "draws"),
                )
            )
        return found

    members = heads()
    assert groups_of(members) == ((0, 1, 2),)
    outcomes = fit_stack(members)
    compare(outcomes, one_by_one(heads()))
    assert all(isinstance(one, Fitted) and math.isnan(one.val_accuracy) for one in outcomes)


def test_a_masked_weight_is_zero_and_stays_there() -> None:
    """Under a mask the training is that of `fit` with masked weights and gradients; stacked with
    others or alone, for both optimisers.
    """
    for recipe in (SGD, ADAM):
        name = "0.weight"
        masks = [
            (torch.rand(4, 1, 3, 3, generator=torch_generator(i, "mask")) > 0.5) for i in range(2)
        ]
        members = [
            member(0, recipe, mask={name: masks[0]}),
            member(1, recipe, mask={name: masks[1]}),
            member(2, recipe),
        ]
        twins = [member(i, recipe) for i in range(3)]
        for twin, mask in zip(twins[:2], masks, strict=True):
            weight = twin.module.get_parameter(name)
            weight.data *= mask
            weight.register_hook(lambda gradient, mask=mask: gradient * mask)
        alone = one_by_one(twins)
        compare(fit_stack(members), alone)
        assert all(
            bool((one.module.get_parameter(name)[~mask] == 0).all())
            for one, mask in zip(members, masks, strict=False)
        )
        compare(fit_stack([member(0, recipe, mask={name: masks[0]})]), alone[:1])


@dataclass(frozen=True)
class Poisoned:
    """A feed whose images are not finite from a batch on."""

    feed: TensorFeed
    since: int
    value: float

    def __len__(self) -> int:
        return len(self.feed)

    def batches(
        self, batch_size: int, generator: torch.Generator | None, **more: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As the feed behind it, then broken."""
        for index, (inputs, labels) in enumerate(self.feed.batches(batch_size, generator, **more)):
            broken = generator is not None and index >= self.since
            yield (inputs * self.value if broken else inputs), labels


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_members_that_diverge_disturb_nobody(value: float) -> None:
    """A member with broken images gets the error that `fit` raises, at its step; its neighbours'
    figures stay those of `fit`.
    """

    def members() -> list[Member]:
        found = [member(i) for i in range(4)]
        for index, since in ((1, 2), (2, 0)):
            found[index] = replace(found[index], train=Poisoned(found[index].train, since, value))
        return found

    outcomes, twins = fit_stack(members()), members()
    compare((outcomes[0], outcomes[3]), one_by_one([twins[0], twins[3]]))
    for index in (1, 2):
        with pytest.raises(OutcomeError) as raised:
            one_by_one([twins[index]])
        assert isinstance(outcomes[index], OutcomeError)
        assert str(outcomes[index]) == str(raised.value)


def test_weights_that_burst_in_the_last_step_are_not_handed_back() -> None:
    """With an enormous rate the only loss is finite and the weights are not; the neighbour is
    well.
    """
    recipe = SGD.model_copy(update={"steps": 1, "warmup": 0.0})
    burst = recipe.model_copy(update={"learning_rate": 1e300, "weight_decay": 1e300})
    good, bad = fit_stack([member(0, recipe), member(1, burst)])
    assert isinstance(bad, OutcomeError)
    assert "a weight is not finite in epoch 1, step 1 of 1" in str(bad)
    compare((good,), one_by_one([member(0, recipe)]))


class Odd(nn.Module):
    """A network with a call that mixes whatever lies on axis 1."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3).double()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """head(call(x))."""
        return self.head(self.call(x.flatten(1)))


@pytest.mark.parametrize(
    "call",
    [
        functional.normalize,
        lambda x: x.softmax(1),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: functional.dropout(x, 0.5),
    ],
)
def test_what_mixes_channels_is_left_alone(call: Any) -> None:
    """A network whose calls are not known to keep the members apart is trained by `fit`, and so is
    what nobody else is like.
    """
    members = [member(i, module=Odd(call)) for i in range(2)]
    assert groups_of(members) == ((0,), (1,))


class Scale:
    """A factor that its `repr` does not show."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __repr__(self) -> str:
        return "Scale"

    def __call__(self, x: Tensor) -> Tensor:
        """Factor times x."""
        return x * self.factor


def test_a_fold_that_answers_otherwise_is_not_used() -> None:
    """Networks that look alike and are not are noticed by their answers; those that are alike in
    fact go together.
    """
    assert groups_of([member(i, module=Odd(Scale(1.0 + i))) for i in range(2)]) == ((0,), (1,))
    assert groups_of([member(i, module=Odd(Scale(2.0))) for i in range(2)]) == ((0, 1),)


def test_only_like_goes_with_like() -> None:
    """Another cell of the same weights, batch size, optimiser, smoothing, frozen part or hook: a
    group of its own.
    """
    other_cell = NB201.replace("avg_pool_3x3~0", "skip_connect~0")
    members = [member(i, module=network(NB201, i)) for i in range(4)]
    members += [
        member(4, module=network(other_cell, 4)),
        member(5, SGD.model_copy(update={"batch_size": 5}), network(NB201, 5)),
    ]
    members += [
        member(6, ADAM, network(NB201, 6)),
        member(7, SGD.model_copy(update={"label_smoothing": 0.0}), network(NB201, 7)),
    ]
    members += [member(i, module=network(NB201, i)) for i in (8, 9)]
    members[8].module.stem.requires_grad_(requires_grad=False)
    members[9].module.head.register_forward_hook(lambda *_: None)
    assert groups_of(members[:9]) == ((0, 1, 2, 3), (4,), (5,), (6,), (7,), (8,))
    assert groups_of(members[9:] + members[:1]) == ((0,), (1,))


def test_a_stack_is_no_larger_than_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of one kind are shared out evenly: seven in stacks of at most three are 3, 3 and
    1.
    """
    largest = 4 * 36 * SGD.batch_size  # of one member: four channels of 6 x 6 pixels
    monkeypatch.setattr("lockforge.engine.stack.MOST_CPU", 3 * largest)
    assert [len(group) for group in groups_of([member(i) for i in range(7)])] == [3, 3, 1]


def test_faults_are_named() -> None:
    """No examples, a mask that fits nothing, a shared module or generator, a folder: refused before
    anything is trained.
    """
    one, other = member(0), member(1)
    with pytest.raises(DataError, match=r"no train examples for members \[1\]"):
        fit_stack([one, replace(other, train=feed(0, 0))])
    with pytest.raises(ValueError, match=r"mask of member 0 .*: 5.bias, nothing"):
        fit_stack([replace(one, mask={"5.bias": torch.ones(4), "nothing": torch.ones(1)})])
    with pytest.raises(ValueError, match="share a module"):
        fit_stack([one, replace(other, module=one.module)])
    with pytest.raises(ValueError, match="share a generator"):
        fit_stack([one, replace(other, generator=one.generator)])


def test_a_report_can_end_a_stack() -> None:
    """Progress is told in steps from 0 to the longest member's; what it raises goes through."""
    told: list[float] = []
    fit_stack(
        [member(0), member(1)],
        context=RunContext(report=lambda done, total, _: told.append(done / total)),
    )
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert told == sorted(told)

    def brake(done: float, _total: float, _note: str) -> None:
        if done > 3:
            raise InterruptedRunError("enough")

    with pytest.raises(InterruptedRunError):
        fit_stack([member(0), member(1)], context=RunContext(report=brake))


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    """Two stacks under different global states end with the same bits and leave it as it was."""
    ends = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            members = [member(0), member(1)]
            before = torch.get_rng_state()
            ends.append(
                [one.module.state_dict() for one in fit_stack(members) if isinstance(one, Fitted)]
            )
            assert torch.get_rng_state().equal(before)
    assert all(
        a.equal(b)
        for one, other in zip(*ends, strict=True)
        for a, b in zip(one.values(), other.values(), strict=True)
    )


@pytest.mark.gpu
def test_a_gpu_stacks_as_the_cpu_does() -> None:
    """In float64 without autocast the two devices end at the same weights, to rounding."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    recipe = SGD.model_copy(update={"precision": "float32"})
    alone = one_by_one([member(i, recipe) for i in range(3)])
    stacked = fit_stack([member(i, recipe) for i in range(3)], context=RunContext("cuda"))
    for one in stacked:
        assert isinstance(one, Fitted)
        one.module.cpu()
    compare(stacked, alone)
