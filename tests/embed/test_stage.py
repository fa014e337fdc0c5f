"""Embedding a task and comparing two: laws, refusals, and what the figures must mean on real
images.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from lockforge.embed.fisher import DEFINITION, diagonal_fisher
from lockforge.embed.probe import load_probe
from lockforge.embed.stage import (
    cosine,
    cosine_of,
    distance,
    distance_of,
    embed_task,
    fit_head,
    vector_of,
)
from lockforge.errors import IntegrityError
from lockforge.recipe import EmbedRecipe
from lockforge.records import ImageSet, TaskEmbedding
from lockforge.runs import Runs, Work

IMAGES = Path(__file__).resolve().parents[3] / "shared/data/images"
REAL = ("mnist", "usps", "cifar10", "cifar100")
QUICK = EmbedRecipe(samples=64, head_steps=60)


def test_an_embedding_says_what_it_is_of(glyphs: ImageSet, work: Work) -> None:
    """It carries the digests of images and probe, the definition, samples and length; 4 glyphs are
    easy to tell apart.
    """
    found = embed_task(glyphs, QUICK, None, work=work)
    assert found.images == glyphs.digest
    assert found.probe == load_probe(QUICK, None, work.files).digest
    assert found.definition.startswith(DEFINITION)
    assert found.samples == 64
    assert found.dimension == sum(
        m.out_channels
        for m in load_probe(QUICK, None, work.files).network.modules()
        if isinstance(m, nn.Conv2d)
    )
    assert found.probe_accuracy > 0.6
    vector = vector_of(found, work.files)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    assert (vector >= 0).all()


def test_the_same_question_has_the_same_answer(glyphs: ImageSet, work: Work) -> None:
    """Byte for byte with one seed; another seed draws other images; the global generator stays
    where it was.
    """
    before = torch.random.get_rng_state()
    first, again = (embed_task(glyphs, QUICK, None, work=work) for _ in range(2))
    other = embed_task(glyphs, QUICK, None, work=Work(files=work.files, folder=work.folder, seed=1))
    assert first == again
    assert first.vector != other.vector
    assert torch.equal(torch.random.get_rng_state(), before)


class Scaled(nn.Module):
    """A network whose features are moved and scaled, each by its own amount."""

    def __init__(self, network: nn.Module, factor: Tensor) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def pooled(self, images: Tensor) -> Tensor:
        """The other network's features, times factor, plus factor."""
        features: Tensor = self.network.pooled(images)  # type: ignore[operator]
        return features * self.factor + self.factor


def test_a_head_does_not_feel_the_scale_of_features(
    work: Work, drawn: Callable[[str, int, int, int], tuple[Tensor, Tensor]]
) -> None:
    """Features a thousand times larger and moved give the same class scores, so one learning rate
    serves every probe.
    """
    images, labels = drawn("glyphs", 4, 96, 77)
    probe = load_probe(QUICK, None, work.files)
    factor = 10 ** (
        3 * torch.rand(probe.features(images).shape[1], generator=torch.Generator().manual_seed(1))
    )
    scores = []
    for seen in (probe, replace(probe, network=Scaled(probe.network, factor))):
        head = fit_head(seen, images, labels, 4, 60, torch.Generator().manual_seed(2))
        scores.append(head(seen.features(images)))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-2, atol=1e-2)


def test_few_images_are_enough(glyphs: ImageSet, work: Work) -> None:
    """More samples asked for than there are: all of the training split, none of the others."""
    assert (
        embed_task(glyphs, EmbedRecipe(samples=10_000, head_steps=5), None, work=work).samples
        == glyphs.counts.train
    )


def test_runs_find_a_finished_embedding_again(glyphs: ImageSet, work: Work, tmp_path: Path) -> None:
    """Through the runs folder, as the pipeline asks: the second answer is the stored one."""
    do = Runs(tmp_path, seed=0)
    assert do(embed_task, glyphs, QUICK, None) == do(embed_task, glyphs, QUICK, None)
    assert (
        len(list((tmp_path / "embed_task").glob("*"))) == 2
    )  # the answer, and the fixture's folder
    assert work.files.root == do.files.root


def test_like_tasks_are_nearer(glyphs: ImageSet, textures: ImageSet, work: Work) -> None:
    """Glyphs under another seed are nearer to glyphs than textures are, by both measures."""
    one, texture = (embed_task(task, QUICK, None, work=work) for task in (glyphs, textures))
    two = embed_task(glyphs, QUICK, None, work=Work(files=work.files, folder=work.folder, seed=1))
    assert cosine(one, two, work.files) > cosine(one, texture, work.files)
    assert distance(one, two, work.files) < distance(one, texture, work.files)


