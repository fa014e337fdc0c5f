"""A made-up report with three targets and twelve attackers: every figure on the page follows from
its points, as in a real one.
"""

import math

import numpy as np

from lockforge.evidence.curves import choose, measure, overall, verdict
from lockforge.evidence.statistics import target_tests
from lockforge.randomness import numpy_generator
from lockforge.recipe import Recipe
from lockforge.records import (
    Ablation,
    Architecture,
    AttackPoint,
    Candidate,
    Cell,
    Checkpoint,
    Epoch,
    FileRef,
    ImageSet,
    LayerSparsity,
    Op,
    PrunedModel,
    PruneRound,
    Pruning,
    Report,
    Roles,
    SearchResult,
    Splits,
    Subjects,
    TaskEmbedding,
    TransferAudit,
)

GRID = (1, 2, 5, 10, 20, 50, 0)
SAMPLES = (10, 20, 50, 100, 200, 500, 4000)
ATTACKERS = (
    "adaptive",
    "cell-surgery",
    "distillation",
    "fine-tune",
    "head-then-all",
    "input-disguise",
    "last-block",
    "linear-probe",
    "low-rank",
    "regrow",
    "sharpness-aware",
    "shrink-perturb",
)
TARGETS = {
    "usps": 0.05,
    "svhn": 0.55,
    "a target with a rather long name": 0.95,
}  # share of the head start that the lock takes away
PARTS = {
    "twin": 0.7,
    "ablation:magnitude": 0.6,
    "ablation:no-fisher": 0.35,
    "ablation:weight-lock": 0.3,
}  # shares of it that are kept
TESTED = 500


def report(
    *,
    targets: dict[str, float] | None = None,
    suite: str = "standard",
    seeds: int = 3,
    attackers: int = 12,
    parts: dict[str, float] | None = None,
) -> Report:
    """The whole report. Args: targets: by name, the share of the head start that is gone. parts: by
    start, the share that is kept.
    """
    wanted = TARGETS if targets is None else targets
    release, reference = network(Op.conv1x1, 0.955), network(Op.conv3x3, 0.972)
    sets = tuple(images(name) for name in wanted)
    recipe = Recipe().model_dump(mode="json")
    who = (*ATTACKERS[:attackers], *(["frozen-mask"] if parts else []))
    audits = tuple(
        audit(one, share, suite, seeds, who, parts)
        for one, share in zip(sets, wanted.values(), strict=True)
    )
    return Report(
        recipe=recipe,
        roles=Roles(source=images("digits"), targets=sets, names=("digits", *wanted)),
        embeddings=tuple(embedding(one) for one in (images("digits"), *sets)),
        cosines=tuple(
            tuple(1.0 if a == b else 0.8 for a in range(len(sets) + 1))
            for b in range(len(sets) + 1)
        ),
        search=searched(release, reference),
        subjects=Subjects(release=release, twin=release, reference=reference),
        audits=audits,
        tests=target_tests(tuple(wanted), audits),
        parity="agree within 1e-05 on 16 inputs",
        verdict=overall([one.verdict for one in audits]),
    )


def pruned_report(
    *, targets: dict[str, float] | None = None, stand_in: str = "given", attackers: int = 4
) -> Report:
    """A report of a pruned release with all its ablations; the source lost 1.4 points. Args:
    stand_in: for the thief's task.
    """
    whole = report(
        targets={"usps": 0.85, "svhn": 0.9} if targets is None else targets,
        attackers=attackers,
        parts=PARTS,
    )
    twin, reference = whole.subjects.release, whole.subjects.reference
    release = relabelled(twin, "pruned", 0.94)
    made = {"magnitude": (twin, 0.95), "no-fisher": (twin, 0.945), "weight-lock": (reference, 0.96)}
    subjects = Subjects(
        release=release,
        twin=twin,
        reference=reference,
        ablations=tuple(
            Ablation(name=name, checkpoint=relabelled(of, name, accuracy))
            for name, (of, accuracy) in made.items()
        ),
    )
    how = {
        "release": pruning(stand_in, 0.014),
        "ablation:no-fisher": pruning(stand_in, 0.01, fisher=False),
    }
    how |= {
        "ablation:weight-lock": pruning(stand_in, 0.012),
        "ablation:magnitude": pruning("none", 0.005, fisher=False),
    }
    given = (images("post"),) * (stand_in == "given")
    names = (whole.roles.names[0], *(["post"] if given else []), *whole.roles.names[1:])
    roles = whole.roles.model_copy(update={"auxiliary": given, "names": names})
    return whole.model_copy(update={"subjects": subjects, "pruned": how, "roles": roles})


