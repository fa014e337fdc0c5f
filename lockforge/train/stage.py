"""Train one architecture on the source, and measure it once on what it has not seen."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.data.batches import load_pool
from lockforge.engine.evaluate import accuracy, confusion, logits_of
from lockforge.engine.fit import RunContext
from lockforge.engine.heads import fit_head
from lockforge.engine.parallel import Training, fit_together
from lockforge.errors import DataError
from lockforge.files import Files
from lockforge.models.black_box import OpaqueNetwork, read_opaque
from lockforge.models.classifier import Classifier
from lockforge.models.networks import build, load, state
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe, TrainRecipe
from lockforge.records import (
    HEADLESS,
    AnyArchitecture,
    Checkpoint,
    FileRef,
    ImageSet,
    NamedArchitecture,
    Record,
    is_black_box,
)
from lockforge.runs import Work, stage

HEAD = FitRecipe(
    steps=600,
    batch_size=128,
    optimizer="adam",
    learning_rate=0.01,
    weight_decay=1e-3,
    precision="float32",
    select="last",
)
CONSTANT = (
    1e-6  # spread of a logit over images, as a share of the largest logit, that counts as none
)


@stage(version=1)
def train_cell(
    architecture: AnyArchitecture, source: ImageSet, recipe: FitRecipe, *, work: Work
) -> Checkpoint:
    """A network of this architecture, trained on the source's training split.

    Weights are drawn, shuffled and augmented from generators of their own, so two architectures
    with one seed see the same images in the same order. The validation split chooses the state
    that is kept (`recipe.select`); the test split is looked at once, at the end.

    Args: recipe: a `TrainRecipe` may ask for several processes (`engine.parallel`).
    Raises: DataError: the architecture is for other images or classes, or a split is empty.
        OutcomeError: training diverged.
    ResourceError: one of several processes died, or there are not as many devices.
    """
    _fitting(architecture, source)
    context = RunContext(device=work.device, folder=work.folder, report=work.report)
    if isinstance(recipe, TrainRecipe) and recipe.processes > 1:
        job = _Job(
            architecture=architecture,
            source=source,
            recipe=recipe,
            files=str(work.files.root),
            seed=work.seed,
        )
        fitted = fit_together(_training_of, job.to_json(), recipe.processes, context)
    else:
        fitted = _training(architecture, source, recipe, work.seed, work.files, work.device).go(
            context
        )

    test = load_pool(source, "test", work.files, device=work.device)
    logits, labels = logits_of(fitted.module, test, device=work.device)
    for line in fitted.history:
        work.log(**line.model_dump(mode="json"))
    return Checkpoint(
        architecture=architecture,
        weights=work.files.put_tensors(state(fitted.module)),
        trained_on=source.digest,
        made_by="train_cell/1",
        val_accuracy=fitted.val_accuracy,
        test_accuracy=accuracy(logits, labels),
        test_samples=len(test),
        confusion=confusion(logits, labels, len(source.classes)),
        history=fitted.history,
    )


def _training(
    architecture: AnyArchitecture,
    source: ImageSet,
    recipe: FitRecipe,
    seed: int,
    files: Files,
    device: str,
) -> Training:
    """The network before its first step, its images and its generators."""
    train, val = (load_pool(source, split, files, device=device) for split in ("train", "val"))
    network = build(architecture, torch_generator(seed, "train", "weights"))
    return Training(network, train, recipe, torch_generator(seed, "train", "batches"), val)


class _Job(Record):
    """The same as text, for other processes; `files` is the folder of stored bytes."""

    architecture: AnyArchitecture
    source: ImageSet
    recipe: TrainRecipe
    files: str
    seed: int


def _training_of(job: str, device: str) -> Training:
    """The training that a job speaks of."""
    given = _Job.from_json(job)
    return _training(
        given.architecture, given.source, given.recipe, given.seed, Files(Path(given.files)), device
    )


def _fitting(architecture: AnyArchitecture, source: ImageSet) -> None:
    """Raise a DataError unless the architecture is for these images and classes, and every split
    has some.
    """
    wanted, given = (architecture.shape, architecture.classes), (source.shape, len(source.classes))
    if wanted != given:
        raise DataError(
            f"the architecture is for images of shape {wanted[0]} in {wanted[1]} classes, the "
            f"source has {given[0]} in {given[1]}",
            hint="search again on this source, or bring it to that size with data.size and "
            "data.channels",
        )
    empty = [split for split, count in source.counts.model_dump().items() if not count]
    if empty:
        raise DataError(
            f"the source has no images in: {', '.join(empty)}",
            hint="give more images, or other data.val_share and data.test_share",
        )


@stage(version=1)
def adopt_model(
    architecture: AnyArchitecture, weights: FileRef, source: ImageSet, *, work: Work
) -> Checkpoint:
    """A model that is already trained, measured once on the source's validation and test splits. A
    black box is measured by asking it.

    Raises: DataError: the architecture is for other images or classes, or the answers say
    nothing. IntegrityError: the weights do not fit it.
    """
    _fitting(architecture, source)
    if is_black_box(architecture):
        network: Classifier = OpaqueNetwork(
            read_opaque(architecture, weights, work.files), architecture.classes
        )
    else:
        network = load(architecture, work.files.get_tensors(weights))
    return _measured(network, weights, source, "adopt_model/1", work)


@stage(version=1)
def adopt_encoder(
    architecture: NamedArchitecture, weights: FileRef, source: ImageSet, *, work: Work
) -> Checkpoint:
    """An encoder that came without a head, with a linear one trained on the source while its body
    stays as it is; measured once.

    The encoder sees each training image once, in eval mode and not augmented; the head is trained
    on these features (`engine.heads`).

    Args: weights: the body's tensors.
    Raises: DataError: the architecture is for other images or classes, or the features say
        nothing. OutcomeError: the head diverged.
    IntegrityError: the weights do not fit it.
    """
    _fitting(architecture, source)
    network = build(architecture, torch_generator(work.seed, "adopt", "head"))
    network = load(architecture, {**state(network), **work.files.get_tensors(weights)})
    pool = load_pool(source, "train", work.files, device=work.device)
    features, labels = logits_of(_Features(network), pool, device=work.device)
    check_informative(features)
    head = fit_head(
        features, labels, architecture.classes, HEAD, torch_generator(work.seed, "adopt", "batches")
    )
    network.head.load_state_dict(head.state_dict())
    return _measured(network, work.files.put_tensors(state(network)), source, HEADLESS, work)


class _Features(nn.Module):
    """What the head of a network sees, as a network of its own."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The features."""
        return self.network.features(x)


