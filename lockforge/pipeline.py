"""The sentences: the only file that knows the order of the stages.

images -> embed -> search -> train -> [prune] -> audit -> export; an owner's own network is neither
searched nor trained
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from lockforge.audit.rerun import refit_places
from lockforge.audit.stage import audit_transfer
from lockforge.data.roles import Tell, all_or_none, nobody, read_roles, read_set
from lockforge.embed.stage import embed_task
from lockforge.engine.device import choose_device, describe, set_threads
from lockforge.errors import DataError, IntegrityError, RecipeError
from lockforge.evidence.keyed import recognise
from lockforge.evidence.manifest import read_limited
from lockforge.evidence.refits import compare_refits, draw_places
from lockforge.executors import make_executor
from lockforge.export.stage import export_artifact
from lockforge.files import Files
from lockforge.jobs import Executor
from lockforge.models.read import Model, Place, place_of, public_places, read_given
from lockforge.models.weights import read_model
from lockforge.prune.stage import prune_model
from lockforge.randomness import numpy_generator
from lockforge.recipe import FitRecipe, NetworkRecipe, PruneRecipe, Recipe
from lockforge.records import (
    Ablation,
    Architecture,
    Artifact,
    Cell,
    Check,
    Checkpoint,
    ImageSet,
    Op,
    Provenance,
    PrunedModel,
    PublicWeights,
    Report,
    Roles,
    SearchResult,
    Subjects,
    TaskEmbedding,
    TransferAudit,
    WeightLock,
)
from lockforge.runs import Reporter, Runs
from lockforge.search.fit_predictor import TRAINING, FittedPredictor, fit_predictor, score_cells
from lockforge.search.meta_bench import LEAST_CELLS, GatheredBench, gather_bench, measure_cells
from lockforge.search.predictor import Form
from lockforge.search.stage import search_cell
from lockforge.search.tasks import draw_cells, meta_tasks
from lockforge.spaces.isomorphism import different_networks
from lockforge.train.stage import adopt_encoder, adopt_model, train_cell


@dataclass(frozen=True)
class Places:
    """Where the data of each role lies: a folder, an .npz file or a built-in name, each optionally
    as NAME=PLACE.
    """

    source: str
    auxiliary: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def open_runs(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    reporter: Reporter | None = None,
    executor: Executor | None = None,
) -> Runs:
    """The runs folder, with the recipe's seed and threads and this machine's device.

    Args: executor: where what can be done at once is done; None: this machine, see
        `executors.make_executor`.
    Raises: ResourceError: no such device, or the folder cannot be written to.
    """
    chosen = choose_device(device)
    set_threads(recipe.threads)
    return Runs(
        folder,
        seed=recipe.seed,
        device=chosen,
        reporter=reporter,
        executor=executor or make_executor(),
        threads=recipe.threads,
    )


def gather(places: Places, recipe: Recipe, files: Files, *, tell: Tell = nobody) -> Roles:
    """Read every data set and hold the roles apart.

    Args: tell: is given a line for each image that could not be read, where the recipe allows
        that.

    Raises: DataError: unreadable, malformed, or the same images in two roles.
    """
    return read_roles(
        places.source, places.auxiliary, places.targets, recipe.data, files, tell=tell
    )


def protect(
    recipe: Recipe, roles: Roles, do: Runs, public: Sequence[str] = (), own: Place | None = None
) -> Artifact:
    """Lock a model to its own task, prove it, and make the release's files.

    The targets appear only after everything has been chosen and trained: in the audits, and in the
    embeddings that the report shows.

    Args: public: networks that anybody can have, which the audits attack too: `[NAME=]MODEL`. own:
        a network that is trained already: nothing is searched or trained, and what it was before
        any lock is both reference and twin.
    Raises: DataError: the own network's weights are unreadable, another network's, or for other
        classes or images than the source's.
    """
    source, auxiliary, targets = roles.source, roles.auxiliary, roles.targets
    others = read_public(public, source, do.files)
    adopted = (
        _adopted(read_given(own, source, do.files, classes=len(source.classes)), source, do)
        if own
        else None
    )

    embeddings = do.all(
        embed_task, [(images, recipe.embed, None) for images in (source, *auxiliary)]
    )
    if adopted is not None:
        found, reference, twin = None, adopted, adopted
    else:
        found = do(search_cell, source, auxiliary, embeddings, recipe.network, recipe.search)
        reference, twin = do.all(
            train_cell, [(cell, source, recipe.train) for cell in (found.reference, found.chosen)]
        )

    lock = lock_weights(twin, reference, source, auxiliary, recipe.prune, do)

    subjects = Subjects(
        release=lock.release,
        twin=twin,
        reference=reference,
        ablations=lock.ablations,
        public=others,
    )
    audits = tuple(do(audit_transfer, subjects, source, target, recipe.audit) for target in targets)

    shown = do.all(embed_task, [(images, recipe.embed, None) for images in targets])
    return do(export_artifact, roles, (*embeddings, *shown), found, subjects, audits, lock, recipe)


def lock_weights(
    twin: Checkpoint,
    reference: Checkpoint,
    source: ImageSet,
    auxiliary: tuple[ImageSet, ...],
    recipe: PruneRecipe,
    do: Runs,
) -> WeightLock:
    """The twin behind its weight lock, and what is audited beside it to show what each part of the
    lock does.

    The ablations: pruned by size alone; without the Fisher term; and the reference behind the same
    weight lock, which has no other. The source guard holds for the release only.
    """
    if recipe.method == "none":
        return WeightLock(release=twin)
    tries: dict[str, tuple[Checkpoint, dict[str, object]]] = {}
    if recipe.method == "ntp":
        tries["magnitude"] = twin, {"method": "magnitude"}
        if recipe.fisher:
            tries["no-fisher"] = twin, {"fisher": 0.0}
    if reference.weights != twin.weights:
        tries["weight-lock"] = reference, {}
    questions = [
        (model, recipe.model_copy(update={"max_source_drop": 1.0, **changed}))
        for model, changed in tries.values()
    ]
    locked, *pruned = do.all(
        prune_model,
        [(model, reference, source, auxiliary, how) for model, how in [(twin, recipe), *questions]],
    )
    others = dict(zip(tries, pruned, strict=True))
    return WeightLock(
        release=locked.checkpoint,
        ablations=tuple(
            Ablation(name=name, checkpoint=model.checkpoint) for name, model in others.items()
        ),
        pruned={"release": locked.pruning}
        | {f"ablation:{name}": model.pruning for name, model in others.items()},
    )


def embed(
    recipe: Recipe, places: Sequence[str], weights: Path | None, do: Runs, *, tell: Tell = nobody
) -> tuple[TaskEmbedding, ...]:
    """Embed several tasks with one probe; the first one's shape does not bind the others.

    Raises: DataError: unreadable or malformed sets, all at once.
    """
    probe = do.files.put(weights.read_bytes()) if weights else None
    sets: list[ImageSet] = []
    all_or_none(
        [
            lambda place=place: sets.append(  # type: ignore[misc]
                read_set(place, recipe.data, do.files, tell=tell)
            )
            for place in places
        ]
    )
    return do.all(embed_task, [(images, recipe.embed, probe) for images in sets])


def search(recipe: Recipe, roles: Roles, do: Runs) -> SearchResult:
    """Choose a cell for the source."""
    embeddings = do.all(
        embed_task, [(images, recipe.embed, None) for images in (roles.source, *roles.auxiliary)]
    )
    return do(search_cell, roles.source, roles.auxiliary, embeddings, recipe.network, recipe.search)


def train(recipe: Recipe, roles: Roles, do: Runs) -> Checkpoint:
    """Choose a cell for the source and train it."""
    return do(train_cell, search(recipe, roles, do).chosen, roles.source, recipe.train)


def prune(recipe: Recipe, roles: Roles, models: "Models", do: Runs) -> PrunedModel:
    """Put a weight lock on a model that is already there. Its reference, for the source guard, is
    itself where none is given.
    """
    subjects = _adopt(models, roles.source, recipe.network, do)
    return do(
        prune_model,
        subjects.release,
        subjects.reference,
        roles.source,
        roles.auxiliary,
        recipe.prune,
    )


@dataclass(frozen=True)
class Models:
    """Networks that are there already: the model, the one it is compared with, and public ones,
    each as `models.read` reads them.
    """

    model: str
    reference: str | None = None
    public: tuple[str, ...] = ()


def audit(
    recipe: Recipe, roles: Roles, models: Models, do: Runs
) -> tuple[Subjects, tuple[TransferAudit, ...]]:
    """Attack a model that is already there. Without a reference the model stands in for it, and
    nothing is said to be removed.
    """
    subjects = _adopt(models, roles.source, recipe.network, do)
    return subjects, tuple(
        do(audit_transfer, subjects, roles.source, target, recipe.audit) for target in roles.targets
    )


def export(recipe: Recipe, roles: Roles, models: Models, do: Runs) -> Artifact:
    """Make a release of a model that is already there, audited on the targets that are given.

    Raises: DataError: the model is an ONNX file, and a release has weights.
    """
    if place_of(models.model).opaque:
        raise DataError(
            f"{models.model} is an ONNX file: there are no weights to release",
            hint="give the weights, or use `lockforge audit`",
        )
    subjects, audits = audit(recipe, roles, models, do)
    embeddings = do.all(
        embed_task,
        [
            (images, recipe.embed, None)
            for images in (roles.source, *roles.auxiliary, *roles.targets)
        ],
    )
    return do(
        export_artifact,
        roles,
        embeddings,
        None,
        subjects,
        audits,
        WeightLock(release=subjects.release),
        recipe,
    )


def rerun(
    release: Path,
    report: Report,
    places: Places,
    drawn: tuple[int, int],
    do: Runs,
    *,
    exact: bool = False,
) -> tuple[Check, ...]:
    """Fit some of a release's attack points again from its weights, and hold them against what it
    says.

    Args: release: the folder. report: the one in it. places: the source's images and those of one
    or more of its targets. drawn: how many places, and the seed that draws them. do: a folder of
    its own, with the seed of the report's recipe. exact: to the last digit, as on the kind of
    machine that the release was made on.
    Raises: DataError: not the images that were audited. IntegrityError: the weights or the audit
        are not what the report says.
    """
    recipe = Recipe.model_validate(report.recipe)
    roles = gather(places, recipe, do.files)
    at = [_place_among(report.roles.targets, images, report.digests) for images in roles.targets]
    foreign = [name for name, place in zip(roles.target_names, at, strict=True) if place is None]
    if _place_among((report.roles.source,), roles.source, report.digests) is None:
        foreign.insert(0, roles.names[0])
    if foreign or not roles.targets:
        raise DataError(
            "these are not the images that were audited: "
            f"{', '.join(foreign) or 'no target was given'}",
            hint="give the same --source and --target as the audit; where it dropped overlapping "
            "images, give all of its targets",
        )
    _, tensors, _ = read_model(release)
    if do.files.put_tensors(tensors) != report.subjects.release.weights:
        raise IntegrityError("the weights are not the ones that the report is about")
    names = [report.roles.target_names[place] for place in at if place is not None]
    audits = [report.audits[place] for place in at if place is not None]
    wanted = draw_places(audits, *drawn)
    again = [
        do(
            refit_places,
            audit,
            report.subjects,
            roles.source,
            images,
            recipe.audit,
            tuple(tuple(one) for one in chosen),
            exact,
        ).points
        for audit, images, chosen in zip(audits, roles.targets, wanted, strict=True)
    ]
    return compare_refits(names, audits, again, exact=exact)


def _place_among(
    said: Sequence[ImageSet], images: ImageSet, digests: Literal["open", "keyed"]
) -> int | None:
    """Which of a report's data sets these images are; None where they are none of them.

    Where digests are keyed with a key that is not here, equal classes, shape, counts, means and
    deviations make a set the same.
    """
    return next(
        (at for at, one in enumerate(said) if recognise(one, images, digests, None) != "other"),
        None,
    )


def same_kind(release: Path, device: str) -> bool:
    """Whether a release was made on this kind of machine, as its provenance.json has it: processor,
    device (a CPU) and torch.

    Raises: IntegrityError: there is no such file, or it is malformed. ResourceError: no such
        device.
    """
    made = Provenance.from_json(read_limited(release / "provenance.json"))
    here = describe()
    mine = (here["cpu"], choose_device(device), here["torch"])
    return mine[1] == "cpu" and mine == (
        made.hardware.get("cpu"),
        made.hardware.get("device"),
        made.versions.get("torch"),
    )


META_FIT = FitRecipe(
    epochs=12,
    batch_size=256,
    optimizer="adam",
    learning_rate=1e-3,
    weight_decay=1e-2,
    select="last",
)


@dataclass(frozen=True)
class MetaPlan:
    """How much `metatrain` looks at.

    Args: subsets: tasks of each set, made of some of its classes (the first of as many as it has,
        the last only tests). limit: images of each. common, own: cells scored on every task (held
        out), and on one task alone. batch, side: images of a minibatch, and their size in pixels.
        form, fit: see `fit_predictor`.
    """

    subsets: int = 4
    limit: int = 512
    common: int = 20
    own: int = 40
    batch: int = 32
    side: int = 16
    form: Form = "pair"
    fit: FitRecipe = META_FIT


def metatrain(
    places: Sequence[str], unseen: Sequence[str], plan: MetaPlan, recipe: Recipe, do: Runs
) -> FittedPredictor:
    """The second sentence: embed many tasks, score untrained cells on each, fit the predictor of
    one space.

    Args: places: sets to learn from. unseen: sets that only test what was learnt; nothing of them
        goes into the file.
    """
    space = recipe.network.space
    tasks, kinds = _meta_tasks(places, unseen, plan, recipe, do.files)
    embeddings = do.all(embed_task, [(task, recipe.embed, None) for task in tasks])
    common = draw_cells(
        space, plan.common, (), numpy_generator(recipe.seed, "metatrain", "common cells", space)
    )
    generator = numpy_generator(recipe.seed, "metatrain", "cells", space)
    drawn = [(*common, *draw_cells(space, plan.own, common, generator)) for _ in tasks]
    asked = [
        (task, recipe.network, cells, plan.batch, plan.side)
        for task, cells in zip(tasks, drawn, strict=True)
    ]
    scores = do.all(score_cells, asked)
    return do(fit_predictor, embeddings, scores, kinds, recipe.network, plan.form, plan.fit)


def metabench(places: Sequence[str], count: int, recipe: Recipe, do: Runs) -> GatheredBench:
    """The third sentence: train random cells of one space briefly on several tasks, all on all, and
    keep what came out.

    Args: places: sets that are neither sources nor targets of anybody. count: different networks,
        drawn at random.
    Raises: RecipeError: more networks than the space has, or fewer than it takes.
    """
    space = recipe.network.space
    cells = different_networks(space)
    if not LEAST_CELLS <= count <= len(cells):
        raise RecipeError(
            f"{count} cells were asked for",
            hint=f"{space} has {len(cells)} different networks; at least {LEAST_CELLS} are needed",
        )
    drawn = numpy_generator(recipe.seed, "metabench", "cells", space).choice(
        len(cells), count, replace=False
    )
    some = tuple(cells[int(at)] for at in drawn)
    fit = recipe.search.shortlist.fit
    sets = [read_set(place, recipe.data, do.files) for place in places]
    measured = tuple(do(measure_cells, images, recipe.network, some, fit) for images in sets)
    names = tuple(place.partition("=")[0] for place in places)
    return do(gather_bench, measured, names, recipe.network, fit)


def _meta_tasks(
    places: Sequence[str], unseen: Sequence[str], plan: MetaPlan, recipe: Recipe, files: Files
) -> tuple[tuple[ImageSet, ...], tuple[str, ...]]:
    """The tasks, and what each is for: training, or testing on new classes or on a new set."""
    tasks: list[ImageSet] = []
    kinds: list[str] = []
    for place in (*places, *unseen):
        tasks += meta_tasks(
            read_set(place, recipe.data, files), plan.subsets, plan.limit, recipe.seed, files
        )
        kinds += (
            ["new set"] * plan.subsets
            if place in unseen
            else [*[TRAINING] * (plan.subsets - 1), "new classes"]
        )
    return tuple(tasks), tuple(kinds)


STAND_IN = Cell(
    ops=(Op.conv3x3, Op.none, Op.conv3x3, Op.skip, Op.none, Op.conv3x3)
)  # three convolutions in a row and a way around them


def _adopt(models: Models, source: ImageSet, network: NetworkRecipe, do: Runs) -> Subjects:
    """Read all models, then measure those that are the owner's.

    A black box has no architecture to start over with: the reference's stands in for it, or else
    `STAND_IN` in the recipe's skeleton.
    """
    own = {"model": place_of(models.model)} | (
        {"reference": place_of(models.reference)} if models.reference else {}
    )
    if "reference" in own and own["reference"].opaque:
        raise DataError(
            f"the reference {models.reference} is an ONNX file, which cannot be attacked in full",
            hint="give its weights",
        )
    public = public_places(models.public)
    read = _read_models(
        [(place, len(source.classes)) for place in own.values()]
        + [(place, None) for place in public.values()],
        source,
        do.files,
    )
    release, *others = [_adopted(one, source, do) for one in read[: len(own)]]
    reference = others[0] if others else release
    plain = Architecture(
        cell=STAND_IN, classes=len(source.classes), shape=source.shape, **network.model_dump()
    )
    return Subjects(
        release=release,
        twin=release,
        reference=reference,
        public=_as_public(list(public), read[len(own) :], source),
        stand_in=(others[0].architecture if others else plain) if own["model"].opaque else None,
    )


def _adopted(given: Model, source: ImageSet, do: Runs) -> Checkpoint:
    """A model of the owner's, measured; an encoder gets a head first."""
    return do(
        adopt_encoder if given.headless else adopt_model, given.architecture, given.weights, source
    )


