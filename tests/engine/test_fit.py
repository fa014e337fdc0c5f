"""The training loop."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import RunContext, fit
from lockforge.engine.schedule import learning_rate
from lockforge.errors import DataError, OutcomeError
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

MakeNet = Callable[[], nn.Module]
SGD = FitRecipe(
    epochs=4, batch_size=16, learning_rate=0.1, weight_decay=0.05, warmup=0.1, label_smoothing=0.1
)
ADAM = SGD.model_copy(update={"optimizer": "adam", "learning_rate": 0.01})


def plain_loop(
    net: nn.Module, feed: TensorFeed, recipe: FitRecipe, generator: torch.Generator
) -> None:
    """The same training, written out with torch's own single-tensor optimisers."""
    matrices = [p for p in net.parameters() if p.dim() > 1]
    vectors = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors}]
    plain = {"lr": recipe.learning_rate, "foreach": False}
    sgd = recipe.optimizer == "sgd"
    optimizer = (
        torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=True, **plain)
        if sgd
        else torch.optim.Adam(groups, **plain)
    )
    per_pass = len(feed) // recipe.batch_size
    for step in range(recipe.epochs * per_pass):
        if step % per_pass == 0:
            batches = feed.batches(recipe.batch_size, generator)
        inputs, labels = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.epochs * per_pass, recipe)
        optimizer.zero_grad()
        functional.cross_entropy(
            net.train()(inputs), labels, label_smoothing=recipe.label_smoothing
        ).backward()
        optimizer.step()


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
def test_the_loop_is_the_plain_loop(
    make_net: MakeNet, train: TensorFeed, recipe: FitRecipe
) -> None:
    """An independent implementation ends at the same weights and statistics, to rounding, whatever
    mode the network came in.
    """
    fitted = fit(make_net().eval(), train, recipe, generator=torch_generator(0, "same"))
    plain = make_net()
    plain_loop(plain, train, recipe, torch_generator(0, "same"))
    torch.testing.assert_close(fitted.module.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-6)


def test_a_network_learns_the_task(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, generator: torch.Generator
) -> None:
    """From a third to nine tenths of unseen images right; the loss falls, and the network is
    handed back in eval mode.
    """
    net = make_net()
    before = accuracy(*logits_of(net, val))
    fitted = fit(net, train, FitRecipe(epochs=20, batch_size=20), generator=generator, val=val)
    assert before < 0.6
    assert fitted.val_accuracy > 0.85
    assert fitted.history[-1].loss < fitted.history[0].loss / 3
    assert fitted.module is net
    assert not net.training
    assert fitted.steps == 100


