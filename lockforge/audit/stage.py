"""The audit of one target: every starting point, attacker, point of the grid and seed; then what
follows from the points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lockforge.audit._starts import StartingPoint, facts_of, starting_points
from lockforge.audit._thief import Grid, GridPoint, Thief, merge, plan_grid, split_thief
from lockforge.audit.attackers import SUITE_VERSION, SUITES, attackers_of, left_out
from lockforge.audit.ledger import Ledger
from lockforge.audit.protocol import AttackConfig, Attacker, Budget, Capabilities, Item, attack
from lockforge.data.batches import Pool, load_pool
from lockforge.evidence.curves import measure, verdict
from lockforge.jobs import Job
from lockforge.randomness import torch_generator
from lockforge.recipe import AuditRecipe
from lockforge.records import AttackPoint, ImageSet, Record, Start, Subjects, TransferAudit
from lockforge.runs import Work, stage

CHECKED: tuple[Start, ...] = ("release", "scratch_release")


class Attacked(Record):
    """What an attacker got from one start with one seed: a point for every setting and place of the
    grid.
    """

    points: tuple[AttackPoint, ...]


@stage(version=4)
def audit_transfer(
    subjects: Subjects, source: ImageSet, target: ImageSet, recipe: AuditRecipe, *, work: Work
) -> TransferAudit:
    """Attack the release, what it is compared with, empty and public networks, with images of the
    target; measure what the lock removed.

    All images are normalised as the source is: that preprocessing comes with a release, and every
    start gets the same pixels.

    Raises: DataError: the target has another shape than the networks, or too few images for a
        curve. OutcomeError: an attack diverged.
    """
    context = set_scene(subjects, source, target, recipe, work=work)
    _, alone = facts_of(subjects, source, target)
    skipped = who_is_skipped(recipe.suite, context.terms.facts, alone)
    items = plan_items(context.starts.values(), context.terms.facts, context.grid, recipe)
    points = carry_out(context, (subjects, source, target, recipe), items, work)
    measures = measure(points, context.same_as, test_samples=len(context.test))
    return TransferAudit(
        target=target.digest,
        suite=recipe.suite,
        suite_version=SUITE_VERSION,
        classes=len(target.classes),
        grid=tuple(point.images_per_class for point in context.grid.points),
        samples=tuple(point.samples for point in context.grid.points),
        seeds=tuple(range(recipe.seeds)),
        dropped=(*context.grid.dropped, *left_out(recipe.suite, alone)),
        skipped=skipped,
        validation_samples=sum(context.grid.validation),
        test_samples=len(context.test),
        same_as=context.same_as,
        points=points,
        measures=measures,
        verdict=verdict(measures, recipe.suite, skipped),
    )


@dataclass(frozen=True)
class AuditContext:
    """What every attack of an audit shares: the starts, the grid, one thief a seed, the target's
    test split, and the terms.
    """

    starts: Mapping[Start, StartingPoint]
    same_as: dict[Start, Start]
    grid: Grid
    thieves: Sequence[Thief]
    test: Pool
    terms: AttackConfig


def who_attacks(suite: str, facts: Capabilities, start: StartingPoint) -> tuple[Attacker, ...]:
    """The attackers that every start of this audit allows, and of these, for a public start, those
    that it allows itself.
    """
    met = attackers_of(suite, facts, scratch=start.scratch)
    return met if start.scratch else tuple(one for one in met if not one.unfit(start.facts(facts)))


def who_is_skipped(suite: str, facts: Capabilities, alone: Capabilities) -> tuple[str, ...]:
    """Attackers that a thief could make on the release and this audit cannot, and why: a black box,
    or other starts, do not allow them.
    """
    lines = []
    for one in SUITES[suite].attackers:
        if one.unfit(alone):
            continue
        if facts.black_box and not one.black_box:
            lines.append(
                f"{one.name}: it needs the weights, and of a black box only the answers are known"
            )
        elif why := one.unfit(facts):
            lines.append(f"{one.name}: {why}, at least not from every start")
    return tuple(lines)


def set_scene(
    subjects: Subjects, source: ImageSet, target: ImageSet, recipe: AuditRecipe, *, work: Work
) -> AuditContext:
    """Find the starts, and hand out the target's images: training and validation splits to the
    thief, the test split to nobody.

    Raises: DataError: the target has another shape than the networks, or too few images for a
        curve.
    """
    starts, same_as = starting_points(subjects, target, work.files)
    facts, _ = facts_of(subjects, source, target)
    like = load_pool(source, "train", work.files, device=work.device)
    owned = [load_pool(target, split, work.files, device=work.device) for split in ("train", "val")]
    pool = merge(owned, like)
    test = merge([load_pool(target, "test", work.files, device=work.device)], like)
    grid = plan_grid(pool.labels.cpu(), target.classes, recipe.images_per_class, recipe.fractions)
    draw = partial(torch_generator, work.seed, "audit")
    thieves = [split_thief(pool, grid, draw, seed, like) for seed in range(recipe.seeds)]
    budget = Budget(
        recipe.steps or SUITES[recipe.suite].steps,
        recipe.batch_size,
        work.device,
        recipe.probe_steps,
    )
    return AuditContext(
        {start.name: start for start in starts},
        same_as,
        grid,
        thieves,
        test,
        AttackConfig(recipe, facts, budget, draw),
    )


def plan_items(
    starts: Iterable[StartingPoint], facts: Capabilities, grid: Grid, recipe: AuditRecipe
) -> dict[Item, tuple[GridPoint, ...]]:
    """Every attack, and the points of the grid that it is made at.

    Where the suite checks its budget, the release and its empty network are attacked with a larger
    one too, at the middle of the grid with the first seed.
    """
    items: dict[Item, tuple[GridPoint, ...]] = {}
    starts, factor = tuple(starts), SUITES[recipe.suite].check
    for seed in range(recipe.seeds):
        for start in starts:
            for attacker in who_attacks(recipe.suite, facts, start):
                item = Item(start.name, attacker.name, seed)
                items[item] = tuple(grid.points)
                if factor and seed == 0 and start.name in CHECKED:
                    items[replace(item, budget=factor)] = tuple(
                        grid.points[len(grid.points) // 2 :][:1]
                    )
    return items


def attacker_of(name: str, suite: str, facts: Capabilities, start: StartingPoint) -> Attacker:
    """The attacker of that name that meets a start."""
    return next(one for one in who_attacks(suite, facts, start) if one.name == name)


def carry_out(
    context: AuditContext,
    shared: tuple[Subjects, ImageSet, ImageSet, AuditRecipe],
    items: Mapping[Item, tuple[GridPoint, ...]],
    work: Work,
) -> tuple[AttackPoint, ...]:
    """The points of every item in order; those in the stage's ledger are not made again, the others
    are added to it as they come.

    Args: shared: what `set_scene` made the context of.
    """
    ledger = Ledger(work.folder)
    wanted = [item for item in items if item not in ledger.finished]
    done = len(items) - len(wanted)

    def came(place: int, found: Attacked) -> None:
        nonlocal done
        item = wanted[place]
        ledger.add(item, found.points)
        done += 1
        work.report(done, len(items), f"{item.start}: {item.attacker}, seed {item.seed}")

    pieces = [
        (
            item.start,
            item.attacker,
            item.seed,
            item.budget,
            tuple(point.samples for point in items[item]),
        )
        for item in wanted
    ]
    work.spread(Job(attack_item, set_scene, shared, context), pieces, came)
    return tuple(point for item in items for point in ledger.finished[item])


def attack_item(
    context: AuditContext,
    start: Start,
    attacker: str,
    seed: int,
    budget: int,
    samples: tuple[int, ...],
    *,
    work: Work,
) -> Attacked:
    """Make one attack at those points of the grid that have so many images. A start's fresh weights
    depend on it and the seed only.
    """
    from_, terms = context.starts[start], context.terms
    sent = attacker_of(attacker, terms.recipe.suite, terms.facts, from_)
    given = from_.given(terms.draw("start", start, seed), work.device)
    here = replace(
        terms, facts=from_.facts(terms.facts), budget=replace(terms.budget, report=work.report)
    )
    loots = {
        point: context.thieves[seed].data(point)
        for point in context.grid.points
        if point.samples in samples
    }
    return Attacked(
        points=attack(Item(start, attacker, seed, budget), sent, given, loots, context.test, here)
    )