def read_public(texts: Sequence[str], source: ImageSet, files: Files) -> tuple[PublicWeights, ...]:
    """Networks that anybody can have.

    Raises: RecipeError: no names or networks. DataError: unreadable, or for images of another
        shape than the source's. All are listed.
    """
    places = public_places(texts)
    return _as_public(
        list(places),
        _read_models([(place, None) for place in places.values()], source, files),
        source,
    )


def _read_models(
    places: Sequence[tuple[Place, int | None]], source: ImageSet, files: Files
) -> list[Model]:
    read: list[Model] = []

    def add(place: Place, classes: int | None) -> None:
        read.append(read_given(place, source, files, classes=classes))

    all_or_none([partial(add, place, classes) for place, classes in places], "models")
    return read


def _as_public(
    names: Sequence[str], models: Sequence[Model], source: ImageSet
) -> tuple[PublicWeights, ...]:
    found = [
        (name, model.architecture, model.weights) for name, model in zip(names, models, strict=True)
    ]
    wrong = [
        f"{name}: {architecture.shape}"
        for name, architecture, _ in found
        if architecture.shape != source.shape
    ]
    if wrong:
        raise DataError(
            f"public models take images of another shape than {source.shape}",
            faults=wrong,
            hint="targets are read in the source's shape, and so must be what a thief starts "
            "from: give weights for it, or set `data.size`",
        )
    return tuple(
        PublicWeights(name=name, architecture=architecture, weights=weights)
        for name, architecture, weights in found
    )


def provenance(do: Runs) -> Provenance:
    """The circumstances of a run: versions, hardware, seconds a stage took (also where it was found
    done), code version, time.
    """
    described = describe()
    hardware = {
        name: described[name]
        for name in described
        if name in {"cpu", "cores", "gpu", "machine", "memory", "threads"}
    }
    return Provenance(
        versions={name: text for name, text in described.items() if name not in hardware},
        hardware={**hardware, "device": do.device},
        seconds=do.seconds,
        commit=_commit(),
        started=do.started,
    )


def _commit() -> str:
    """The commit of a checkout that LockForge runs from; an installed package has none."""
    checkout = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return "installed package"
    found = subprocess.run(  # noqa: S603
        [git, "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"