@dataclass
class ImageFeed:
    """A feed that notes how it is asked."""

    feed: TensorFeed
    asked: list[tuple[bool, int, bool, float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.feed)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As the feed behind it, which cannot augment."""
        self.asked.append((generator is not None, crop, flip, balance))
        return self.feed.batches(batch_size, generator)


def test_training_images_are_augmented_and_validation_images_are_not(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, generator: torch.Generator
) -> None:
    """The recipe's crop, flip and balance reach the training feed in every pass, the validation
    feed is read in order as it is.
    """
    images, held = ImageFeed(train), ImageFeed(val)
    fit(
        make_net(),
        images,
        FitRecipe(epochs=3, crop=2, flip=True, balance=0.5),
        generator=generator,
        val=held,
    )
    assert images.asked == [(True, 2, True, 0.5)] * 3
    assert held.asked == [(False, 0, False, 0.0)] * 3


def test_a_run_in_steps_takes_exactly_so_many(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, generator: torch.Generator
) -> None:
    """25 steps over passes of 6: five passes are begun, ten lines are written, each validated."""
    images = ImageFeed(train)
    fitted = fit(
        make_net(), images, FitRecipe(steps=25, batch_size=16), generator=generator, val=val
    )
    assert fitted.steps == 25
    assert len(images.asked) == 5
    assert [line.epoch for line in fitted.history] == list(range(1, 11))
    assert all(line.val_accuracy is not None for line in fitted.history)


def test_fewer_steps_than_lines(
    make_net: MakeNet, train: TensorFeed, generator: torch.Generator
) -> None:
    """Three steps are three lines; an example count below the batch size is one batch."""
    fitted = fit(make_net(), train, FitRecipe(steps=3, batch_size=512), generator=generator)
    assert (fitted.steps, len(fitted.history)) == (3, 3)
    assert math.isnan(fitted.val_accuracy)


def test_the_best_state_is_kept(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, generator: torch.Generator
) -> None:
    """With validation labels that contradict the training labels learning only hurts: an early
    state is handed back, not the last.
    """
    wrong = TensorFeed(val.inputs, (val.labels + 1) % 3)
    fitted = fit(
        make_net(), train, FitRecipe(epochs=8, batch_size=20), generator=generator, val=wrong
    )
    scores = [line.val_accuracy for line in fitted.history]
    assert fitted.val_accuracy == max(scores) > scores[-1]
    assert accuracy(*logits_of(fitted.module, wrong)) == fitted.val_accuracy


def test_of_equally_good_states_the_later_is_kept(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed
) -> None:
    """A validation set that every state gets wrong chooses the last one: the same weights as
    `select: last`.
    """
    never = TensorFeed(val.inputs, torch.full_like(val.labels, 7))
    best, last = (
        fit(
            make_net(),
            train,
            FitRecipe(epochs=3, batch_size=20, select=select),
            generator=torch_generator(0, "ties"),
            val=never,
        ).module
        for select in ("best", "last")
    )
    assert all(
        a.equal(b)
        for a, b in zip(best.state_dict().values(), last.state_dict().values(), strict=True)
    )


def test_last_validates_a_run_in_steps_once(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, generator: torch.Generator
) -> None:
    """Nothing is chosen on the way, so nothing is measured on the way; the figure is of the weights
    handed back.
    """
    held = ImageFeed(val)
    fitted = fit(
        make_net(),
        train,
        FitRecipe(steps=20, batch_size=20, select="last"),
        generator=generator,
        val=held,
    )
    assert len(held.asked) == 1
    assert (
        fitted.val_accuracy
        == fitted.history[-1].val_accuracy
        == accuracy(*logits_of(fitted.module, val))
    )


def test_frozen_parts_stay_as_they_are(
    make_net: MakeNet, train: TensorFeed, generator: torch.Generator
) -> None:
    """Weights without gradients and the statistics of a frozen batch norm keep their bits; the rest
    moves.
    """
    net = make_net()
    for part in net[:2]:
        part.requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fit(net, train, FitRecipe(epochs=2, batch_size=20), generator=generator)
    moved = {name for name, tensor in net.state_dict().items() if not tensor.equal(before[name])}
    assert moved == {"4.weight", "4.bias"}


def test_vectors_carry_no_weight_penalty(
    make_net: MakeNet, train: TensorFeed, generator: torch.Generator
) -> None:
    """With a loss that is always zero only the penalty acts: it shrinks kernels and matrices,
    biases and batch norms stay.
    """
    net = make_net()
    before = {name: tensor.detach().clone() for name, tensor in net.named_parameters()}
    recipe = FitRecipe(steps=5, learning_rate=0.1, weight_decay=0.1)
    fit(net, train, recipe, generator=generator, loss=lambda outputs, _labels: 0 * outputs.sum())
    shrunk = {
        name
        for name, tensor in net.named_parameters()
        if float(tensor.detach().norm()) < float(before[name].norm())
    }
    assert shrunk == {"0.weight", "4.weight"}


def test_another_loss_and_single_logits(generator: torch.Generator) -> None:
    """A predictor with one logit an example is trained on its own loss, and its accuracy is by
    sign.
    """
    inputs = torch.randn(200, 3, generator=generator)
    feed = TensorFeed(inputs, (inputs.sum(1) > 0).float())
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    nn.init.zeros_(net[0].weight)
    recipe = FitRecipe(steps=60, batch_size=50, optimizer="adam", learning_rate=0.1)
    assert (
        fit(
            net,
            feed,
            recipe,
            generator=generator,
            val=feed,
            loss=functional.binary_cross_entropy_with_logits,
        ).val_accuracy
        > 0.95
    )


def test_divergence_names_epoch_step_and_rate(
    make_net: MakeNet, train: TensorFeed, generator: torch.Generator
) -> None:
    """A loss that is infinite in its eighth step, the second of the second epoch of six."""
    calls = iter(range(100))

    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels) * (math.inf if next(calls) == 7 else 1)

    recipe = FitRecipe(epochs=3, batch_size=16, learning_rate=0.25, schedule="constant")
    with pytest.raises(
        OutcomeError, match=r"the loss is inf in epoch 2, step 8 of 18, learning rate 0.25"
    ):
        fit(make_net(), train, recipe, generator=generator, loss=loss)


def test_weights_that_burst_in_the_last_step_are_not_handed_back(
    train: TensorFeed, generator: torch.Generator
) -> None:
    """The loss of the only step is finite, its gradient is not."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(OutcomeError, match="a weight is not finite in epoch 1, step 1 of 1"):
        fit(
            net,
            train,
            FitRecipe(steps=1),
            generator=generator,
            loss=lambda outputs, _: (outputs - outputs.detach()).abs().sqrt().sum(),
        )


def test_progress_is_told_in_the_recipes_own_unit(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed, generator: torch.Generator
) -> None:
    """From 0 to the total, rising, the last note with loss and validation accuracy; epochs for
    epochs, steps for steps.
    """
    for recipe, total in (
        (FitRecipe(epochs=3, batch_size=20), 3.0),
        (FitRecipe(steps=20, batch_size=20), 20.0),
    ):
        told: list[tuple[float, float, str]] = []
        context = RunContext(report=lambda *line, told=told: told.append(line))
        fitted = fit(make_net(), train, recipe, generator=generator, val=val, context=context)
        done = [line[0] for line in told]
        assert done == sorted(done)
        assert (done[0], done[-1], {line[1] for line in told}) == (0.0, total, {total})
        assert (
            told[-1][2]
            == f"loss {fitted.history[-1].loss:.3f}, val {fitted.history[-1].val_accuracy:.3f}"
        )


def test_no_examples_are_a_data_error(
    make_net: MakeNet, train: TensorFeed, generator: torch.Generator
) -> None:
    """The error says which of the two is empty."""
    empty = TensorFeed(train.inputs[:0], train.labels[:0])
    with pytest.raises(DataError, match="no training examples"):
        fit(make_net(), empty, FitRecipe(steps=1), generator=generator)
    with pytest.raises(DataError, match="no validation examples"):
        fit(make_net(), train, FitRecipe(steps=1), generator=generator, val=empty)


def test_the_global_random_state_is_neither_read_nor_moved(
    make_net: MakeNet, train: TensorFeed
) -> None:
    """The same generator gives the same bits whatever the global state is, and leaves it as it
    was.
    """
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            net = make_net()
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            results.append(
                fit(net, train, SGD, generator=torch_generator(0, "own")).module.state_dict()
            )
            assert torch.get_rng_state().equal(before)
    assert all(a.equal(b) for a, b in zip(results[0].values(), results[1].values(), strict=True))


@pytest.mark.gpu
def test_a_gpu_learns_as_the_cpu_does(
    make_net: MakeNet, train: TensorFeed, val: TensorFeed
) -> None:
    """bfloat16 and channels-last reach the accuracy of float32 on the CPU within a few images."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    scores = [
        fit(
            make_net(),
            train,
            FitRecipe(epochs=20, batch_size=20),
            generator=torch_generator(0, "gpu"),
            val=val,
            context=RunContext(device),
        ).val_accuracy
        for device in ("cpu", "cuda")
    ]
    assert abs(scores[0] - scores[1]) < 0.1
