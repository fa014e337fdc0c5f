"""The objective of a W step: what it adds up, and that strangers leave no trace in the network's
statistics.
"""

import pytest
import torch
from torch.nn import functional

from lockforge.data.batches import Pool
from lockforge.models.classifier import Classifier
from lockforge.models.networks import build, state
from lockforge.prune._masks import prunable
from lockforge.prune._objective import Objective, as_strangers_see, new_stranger
from lockforge.randomness import torch_generator
from lockforge.recipe import PruneRecipe
from lockforge.records import NamedArchitecture
from tests.engine.test_waiting import questions_of

RECIPE = PruneRecipe(method="ntp", alpha=0.5, bound=100.0, fisher=2.0)


def pool(classes: int, name: str) -> Pool:
    """Twelve images of noise a class."""
    draw = torch_generator(0, "pool", name)
    count = 12 * classes
    images = torch.randint(256, (count, 1, 8, 8), generator=draw).to(torch.uint8)
    return Pool(
        images, torch.arange(count) % classes, torch.tensor([0.5]), torch.tensor([0.3]), classes
    )


@pytest.fixture
def network() -> Classifier:
    """Fresh weights, five classes."""
    return build(
        NamedArchitecture(name="vgg6_bn_thin-cifar", classes=5, shape=(1, 8, 8)),
        torch_generator(0, "network"),
    )


def objective_of(network: Classifier, recipe: PruneRecipe, *pools: Pool) -> Objective:
    """Of these strangers, twenty images of each a step."""
    strangers = [
        new_stranger(one, network, 20, torch_generator(0, "stranger", at))
        for at, one in enumerate(pools)
    ]
    return Objective(network, recipe, strangers, torch_generator(0, "statistics"))


def test_strangers_leave_the_kept_statistics_as_they_were(network: Classifier) -> None:
    """Both ways of passing them, from train mode: no buffer of the network changes, and the mode is
    what it was.
    """
    network.train()
    before = state(network)
    for own in (True, False):
        with as_strangers_see(network, own=own):
            network.features(pool(5, "strangers").pixels())
    assert all(before[name].equal(tensor) for name, tensor in state(network).items())
    assert all(module.training for module in network.modules())
    network(pool(5, "source").pixels())
    assert not all(before[name].equal(tensor) for name, tensor in state(network).items())


def test_with_their_own_statistics_strangers_are_normalised_and_without_they_are_not(
    network: Classifier,
) -> None:
    """Images of twice the contrast look the same behind batch norms of their own, and other
    behind the source's.
    """
    network.train()
    plain, strong = pool(5, "strangers").pixels(), 2 * pool(5, "strangers").pixels()
    differences = []
    for own in (True, False):
        with as_strangers_see(network, own=own), torch.no_grad():
            differences.append(
                float((network.features(strong) - network.features(plain)).abs().max())
            )
    assert differences[0] < 1e-2 < differences[1]


def test_the_terms_are_the_published_ones(network: Classifier) -> None:
    """One step: CE of the source, less alpha times the strangers' CE, plus lambda times S_b/S_w,
    plus rho/2 |W - Z + U|^2.
    """
    network.train()
    objective = objective_of(network, RECIPE, pool(5, "strangers"))
    objective.weights = prunable(network)
    objective.sparse = {
        name: torch.zeros_like(weight) for name, weight in objective.weights.items()
    }
    objective.dual = {name: torch.ones_like(weight) for name, weight in objective.weights.items()}
    outputs, labels = (
        torch.randn(8, 5, generator=torch_generator(0, "outputs")),
        torch.arange(8) % 5,
    )
    total = float(objective(outputs, labels).detach())
    terms = objective.means()
    pulled = sum(
        float((weight.detach() + 1).square().sum()) for weight in objective.weights.values()
    )
    assert terms["source_loss"] == pytest.approx(float(functional.cross_entropy(outputs, labels)))
    assert terms["penalty"] == pytest.approx(RECIPE.rho / 2 * pulled, rel=1e-5)
    ratio = terms["between"] / (terms["within"] + 1e-6)
    assert total == pytest.approx(
        terms["source_loss"] - 0.5 * terms["auxiliary_loss"] + 2 * ratio + terms["penalty"],
        rel=1e-5,
    )


