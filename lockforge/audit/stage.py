"""The audit of one target: every starting point, attacker, point of the grid and seed; then what follows from the points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lockforge.audit.attackers import SUITE_VERSION, SUITES, attackers_of, left_out
from lockforge.audit.ledger import Ledger
from lockforge.audit.protocol import Attacker, Budget, Facts, Given, Item, Terms, attack
from lockforge.audit.side_by_side import Brake, Job, run_all
from lockforge.audit.starts import StartingPoint, facts_of, starting_points
from lockforge.audit.thief import Grid, GridPoint, Thief, merge, plan_grid, split_thief
from lockforge.data.batches import Pool, load_pool
from lockforge.evidence.curves import measure, verdict
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import AttackPoint, ImageSet, Start, Subjects, TransferAudit
from lockforge.runs import Work, stage

CHECKED: tuple[Start, ...] = ("release", "scratch_release")


@stage(version=4)
def audit_transfer(subjects: Subjects, source: ImageSet, target: ImageSet, recipe: AuditRecipe, *, work: Work) -> TransferAudit:
    """Attack the release, what it is compared with, empty and public networks, with images of the target; measure what the lock removed.

    All pictures are normalised as the source is: that preprocessing comes with a release, and every start gets the same pixels.

    Raises: DataError: the target has another shape than the networks, or too few images for a curve. OutcomeError: an attack diverged.
    """
    starts, same_as = starting_points(subjects, target, work.files)
    facts, alone = facts_of(subjects, source, target)
    skipped = who_is_skipped(recipe.suite, facts, alone)
    brake = Brake()
    scene = set_scene(facts, source, target, recipe, work, brake)
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
        dropped=(*scene.grid.dropped, *left_out(recipe.suite, alone)),
        skipped=skipped,
        validation_samples=sum(scene.grid.validation),
        test_samples=len(scene.test),
        same_as=same_as,
        points=points,
        measures=measures,
        verdict=verdict(measures, recipe.suite, skipped),
    )


@dataclass(frozen=True)
class Scene:
    """What every attack of an audit shares: the grid, one thief a seed, the target's test split, and the terms."""

    grid: Grid
    thieves: Sequence[Thief]
    test: Pool
    terms: Terms


def who_attacks(suite: str, facts: Facts, start: StartingPoint) -> tuple[Attacker, ...]:
    """The attackers that every start of this audit allows, and of these, for a public start, those that it allows itself."""
    met = attackers_of(suite, facts, scratch=start.scratch)
    return met if start.scratch else tuple(one for one in met if not one.unfit(start.facts(facts)))


def who_is_skipped(suite: str, facts: Facts, alone: Facts) -> tuple[str, ...]:
    """Attackers that a thief could make on the release and this audit cannot, and why: a black box, or other starts, do not allow them."""
    lines = []
    for one in SUITES[suite].attackers:
        if one.unfit(alone):
            continue
        if facts.black_box and not one.black_box:
            lines.append(f"{one.name}: it needs the weights, and of a black box only the answers are known")
        elif why := one.unfit(facts):
            lines.append(f"{one.name}: {why}, at least not from every start")
    return tuple(lines)


def set_scene(facts: Facts, source: ImageSet, target: ImageSet, recipe: AuditRecipe, work: Work, brake: Brake) -> Scene:
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
    budget = Budget(recipe.steps or SUITES[recipe.suite].steps, recipe.batch_size, work.device, recipe.probe_steps, brake.ask)
    return Scene(grid, thieves, test, Terms(recipe, facts, budget, draw))


def plan_jobs(starts: Sequence[StartingPoint], scene: Scene) -> Mapping[Item, Job]:
    """Every attack as a function without arguments, by its name. A start's fresh weights depend on the start and the seed only.

    Where the suite checks its budget, the release and its empty network are attacked with a larger one too, at the middle of the grid with
    the first seed.
    """
    jobs: dict[Item, Job] = {}
    recipe, draw, device = scene.terms.recipe, scene.terms.draw, scene.terms.budget.device
    points, factor = scene.grid.points, SUITES[recipe.suite].check
    for seed in range(recipe.seeds):
        for start in starts:
            here = replace(scene, terms=replace(scene.terms, facts=start.facts(scene.terms.facts)))
            given = start.given(draw("start", start.name, seed), device)
            for attacker in who_attacks(recipe.suite, scene.terms.facts, start):
                item = Item(start.name, attacker.name, seed)
                jobs[item] = partial(one_attack, item, attacker, given, points, here)
                if factor and seed == 0 and start.name in CHECKED:
                    more = replace(item, budget=factor)
                    jobs[more] = partial(one_attack, more, attacker, given, points[len(points) // 2 :][:1], here)
    return jobs


def one_attack(item: Item, attacker: Attacker, given: Given, points: Sequence[GridPoint], scene: Scene) -> tuple[AttackPoint, ...]:
    """Attack a network with the thief's images at these points of the grid."""
    loots = {point: scene.thieves[item.seed].loot(point) for point in points}
    return attack(item, attacker, given, loots, scene.test, scene.terms)