def pruned_model(stand_in: str = "given") -> PrunedModel:
    """What the prune stage gives."""
    whole = pruned_report(targets={}, stand_in=stand_in)
    return PrunedModel(checkpoint=whole.subjects.release, pruning=whole.pruned["release"])


def relabelled(of: Checkpoint, name: str, accuracy: float) -> Checkpoint:
    """Other weights in the same network, with the confusion matrix of another accuracy."""
    like = network(Op.skip, accuracy)
    return like.model_copy(
        update={
            "architecture": of.architecture,
            "weights": FileRef(sha256=numpy_generator(0, name).bytes(32).hex(), size=1),
            "history": (),
        }
    )


def pruning(stand_in: str, drop: float, *, fisher: bool = True) -> Pruning:
    """Nine zeros in ten after eight rounds, and three of recovery; without a stand-in, by
    magnitude.
    """
    plain = stand_in == "none"
    names = (
        "stem.0",
        *(f"cells.{at}.edges.{edge}.op.1" for at in range(3) for edge in (0, 4)),
        "head",
    )
    layers = tuple(
        LayerSparsity(name=f"{name}.weight", weights=400 * (at + 1), zeros=360 * (at + 1))
        for at, name in enumerate(names)
    )
    rounds = tuple(
        PruneRound(
            phase="rounds" if at < 8 else "recovery",
            source_loss=0.4 * 0.8**at + 0.05,
            auxiliary_loss=None if plain else 0.5 + 0.9 * at,
            between=40 * 0.5**at if fisher and not plain else None,
            within=30 * 0.9**at if fisher and not plain else None,
            penalty=0.02 * 0.7**at if at < 8 else 0.0,
            primal=0.8 * 0.6**at if at < 8 else 0.0,
            dual=0.6 * 0.7**at if at < 8 else 0.0,
            sparsity=min(0.9, 0.3 + 0.1 * at),
            val_accuracy=0.95 - 0.05 * (0.8**at),
        )
        for at in range(11)
    )
    return Pruning(
        method="magnitude" if plain else "ntp",
        fisher=fisher,
        auxiliary=stand_in,
        layers=layers,
        rounds=() if plain else rounds,
        source_drop=drop,
        dense_bytes=57_600,
        sparse_bytes=9_100,
    )


def images(name: str) -> ImageSet:
    """A set that is told apart by its name."""
    word = numpy_generator(0, name).bytes(32).hex()
    return ImageSet(
        classes=tuple("abcdefghij"),
        shape=(1, 16, 16),
        mean=(0.5,),
        std=(0.2,),
        counts=Splits(train=4000, val=500, test=TESTED),
        pixels=FileRef(sha256=word, size=1),
    )


def embedding(of: ImageSet) -> TaskEmbedding:
    """An embedding whose vector lies nowhere."""
    return TaskEmbedding(
        images=of.digest,
        probe="0" * 64,
        definition="made up",
        dimension=300,
        samples=100,
        probe_accuracy=0.9,
        vector=FileRef(sha256="0" * 64, size=1),
    )


def vectors(report: Report) -> list[list[float]]:
    """Some bars for each embedding."""
    return [
        [0.1 * (at % 7) + 0.01 * place for at in range(300)]
        for place, _ in enumerate(report.embeddings)
    ]


def network(op: Op, accuracy: float) -> Checkpoint:
    """A trained network as far as a report knows it."""
    cell = Cell(ops=(op, Op.none, Op.skip, Op.skip, Op.conv1x1, Op.pool3x3))
    architecture = Architecture(
        space="nasbench201",
        cell=cell,
        stem_channels=8,
        cells_per_stage=1,
        classes=10,
        shape=(1, 16, 16),
    )
    history = tuple(
        Epoch(
            epoch=at,
            loss=1 / (at + 1),
            train_accuracy=0.9,
            val_accuracy=accuracy * (1 - 0.5 ** (at + 1)),
            learning_rate=0.1,
        )
        for at in range(12)
    )
    right = round(100 * accuracy)
    confusion = tuple(
        tuple(
            right if row == column else (100 - right) * (column == (row + 1) % 10)
            for column in range(10)
        )
        for row in range(10)
    )
    return Checkpoint(
        architecture=architecture,
        weights=FileRef(sha256=numpy_generator(0, op.name).bytes(32).hex(), size=1),
        trained_on="a" * 64,
        made_by="a test",
        val_accuracy=accuracy,
        test_accuracy=right / 100,
        test_samples=1000,
        confusion=confusion,
        history=history,
    )


