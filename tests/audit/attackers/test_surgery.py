"""Surgery keeps every weight that fits, and recovers a cell that one edge has crippled."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from lockforge.audit._thief import AttackerData
from lockforge.audit.attackers import _fine_tune as fine_tune
from lockforge.audit.attackers._surgery import edits, grafted, operate, settings, unfit
from lockforge.audit.protocol import Attempt, Budget, Capabilities
from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.files import Files
from lockforge.models.networks import CellNetwork, build, load, prune_dead, state
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import Architecture, Checkpoint, ImageSet, Op
from lockforge.spaces.cells import cell_of, connected

NONE, SKIP, ONE, THREE, POOL = Op.none, Op.skip, Op.conv1x1, Op.conv3x3, Op.pool3x3
DRAW = partial(torch_generator, 0, "surgery")
BUDGET = Budget(12, 16)

Run = Callable[..., Sequence[Attempt]]
Train = Callable[..., Checkpoint]


def network(*ops: Op, space: str = "nasbench201") -> CellNetwork:
    """A random network for four classes around this cell, whose batch norms have seen something."""
    shape = Architecture(
        space=space,
        cell=cell_of(ops),
        stem_channels=4,
        cells_per_stage=1,
        classes=4,
        shape=(1, 6, 6),
    )
    made = build(shape, torch_generator(0, "patient"))
    with torch.no_grad():
        made.train()(2 + torch.randn(16, 1, 6, 6, generator=torch_generator(0, "seen")))
    return made.eval()


def test_edits_differ_on_one_edge_and_compute_something_else() -> None:
    """Every cell at one edge's distance with a path to its output, but for those whose change
    nothing sees.
    """
    cell = cell_of([NONE, NONE, NONE, THREE, NONE, NONE])
    first, *others = edits("nasbench201", cell)
    assert first == cell
    assert all(
        sum(a != b for a, b in zip(cell.ops, other.ops, strict=True)) == 1 for other in others
    )
    assert all(connected(other) for other in others)
    assert {other.ops[3] for other in others} == {
        SKIP,
        ONE,
        POOL,
    }  # without the edge 0>3 nothing is left; elsewhere nothing is added
    assert len(others) == 3


@pytest.mark.parametrize(
    ("old", "new"), [(SKIP, POOL), (THREE, SKIP), (NONE, ONE), (SKIP, THREE), (THREE, ONE)]
)
@pytest.mark.parametrize("space", ["nasbench201", "transnas101"])
def test_what_is_not_on_the_edge_is_inherited(space: str, old: Op, new: Op) -> None:
    """All tensors of other edges, stem, reductions and head are the patient's, bit by bit; a pruned
    patient can be operated on too.
    """
    if POOL in {old, new} and space == "transnas101":
        new = ONE
    given = network(THREE, SKIP, NONE, ONE, old, THREE, space=space)
    cell = cell_of([THREE, SKIP, NONE, ONE, new, THREE])
    for patient in (given, prune_dead(given)):
        after, before = state(grafted(patient, cell, DRAW("graft"))), state(patient)
        kept = {
            name
            for name in after
            if ".edges.4." not in name and (name in before or patient is given)
        }
        assert len(kept) > 20
        assert all(torch.equal(after[name], before[name]) for name in kept)


def test_a_small_kernel_is_the_middle_of_a_large_one() -> None:
    """1x1 to 3x3 is the same function; and back again, the same weights."""
    given = network(THREE, NONE, NONE, SKIP, ONE, NONE)
    larger = grafted(given, cell_of([THREE, NONE, NONE, SKIP, THREE, NONE]), DRAW("graft"))
    images = torch.randn(5, 1, 6, 6, generator=torch_generator(0, "x"))
    torch.testing.assert_close(larger.eval()(images), given(images))
    back = grafted(larger, given.architecture.cell, DRAW("graft"))
    assert all(torch.equal(tensor, state(given)[name]) for name, tensor in state(back).items())


def test_a_new_convolution_hands_its_channels_on() -> None:
    """Its kernel is a random one with the identity added: more along the diagonal than anywhere
    else.
    """
    given = network(THREE, NONE, NONE, SKIP, THREE, NONE)
    made = state(grafted(given, cell_of([THREE, NONE, NONE, THREE, THREE, NONE]), DRAW("graft")))
    kernel = made["stages.2.cells.0.edges.3.conv.weight"]
    assert float(kernel[:, :, 1, 1].diagonal().mean()) > 0.8
    assert float(kernel[:, :, 0, 0].abs().mean()) < 0.2


def test_surgery_recovers_a_network_that_a_none_edge_has_cut(
    files: Files,
    target: ImageSet,
    train: Train,
    data: AttackerData,
    run_attack: Run,
    facts: Capabilities,
) -> None:
    """With the edge 0>1 cut nothing passes the cells; fine-tuning with the same steps stays far
    behind, on the test split too.
    """
    whole = train(cell_of([THREE, NONE, NONE, NONE, THREE, NONE]), target, 80)
    cut = whole.architecture.model_copy(
        update={"cell": cell_of([NONE, NONE, NONE, NONE, THREE, NONE])}
    )
    tensors = files.get_tensors(whole.weights)
    crippled = load(cut, {name: tensors[name] for name in build(cut, DRAW("names")).state_dict()})
    test = load_pool(target, "test", files)
    recipe = AuditRecipe()
    tuned, healed = (
        max(
            run_attack(attack, crippled, data, tried(recipe, facts), BUDGET, DRAW),
            key=lambda one: one.val_accuracy,
        )
        for attack, tried in ((fine_tune.fine_tune, fine_tune.settings), (operate, settings))
    )
    assert healed.val_accuracy > tuned.val_accuracy + 0.2
    assert (
        accuracy(*logits_of(healed.network, test)) > accuracy(*logits_of(tuned.network, test)) + 0.2
    )
    assert connected(healed.network.architecture.cell)


@pytest.mark.parametrize(
    "ops", [(THREE, NONE, NONE, SKIP, THREE, NONE), (NONE, NONE, NONE, ONE, NONE, NONE)]
)
@pytest.mark.parametrize("steps", [1, 7, 17])
def test_the_budget_is_the_same_whatever_the_cell(
    data: AttackerData, run_attack: Run, facts: Capabilities, ops: tuple[Op, ...], steps: int
) -> None:
    """No setting has more steps than the budget, all short trainings together neither; the full
    trainings have exactly it.
    """
    tried = settings(AuditRecipe(), facts)
    screen, *full = run_attack(operate, network(*ops), data, tried, Budget(steps, 4), DRAW)
    assert [attempt.steps for attempt in full] == [steps] * 3
    assert steps / 2 <= screen.steps <= steps
    assert all(
        accuracy(*logits_of(one.network, data.val)) == one.val_accuracy for one in (screen, *full)
    )


def test_four_settings_at_most_and_none_twice(facts: Capabilities) -> None:
    """With one optimiser of fine-tuning the three best edits, with several the best edit with two
    of them.
    """
    both, adam = (
        settings(AuditRecipe(), facts),
        settings(AuditRecipe(fine_tune_sgd_rates=()), facts),
    )
    assert len(set(both)) == len(set(adam)) == 4
    assert [str(one).rsplit(" ", 1)[-1] for one in adam] == [
        "edit=screen",
        "edit=1",
        "edit=2",
        "edit=3",
    ]
    assert {one.optimizer for one in both} == {"adam", "sgd"}


def test_without_cells_there_is_nothing_to_edit(facts: Capabilities) -> None:
    """The reason is given."""
    assert unfit(facts) == ""
    assert "not made of cells" in unfit(
        Capabilities(same_classes=True, head_fits=True, source_images=True, cells=False)
    )
