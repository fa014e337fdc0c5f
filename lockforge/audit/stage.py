"""The audit of one target: every starting point, attacker, point of the grid and seed; then what follows from the points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from lockforge.audit.attackers import SUITE_VERSION, attackers_of
from lockforge.audit.ledger import Ledger
from lockforge.audit.protocol import Attacker, Budget, Facts, Given, Item, Terms, attack
from lockforge.audit.side_by_side import Brake, Job, run_all
from lockforge.audit.starts import StartingPoint, starting_points
from lockforge.audit.thief import Grid, Thief, merge, plan_grid, split_thief
from lockforge.data.batches import Pool, load_pool
from lockforge.evidence.curves import measure, verdict
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import AttackPoint, ImageSet, Subjects, TransferAudit
from lockforge.runs import Work, stage


@stage(version=3)
def audit_transfer(subjects: Subjects, source: ImageSet, target: ImageSet, recipe: AuditRecipe, *, work: Work) -> TransferAudit:
    """Attack the release, what it is compared with, and empty networks, with images of the target; measure what the lock removed.

    All pictures are normalised as the source is: that preprocessing comes with a release, and every start gets the same pixels.

    Raises: DataError: the target has another shape than the networks, or too few images for a curve. OutcomeError: an attack diverged.
    """
    starts, same_as = starting_points(subjects, target, work.files)
    brake = Brake()
    scene = set_scene(source, target, recipe, work, brake)
    points = run_all(plan_jobs(starts, scene), Ledger(work.folder), work, brake)
    measures = measure(points, same_as, test_samples=len(scene.test))
    return TransferAudit(
        target=target.digest,
        suite=recipe.suite,
        suite_version=SUITE_VERSION,
        classes=len(target.classes),
        grid=tuple(point.images_per_class for point in scene.grid.points),
        samples=tuple(point.samples for point in scene.grid.points),
        seeds=tuple(range(recipe.seeds)),
        dropped=scene.grid.dropped,
        validation_samples=sum(scene.grid.validation),
        test_samples=len(scene.test),
        same_as=same_as,
        points=points,
        measures=measures,
        verdict=verdict(measures, recipe.suite),
    )


@dataclass(frozen=True)
class Scene:
    """What every attack of an audit shares: the grid, one thief a seed, the target's test split, and the terms."""

    grid: Grid
    thieves: Sequence[Thief]
    test: Pool
    terms: Terms


def set_scene(source: ImageSet, target: ImageSet, recipe: AuditRecipe, work: Work, brake: Brake) -> Scene:
    """Hand out the target's images: training and validation splits to the thief, the test split to nobody.

    Raises: DataError: too few images for a curve.
    """
    like = load_pool(source, "train", work.files, device=work.device)
    owned = [load_pool(target, split, work.files, device=work.device) for split in ("train", "val")]
    pool = merge(owned, like)
    test = merge([load_pool(target, "test", work.files, device=work.device)], like)
    grid = plan_grid(pool.labels.cpu(), target.classes, recipe.images_per_class, recipe.fractions)
    draw = partial(torch_generator, work.seed, "audit")
    thieves = [split_thief(pool, grid, draw, seed, like) for seed in range(recipe.seeds)]
    budget = Budget(recipe.steps, recipe.batch_size, work.device, recipe.probe_steps, brake.ask)
    facts = Facts(same_classes=source.classes == target.classes, head_fits=len(source.classes) == len(target.classes), source_images=True)
    return Scene(grid, thieves, test, Terms(recipe, facts, budget, draw))


def plan_jobs(starts: Sequence[StartingPoint], scene: Scene) -> Mapping[Item, Job]:
    """Every attack as a function without arguments, by its name. A start's fresh weights depend on the start and the seed only."""
    jobs: dict[Item, Job] = {}
    recipe, draw, device = scene.terms.recipe, scene.terms.draw, scene.terms.budget.device
    for seed in range(recipe.seeds):
        for start in starts:
            given = start.given(draw("start", start.name, seed), device)
            for attacker in attackers_of(recipe.suite, scratch=start.scratch):
                item = Item(start.name, attacker.name, seed)
                jobs[item] = partial(one_attack, item, attacker, given, scene)
    return jobs


def one_attack(item: Item, attacker: Attacker, given: Given, scene: Scene) -> tuple[AttackPoint, ...]:
    """Attack a network with the thief's images at every point of the grid."""
    loots = {point: scene.thieves[item.seed].loot(point) for point in scene.grid.points}
    return attack(item, attacker, given, loots, scene.test, scene.terms)