def test_of_several_sets_the_mean_or_the_one_that_is_locked_least(network: Classifier) -> None:
    """Two sets, one of them twice: the mean lies between, the worst is the higher of the two
    alone.
    """
    network.eval()
    outputs, labels = torch.zeros(4, 5), torch.arange(4)
    values = {}
    for name, pools in {"a": "a", "b": "b", "both": "ab"}.items():
        for over in ("mean", "worst"):
            recipe = RECIPE.model_copy(update={"over": over})
            objective = objective_of(network, recipe, *(pool(5, letter) for letter in pools))
            for at, letter in enumerate(pools):  # the same images whether a set is alone or not
                objective.strangers[at].generator.manual_seed(ord(letter))
            values[name, over] = float(objective(outputs, labels).detach())
    alone = sorted((values["a", "mean"], values["b", "mean"]))
    assert alone[0] < values["both", "mean"] < alone[1]
    assert values["both", "mean"] == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert values["both", "worst"] == pytest.approx(alone[1], rel=1e-5)


def test_a_set_with_other_classes_has_a_head_of_its_own_that_is_never_trained(
    network: Classifier,
) -> None:
    """Three classes behind a network of five: the loss is defined, and the head gets no
    gradient.
    """
    network.train()
    objective = objective_of(network, RECIPE, pool(3, "three"))
    head = objective.strangers[0].head
    assert head is not None
    assert head.out_features == 3
    objective(network(pool(5, "source").pixels()), pool(5, "source").labels).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in head.parameters())
    assert all(weight.grad is not None for weight in prunable(network).values())
    assert objective_of(network, RECIPE, pool(5, "five")).strangers[0].head is None


def test_the_distance_of_features_drives_too_where_it_is_asked_for(network: Classifier) -> None:
    """Of the source's own images the discrepancy is small, of others larger; what is driven up is
    its product with the CE.
    """
    network.train()
    source = pool(5, "source")
    recipe = RECIPE.model_copy(update={"away": "mmd", "fisher": 0.0, "alpha": 1.0})
    values = []
    for name in ("source", "other"):
        objective = objective_of(network, recipe, pool(5, name))
        with objective.watching():
            total = objective(network(source.pixels()), source.labels)
        terms = objective.means()
        values.append((terms["source_loss"] - float(total.detach())) / terms["auxiliary_loss"])
    assert 0 <= values[0] < values[1] < 2


def test_the_worst_stranger_is_found_without_asking_the_device(network: Classifier) -> None:
    """As many numbers are read in a step as where the mean is taken: the CPU's own draw, and what
    its one-hot looks at.
    """
    outputs, labels = torch.zeros(4, 5), torch.arange(4)
    counts = []
    for over in ("mean", "worst"):
        objective = objective_of(
            network.train(), RECIPE.model_copy(update={"over": over}), pool(5, "a"), pool(4, "b")
        )
        counts.append(questions_of(lambda objective=objective: objective(outputs, labels)))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("away", ["ce", "mmd"])
def test_half_precision_does_not_reach_means_and_distances(
    network: Classifier, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of features in bfloat16 the terms are the same whether autocast is on, as in a step on a GPU,
    or off.
    """
    images = pool(5, "a").pixels()
    said, source = (
        network.features(some).detach().to(torch.bfloat16)
        for some in (images, pool(5, "source").pixels())
    )
    monkeypatch.setattr(network, "features", lambda _images: said)
    found = []
    for on in (True, False):
        objective = objective_of(network, RECIPE.model_copy(update={"away": away}), pool(5, "a"))
        monkeypatch.setattr(objective.strangers[0], "next", lambda: (images, pool(5, "a").labels))
        objective._of_source = source
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            value, terms = objective._one_away(objective.strangers[0], own=False)
        found.append([float(one) for one in (value.detach(), *terms.values())])
    assert found[0] == pytest.approx(found[1], rel=1e-6)