def searched(release: Checkpoint, reference: Checkpoint) -> SearchResult:
    """A short list of the two networks."""
    candidates = tuple(
        Candidate(
            cell=one.architecture.cell,
            source_rank=rank,
            target_rank=8 - rank,
            rank_gap=8.0 - 3 * rank,
            judged_by=("predictor", "measured"),
            source_accuracy=one.val_accuracy,
        )
        for rank, one in enumerate((reference, release))
    )
    return SearchResult(
        scheme="TU",
        chosen=release.architecture,
        reference=reference.architecture,
        candidates=candidates,
        questions=1,
        predictor="0" * 64,
        source_cosines=(),
        used=("the source",),
    )


def audit(
    target: ImageSet,
    share: float,
    suite: str,
    seeds: int,
    attackers: tuple[str, ...],
    parts: dict[str, float] | None = None,
) -> TransferAudit:
    """Learning curves with a head start of .25 for the reference, of which the release keeps 1 -
    share; attackers differ in strength.
    """
    same_as = {} if parts else {"twin": "release"}
    rng = numpy_generator(0, target.digest)
    skipped = ("source-only-repair: no source images were given",) if share < 0.1 else ()
    public = "public:resnet" if share > 0.5 else None
    starts = {
        "release": 0.25 * (1 - share),
        "reference": 0.25,
        "scratch_release": 0.0,
        "scratch_reference": 0.01,
        "dummy": 0.0,
    } | ({public: 0.1} if public else {})
    starts |= {start: 0.25 * kept for start, kept in (parts or {}).items()}
    found = []
    for start, head in starts.items():
        empty = start.startswith("scratch")
        for rank, attacker in enumerate(("from-scratch",) if empty else attackers):
            found += [
                point(
                    start,
                    attacker,
                    setting,
                    place,
                    seed,
                    head - (0 if empty else 0.03 * (rank * 5 % len(ATTACKERS))),
                    rng,
                )
                for setting in ("adam 0.01", "sgd 0.3, batch norm re-estimated")
                for place in range(len(GRID))
                for seed in range(seeds)
            ]
    chosen = set(choose(found))
    found = [
        one if one in chosen else one.model_copy(update={"test_accuracy": None}) for one in found
    ]
    found += [
        one.model_copy(
            update={
                "budget": 4,
                "test_accuracy": min(
                    one.test_accuracy + (0.08 if one.attacker == "regrow" else 0.01), 1.0
                ),
            }
        )
        for one in found
        if one.samples == 100 and one.start == "release" and one.test_accuracy is not None
    ]
    measures = measure(found, same_as, test_samples=TESTED)
    return TransferAudit(
        target=target.digest,
        suite=suite,
        suite_version=1,
        classes=10,
        grid=GRID,
        samples=SAMPLES,
        seeds=tuple(range(seeds)),
        dropped=("100 images a class: the smallest class has 80",),
        validation_samples=500,
        test_samples=TESTED,
        same_as=same_as,
        skipped=skipped,
        points=tuple(found),
        measures=measures,
        verdict=verdict(measures, suite, skipped),
    )


def point(
    start: str,
    attacker: str,
    setting: str,
    place: int,
    seed: int,
    head: float,
    rng: np.random.Generator,
) -> AttackPoint:
    """One fitted setting: accuracy rises with the logarithm of the images, the head start fades
    with them.
    """
    known = math.log(SAMPLES[place] / 5) / math.log(SAMPLES[-1] / 5)
    accuracy = 0.15 + 0.75 * known + head * (1 - 0.8 * known) - 0.02 * (setting[0] == "s")
    noisy = [min(max(accuracy + rng.normal(0, 0.008), 0.0), 1.0) for _ in range(2)]
    val, test = (round(TESTED * value) / TESTED for value in noisy)
    return AttackPoint(
        start=start,
        attacker=attacker,
        setting=setting,
        images_per_class=GRID[place],
        samples=SAMPLES[place],
        seed=seed,
        steps=200,
        flops=3e9 * (1 + place),
        val_accuracy=val,
        test_accuracy=test,
    )
