"""Embed a task: train a head on a frozen probe, take the diagonal Fisher information of the probe;
compare two tasks.

Shapes: n images, c channels, h x w pixels, d embedding entries.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from lockforge.data.batches import Pool, load_pool
from lockforge.embed.fisher import DEFINITION, diagonal_fisher
from lockforge.embed.probe import Probe, load_probe
from lockforge.engine import heads
from lockforge.errors import IntegrityError, OutcomeError
from lockforge.files import Files
from lockforge.randomness import torch_generator
from lockforge.recipe import EmbedRecipe, FitRecipe
from lockforge.records import FileRef, ImageSet, TaskEmbedding
from lockforge.runs import Work, stage

_BATCH = 64
HEAD = FitRecipe(
    steps=1,
    batch_size=64,
    optimizer="adam",
    learning_rate=0.01,
    weight_decay=1e-3,
    label_smoothing=0.05,
    precision="float32",
    select="last",
)


@stage(version=1)
def embed_task(
    images: ImageSet, recipe: EmbedRecipe, weights: FileRef | None, *, work: Work
) -> TaskEmbedding:
    """The task embedding of one data set: what a frozen probe with a head for this task is
    sensitive to.

    Args: images: the training split makes the embedding, the validation split only
        `probe_accuracy`. recipe: probe, images, head steps. weights: the safetensors file of the
        backbone that `recipe.probe` names; None for the packaged probe.
    Raises: RecipeError, IntegrityError: see `load_probe`. OutcomeError: the information is not
        finite, or zero.
    """
    probe = load_probe(recipe, weights, work.files, work.device)
    train = draw(
        load_pool(images, "train", work.files, device=work.device),
        recipe.samples,
        torch_generator(work.seed, "embed", "train"),
    )
    val = draw(
        load_pool(images, "val", work.files, device=work.device),
        recipe.samples,
        torch_generator(work.seed, "embed", "val"),
    )
    work.report(0, 3, "head")
    head = fit_head(
        probe,
        train.images,
        train.labels,
        len(images.classes),
        recipe.head_steps,
        torch_generator(work.seed, "embed", "head"),
    )

    work.report(1, 3, "accuracy")
    with torch.no_grad():
        scored = head(probe.features(val.images)).argmax(1) if len(val) else val.labels
    probe_accuracy = float((scored == val.labels).double().mean()) if len(val) else 0.0

    work.report(2, 3, "Fisher information")
    batches = (probe.see(part) for part in torch.split(train.images, _BATCH))
    fisher = (
        diagonal_fisher(
            probe.network,
            head,
            batches,
            generator=torch_generator(work.seed, "embed", "directions"),
        )
        .cpu()
        .numpy()
    )
    if not np.isfinite(fisher).all() or not fisher.any():
        raise OutcomeError(
            f"the Fisher information of the {recipe.probe} probe on {images.digest[:12]} is "
            f"{'zero' if not fisher.any() else 'not finite'}",
            hint="look at the images: are they all alike? is the weights file sound?",
        )
    work.log(probe=probe.name, samples=len(train), probe_accuracy=probe_accuracy)
    return TaskEmbedding(
        images=images.digest,
        probe=probe.digest,
        definition=f"{DEFINITION}; {probe.name} at {probe.side} px; head {recipe.head_steps} steps",
        dimension=len(fisher),
        samples=len(train),
        probe_accuracy=probe_accuracy,
        vector=work.files.put_arrays({"fisher": fisher}),
    )


def draw(pool: Pool, samples: int, generator: torch.Generator) -> Pool:
    """At most `samples` images of a pool, drawn without replacement."""
    return pool.take(torch.randperm(len(pool), generator=generator)[:samples])


def fit_head(
    probe: Probe,
    images: UInt8[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    classes: int,
    steps: int,
    generator: torch.Generator,
) -> nn.Linear:
    """A linear head on the frozen probe's features of these images."""
    return heads.fit_head(
        probe.features(images), labels, classes, HEAD.model_copy(update={"steps": steps}), generator
    )


def vector_of(embedding: TaskEmbedding, files: Files) -> Float32[np.ndarray, " d"]:
    """The numbers of an embedding.

    Raises: IntegrityError: the file is gone or changed, or holds something else than `dimension`
        finite numbers >= 0.
    """
    fisher = files.get_arrays(embedding.vector).get("fisher")
    if fisher is None or fisher.dtype != np.float32 or fisher.shape != (embedding.dimension,):
        raise IntegrityError(
            f"{files.path(embedding.vector)} holds no {embedding.dimension} single-precision "
            "numbers `fisher`",
            hint="embed the data set again",
        )
    if not (np.isfinite(fisher).all() and (fisher >= 0).all() and fisher.any()):
        raise IntegrityError(
            f"{files.path(embedding.vector)} holds no Fisher diagonal: it must be finite, >= 0 "
            "and not all zero",
            hint="embed the data set again",
        )
    return fisher


def cosine(a: TaskEmbedding, b: TaskEmbedding, files: Files) -> float:
    """The cosine of two embeddings, in [0, 1].

    Raises: IntegrityError: they come from different probes or definitions, or a vector is gone.
    """
    return cosine_of(*_pair(a, b, files))


def distance(a: TaskEmbedding, b: TaskEmbedding, files: Files) -> float:
    """Task2Vec's symmetric distance of two embeddings, in [0, 1]; see `distance_of`.

    Raises: IntegrityError: they come from different probes or definitions, or a vector is gone.
    """
    return distance_of(*_pair(a, b, files))


def cosine_of(a: Float[np.ndarray, " d"], b: Float[np.ndarray, " d"]) -> float:
    """a.b / (|a| |b|), of vectors >= 0.

    >>> cosine_of(np.array([3.0, 0.0]), np.array([3.0, 4.0]))
    0.6
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), 0, 1))


def distance_of(a: Float[np.ndarray, " d"], b: Float[np.ndarray, " d"]) -> float:
    """1 - cos(a / (a + b), b / (a + b)) (Achille et al. 2019, arXiv:1902.03545, equation 2);
    entries where both are zero are left out.

    Dividing by the sum makes every filter count alike, whatever the size of its layer's
    information.

    >>> round(distance_of(np.array([1.0, 0.0]), np.array([1.0, 1.0])), 3)
    0.553
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    kept = x + y > 0
    both = (x + y)[kept]
    return 1 - cosine_of(x[kept] / both, y[kept] / both)


def _pair(
    a: TaskEmbedding, b: TaskEmbedding, files: Files
) -> tuple[Float32[np.ndarray, " d"], Float32[np.ndarray, " d"]]:
    faults = [
        f"{name}: {mine[:40]!r} and {other[:40]!r}"
        for name, mine, other in (
            ("probe", a.probe, b.probe),
            ("definition", a.definition, b.definition),
        )
        if mine != other
    ]
    if faults:
        raise IntegrityError(
            "these task embeddings cannot be compared",
            faults=faults,
            hint="embed both data sets with the same probe and version",
        )
    return vector_of(a, files), vector_of(b, files)