def changed(embedding: TaskEmbedding, **fields: object) -> TaskEmbedding:
    """The same record with other fields."""
    return TaskEmbedding.model_validate(embedding.model_dump() | fields)


def test_embeddings_of_two_kinds_are_not_compared(glyphs: ImageSet, work: Work) -> None:
    """Another probe or another definition: an error that names which, never a number."""
    mine = embed_task(glyphs, QUICK, None, work=work)
    for other, named in (
        (changed(mine, probe="0" * 64), "probe"),
        (changed(mine, definition="something else"), "definition"),
    ):
        for measure in (cosine, distance):
            with pytest.raises(IntegrityError, match=named):
                measure(mine, other, work.files)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_a_vector_that_no_fisher_diagonal_has_is_refused(
    bad: float, glyphs: ImageSet, work: Work
) -> None:
    """NaN, infinite, negative, all zero; or of another length, type or name."""
    mine = embed_task(glyphs, QUICK, None, work=work)
    spoilt = np.full(mine.dimension, bad, np.float32)
    for arrays in (
        {"fisher": spoilt},
        {"fisher": np.ones(3, np.float32)},
        {"fisher": np.ones(mine.dimension)},
        {"f": spoilt},
    ):
        with pytest.raises(IntegrityError):
            vector_of(changed(mine, vector=work.files.put_arrays(arrays)), work.files)


VECTORS = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=2, max_size=12).filter(
    lambda rows: any(a > 1e-6 for a, _ in rows) and any(b > 1e-6 for _, b in rows)
)


@given(VECTORS)
@example(
    [(16606.0, 0.0001), (246443.0, 0.015625)]
)  # 1 - a / (a + b) in place of b / (a + b) loses the ninth digit here
def test_both_measures_keep_their_laws(rows: list[tuple[float, float]]) -> None:
    """In [0, 1], symmetric; a vector beside itself is at cosine 1 and distance 0; cosine does not
    feel lengths.
    """
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    for measure in (cosine_of, distance_of):
        assert 0 <= measure(a, b) <= 1
        assert measure(a, b) == pytest.approx(measure(b, a), abs=1e-9)
    assert cosine_of(a, a) == pytest.approx(1)
    assert distance_of(a, a) == pytest.approx(0, abs=1e-9)
    assert cosine_of(3 * a, b) == pytest.approx(cosine_of(a, b), abs=1e-9)


def test_the_distance_is_task2vecs() -> None:
    """By hand: a = (1, 3), b = (3, 1): a/(a+b) = (1/4, 3/4), b/(a+b) = (3/4, 1/4), cosine 6/10,
    distance .4.
    """
    assert distance_of(np.array([1.0, 3.0]), np.array([3.0, 1.0])) == pytest.approx(0.4)
    assert distance_of(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])) == 1


@pytest.mark.skipif(
    not all((IMAGES / f"{name}.npz").is_file() for name in REAL),
    reason="the shared image sets are not here",
)
@pytest.mark.parametrize(
    ("samples", "seed"),
    [(96, 0), *(pytest.param(512, seed, marks=pytest.mark.slow) for seed in range(3))],
)
def test_digits_are_near_digits_and_photographs_near_photographs(
    samples: int, seed: int, work: Work
) -> None:
    """On sets the probe never saw: MNIST and USPS nearer to each other than either to CIFAR,
    CIFAR-10 nearer to CIFAR-100 than to MNIST.
    """
    probe = load_probe(EmbedRecipe(), None, work.files)
    vectors = {}
    for name in REAL:
        generator = torch.Generator().manual_seed(seed)
        with np.load(IMAGES / f"{name}.npz") as stored:
            images, labels = (
                torch.from_numpy(stored["x_train"]).permute(0, 3, 1, 2),
                torch.from_numpy(stored["y_train"]),
            )
        chosen = torch.randperm(len(images), generator=generator)[:samples]
        head = fit_head(
            probe, images[chosen], labels[chosen], int(labels.max()) + 1, 300, generator
        )
        vectors[name] = diagonal_fisher(
            probe.network, head, [probe.see(images[chosen])], generator=generator
        ).numpy()
    for far in (
        lambda a, b: -cosine_of(vectors[a], vectors[b]),
        lambda a, b: distance_of(vectors[a], vectors[b]),
    ):
        assert all(
            far("mnist", "usps") < far(digits, photographs)
            for digits in REAL[:2]
            for photographs in REAL[2:]
        )
        assert far("cifar10", "cifar100") < far("cifar10", "mnist")
