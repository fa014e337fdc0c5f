"""Cell surgery: every edit of one edge of the cell, with all inherited weights that fit; the best
few are fine-tuned.

A lock by architecture is one edit deep: changing one edge of a cell that was chosen for being poor
elsewhere brings it back, if the thief trains again. What training he needs is least when the rest
of the network keeps its weights (Net2Net; Chen et al. 2016, arXiv:1511.05641). Edits are halved as
in Jamieson & Talwalkar 2016 (arXiv:1502.07943): a probe in closed form, a short training, the whole
budget.

Shapes: c, d channels in and out.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lockforge.audit._closed_form import ridge
from lockforge.audit._queries import Body
from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.attackers import _fine_tune as fine_tune
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
    Trained,
)
from lockforge.engine.evaluate import accuracy, logits_of, reestimate_batch_norm
from lockforge.models.networks import CellNetwork, build, flops, load, state
from lockforge.recipe import AuditRecipe
from lockforge.records import Cell
from lockforge.spaces import ops_of
from lockforge.spaces.cells import Step, cell_of, connected, plan

SHORT_LIST = 8  # edits that are trained a little, at most
LITTLE = 4  # steps of a short training, at least
FULL = 3  # trainings with a whole budget


def settings(recipe: AuditRecipe, facts: Capabilities) -> tuple[Setting, ...]:
    """The short trainings of all edits, which share one budget, and three trainings of the best
    edits with a budget each.

    Optimisers and rates are the first and the last of fine-tuning: the best edit with both, the
    second best with the last; where fine-tuning has but one, the three best edits with it.
    """
    first, *_, last = [*fine_tune.settings(recipe, facts)] * 2
    tried = dict.fromkeys([(last, 1), (first, 1), (last, 2), (last, 3)])
    full = tuple(replace(one, also=(("edit", place),)) for one, place in tuple(tried)[:FULL])
    return (replace(first, also=(("edit", "screen"),)), *full)


def unfit(facts: Capabilities) -> str:
    """There must be cells to edit."""
    return "" if facts.cells else "the network is not made of cells"


def _computed(cell: Cell) -> tuple[Step, ...]:
    """The edges that make the output depend on the input."""
    return tuple(step for steps in plan(cell) for step in steps if not step.of_zeros)


def edits(space: str, cell: Cell) -> tuple[Cell, ...]:
    """The cell, then every other cell that differs on one edge, has a path to its output and
    computes something else than those before.

    Edges that only add a constant do not count.

    >>> from lockforge.records import Op
    >>> (
    ...     len(edits("nasbench201", cell_of([Op.conv3x3] * 6))),
    ...     len(edits("transnas101", cell_of([Op.conv3x3] * 6))),
    ... )
    (25, 19)
    """
    found = {_computed(cell): cell}
    for edge in range(len(cell.ops)):
        for op in ops_of(space):
            edited = cell_of([*cell.ops[:edge], op, *cell.ops[edge + 1 :]])
            if connected(edited):
                found.setdefault(_computed(edited), edited)
    return tuple(found.values())


def _inherited(old: Tensor | None, new: Tensor) -> Tensor | None:
    """The old tensor, a 1x1 kernel as the middle of a 3x3 one and the other way round; None where
    nothing fits.
    """
    if old is None or old.shape == new.shape:
        return old
    if old.dim() != 4 or old.shape[:2] != new.shape[:2]:
        return None
    middle = old.shape[2] // 2
    centre = old[:, :, middle : middle + 1, middle : middle + 1]
    edge = new.shape[2] // 2
    return functional.pad(centre, (edge,) * 4)


def _near_identity(kernel: Float[Tensor, "d c i j"]) -> Float[Tensor, "d c i j"]:
    """A fresh kernel at half its size, plus one that hands every channel on."""
    passing = torch.zeros_like(kernel)
    nn.init.dirac_(passing)
    return kernel / 2 + passing


def grafted(network: CellNetwork, cell: Cell, generator: torch.Generator) -> CellNetwork:
    """The network around another cell: weights of equal names that fit are kept, the others are
    new.

    A convolution that was not there hands its channels on, more or less. It speaks from the
    beginning: silent at first (a batch norm's scale of zero, as Net2Net would have it) it would
    learn nothing in the few steps of a short training.
    """
    architecture = network.architecture.model_copy(update={"cell": cell})
    old, tensors = state(network), state(build(architecture, generator))
    for name, new in list(tensors.items()):
        kept = _inherited(old.get(name), new)
        if kept is not None:
            tensors[name] = kept
        elif name.endswith(".conv.weight"):
            tensors[name] = _near_identity(new)
    return load(architecture, tensors)


def _probe(network: CellNetwork, data: AttackerData, device: str) -> float:
    """Validation accuracy of the best linear head in closed form."""
    seen, labels = logits_of(Body(network), data.train, device=device)
    kept, kept_labels = logits_of(Body(network), data.val, device=device)
    with torch.no_grad():
        return accuracy(ridge(seen, labels, data.train.classes)(kept), kept_labels)


def _best(scores: Sequence[float], most: int) -> list[int]:
    """The places of the highest scores; of equals the first."""
    return sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:most]


def operate(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Probe every edit, train the better ones a little, train the best ones in full; all by the
    thief's validation images.

    `screen` is the best network of the short trainings, which share one budget equally. Operations:
    its are all that precedes the full trainings: 3 passes for each image seen, and for each edit 2
    for each training image (statistics, features); each other setting's are its own training's.
    """
    screen, *whole = settings
    start = given.network
    if not isinstance(start, CellNetwork):
        raise TypeError(f"{start.architecture} is not made of cells")
    architecture = start.architecture
    cells = edits(architecture.space, architecture.cell)
    networks = [grafted(start, cell, draw("graft", cell)).to(budget.device) for cell in cells]
    for network in networks:
        reestimate_batch_norm(network, data.train, device=budget.device)
    probed = [_probe(network, data, budget.device) for network in networks]
    short = [networks[at] for at in _best(probed, max(1, min(SHORT_LIST, budget.steps // LITTLE)))]
    little = replace(budget, steps=budget.steps // len(short))
    feeds, count = (data.train, data.val), len(data.train)
    tried = yield [
        little.training(network, feeds, screen, draw(screen, network.architecture.cell))
        for network in short
    ]
    ranked = _best([one.val_accuracy for one in tried], len(short))
    places = [int(dict(setting.also)["edit"]) for setting in whole]
    starts = [short[ranked[min(place, len(ranked)) - 1]] for place in places]
    done = yield [
        budget.training(start, feeds, setting, draw(setting))
        for start, setting in zip(starts, whole, strict=True)
    ]
    looks = 2 * count * sum(flops(network.architecture) for network in networks)
    screening = looks + 3 * little.seen(count) * sum(
        flops(network.architecture) for network in short
    )
    rows: list[tuple[Setting, Trained, int, float]] = [
        (screen, tried[ranked[0]], little.steps * len(short), float(screening))
    ]
    rows += [
        (setting, one, budget.steps, float(3 * flops(start.architecture) * budget.seen(count)))
        for setting, one, start in zip(whole, done, starts, strict=True)
    ]
    return [
        Attempt(setting, one.module, one.val_accuracy, steps, cost, one.diverged)
        for setting, one, steps, cost in rows
    ]


SURGERY = Attacker("cell-surgery", operate, settings, unfit)