def _measured(
    network: Classifier, weights: FileRef, source: ImageSet, made_by: str, work: Work
) -> Checkpoint:
    """A network that is not trained any more, measured once on the source's validation and test
    splits.
    """
    (val_logits, val_labels), (logits, labels) = (
        logits_of(
            network, load_pool(source, split, work.files, device=work.device), device=work.device
        )
        for split in ("val", "test")
    )
    check_informative(torch.cat([val_logits, logits]))
    return Checkpoint(
        architecture=network.architecture,
        weights=weights,
        trained_on=source.digest,
        made_by=made_by,
        val_accuracy=accuracy(val_logits, val_labels),
        test_accuracy=accuracy(logits, labels),
        test_samples=len(labels),
        confusion=confusion(logits, labels, len(source.classes)),
        history=(),
    )


def check_informative(logits: Float[Tensor, "n k"]) -> None:
    """Raise a DataError where the answers are no numbers, or the same for all n images, up to a
    millionth of the largest.
    """
    wrong = int((~logits.isfinite()).any(dim=1).sum())
    if wrong:
        raise DataError(
            f"the model answers with NaN or infinity for {wrong} of {len(logits)} images of "
            "the source",
            hint="its training diverged, or the file is not the one that was trained: give another",
        )
    if len(logits) > 1 and float((logits.amax(0) - logits.amin(0)).max()) <= CONSTANT * float(
        logits.abs().max()
    ):
        raise DataError(
            f"the model gives one and the same answer for all {len(logits)} images of the "
            "source's validation and test splits",
            hint="there is nothing to audit in it: check that the file is the trained one, and "
            "how its images are to be normalised",
        )
