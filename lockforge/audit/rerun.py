"""A few places of an audit, fitted again from the released weights: the audit's own code with the
audit's own draws.
"""

from collections import defaultdict

from lockforge.audit._starts import StartingPoint
from lockforge.audit._thief import GridPoint
from lockforge.audit.attackers import SUITE_VERSION
from lockforge.audit.protocol import Item
from lockforge.audit.stage import Attacked, AuditContext, carry_out, set_scene, who_attacks
from lockforge.errors import IntegrityError, RecipeError
from lockforge.evidence.refits import FROM_RELEASE
from lockforge.recipe import AuditRecipe
from lockforge.records import ImageSet, Subjects, TransferAudit
from lockforge.runs import Work, stage


@stage(version=1)
def refit_places(
    audit: TransferAudit,
    subjects: Subjects,
    source: ImageSet,
    target: ImageSet,
    recipe: AuditRecipe,
    places: tuple[tuple[str, str, int, int], ...],
    full_batch: bool,
    *,
    work: Work,
) -> Attacked:
    """Fit places again: (start, attacker, images, seed), starts of `FROM_RELEASE`, which need no
    weights but the release's.

    Args: full_batch: fit all grid values of each place's start, attacker and seed, and give them
        all. Networks that are trained together differ in rounding from those trained alone
        (`engine.stack`), so only then can everything be the same to the last digit.
    Raises: RecipeError: another version's suites. IntegrityError: the audit is not of this grid,
        these images or this suite.
    """
    if audit.suite_version != SUITE_VERSION:
        raise RecipeError(
            f"the audit was made with version {audit.suite_version} of the suites, this is "
            f"version {SUITE_VERSION}",
            hint="provenance.json names the code that made it: install that",
        )
    known = _known(subjects)
    context = set_scene(known, source, target, recipe, work=work)
    starts = tuple(start for start in context.starts.values() if start.name in FROM_RELEASE)
    _check_said(audit, context, starts)
    drawn: dict[Item, list[GridPoint]] = defaultdict(list)
    grid = {point.samples: point for point in context.grid.points}
    for start, attacker, samples, seed in places:
        drawn[Item(start, attacker, seed)].append(grid[samples])
    items = {
        item: tuple(context.grid.points if full_batch else points) for item, points in drawn.items()
    }
    return Attacked(points=carry_out(context, (known, source, target, recipe), items, work))


def _known(subjects: Subjects) -> Subjects:
    """What can be made of a release. The others' weights are not in it; theirs are replaced and
    never used.
    """
    release = subjects.release
    reference = subjects.reference.model_copy(update={"weights": release.weights})
    return subjects.model_copy(
        update={"twin": release, "reference": reference, "ablations": (), "public": ()}
    )


def _check_said(
    audit: TransferAudit, context: AuditContext, starts: tuple[StartingPoint, ...]
) -> None:
    """The audit is on the grid that these images give, and each of these starts met whom the suite
    sends.

    Raises: IntegrityError: it is not, or did not; every difference is a fault.
    """
    found = {
        "grid": tuple((point.images_per_class, point.samples) for point in context.grid.points),
        "validation images": sum(context.grid.validation),
        "test images": len(context.test),
    }
    said = {
        "grid": tuple(zip(audit.grid, audit.samples, strict=False)),
        "validation images": audit.validation_samples,
        "test images": audit.test_samples,
    }
    faults = [
        f"{name}: {said[name]} stated, these images give {value}"
        for name, value in found.items()
        if value != said[name]
    ]
    attacked = {point.start for point in audit.points if point.start in FROM_RELEASE}
    if attacked != {start.name for start in starts}:
        faults.append(
            f"starts: {', '.join(sorted(attacked))} stated, these networks give "
            f"{', '.join(sorted(one.name for one in starts))}"
        )
    for start in starts:
        sent = {
            one.name for one in who_attacks(context.terms.recipe.suite, context.terms.facts, start)
        }
        met = {
            point.attacker
            for point in audit.points
            if point.start == start.name and point.budget == 1
        }
        if sent != met:
            faults.append(
                f"{start.name}: the suite sends {', '.join(sorted(sent))}; stated are "
                f"{', '.join(sorted(met)) or 'none'}"
            )
    if faults:
        raise IntegrityError("the audit is not of these images and this suite", faults=faults)
