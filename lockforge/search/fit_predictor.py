"""Meta-training: score untrained cells on many real tasks, and teach a predictor which of two cells
more of the proxies prefer.

Shapes: k cells, t tasks, p proxies, n questions, e code of a cell, d entries of an embedding.

Cells that were scored on every task are held out: no question of the training is about one of them,
and on them all tasks can be compared over the same pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from lockforge.data.batches import load_pool
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import RunContext, fit
from lockforge.errors import DataError, IntegrityError
from lockforge.files import Files
from lockforge.models.networks import build
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.recipe import FitRecipe, NetworkRecipe
from lockforge.records import Architecture, Cell, Digest, FileRef, ImageSet, Record, TaskEmbedding
from lockforge.runs import Work, stage
from lockforge.search._proxies import PROXIES, score_network
from lockforge.search.predictor import (
    Form,
    PairNetwork,
    Predictor,
    code_width,
    load_predictor,
    save_predictor,
    standardised,
)
from lockforge.spaces.encoding import one_hot

TRAINING = (
    "training"  # the kind of task the predictor learns from; tasks of any other kind only test it
)
_LEAST_TASKS = 4
_SHUFFLES = 8  # other tasks whose embedding stands in, one after the other


class CellScores(Record):
    """Proxies of some cells on one task; `scores` holds `scores` f64 (k, p), NaN where a proxy is
    missing.
    """

    images: Digest
    cells: tuple[Cell, ...]
    missing: dict[str, int]
    scores: FileRef


class FittedPredictor(Record):
    """A predictor's file and its card."""

    file: FileRef
    card: dict[str, Any]


@stage(version=1)
def score_cells(
    images: ImageSet,
    network: NetworkRecipe,
    cells: tuple[Cell, ...],
    batch: int,
    side: int,
    *,
    work: Work,
) -> CellScores:
    """The seven proxies of untrained cells on one minibatch of a task's training split; the same
    images and weight seed for every cell.

    Args: network: the skeleton. batch: images. side: larger images are first averaged down to
        so many pixels.
    """
    pool = load_pool(images, "train", work.files, device=work.device)
    rows = torch.randperm(
        len(pool), generator=torch_generator(work.seed, "score", "rows", images.digest)
    )[:batch]
    some = pool.take(rows)
    pixels, labels = some.pixels(), some.labels
    if max(pixels.shape[1:]) > side:
        pixels = functional.interpolate(pixels, size=(side, side), mode="area")
    table = np.full((len(cells), len(PROXIES)), np.nan)
    for at, cell in enumerate(cells):
        architecture = Architecture(
            space=network.space,
            cell=cell,
            stem_channels=network.stem_channels,
            cells_per_stage=network.cells_per_stage,
            classes=len(images.classes),
            shape=(pixels.shape[1], pixels.shape[2], pixels.shape[3]),
        )
        net = build(architecture, torch_generator(work.seed, "score", "weights", images.digest))
        scores = score_network(net.to(work.device), pixels, labels)
        table[at] = [np.nan if scores[name] is None else scores[name] for name in PROXIES]
        work.report(at + 1, len(cells), "scoring cells")
    missing = {
        name: int(count)
        for name, count in zip(PROXIES, np.isnan(table).sum(0), strict=True)
        if count
    }
    return CellScores(
        images=images.digest,
        cells=cells,
        missing=missing,
        scores=work.files.put_arrays({"scores": table}),
    )


def majority(scores: Float[np.ndarray, "k p"]) -> Int64[np.ndarray, "k k"]:
    """+1 where more proxies prefer the row's cell to the column's, -1 where fewer do, 0 where they
    balance; missing ones do not vote.

    >>> majority(np.array([[2.0, 1.0, np.nan], [1.0, 1.0, 5.0]])).tolist()
    [[0, 1], [-1, 0]]
    """
    with np.errstate(invalid="ignore"):
        votes = (scores[:, None] > scores[None]).sum(-1).astype(np.int64) - (
            scores[:, None] < scores[None]
        ).sum(-1)
    signs: Int64[np.ndarray, "k k"] = np.sign(votes)
    return signs


@stage(version=1)
def fit_predictor(
    embeddings: tuple[TaskEmbedding, ...],
    scores: tuple[CellScores, ...],
    kinds: tuple[str, ...],
    network: NetworkRecipe,
    form: Form,
    recipe: FitRecipe,
    *,
    work: Work,
) -> FittedPredictor:
    """Fit a predictor on the training cells of the training tasks, and test it on tasks and cells
    it has not seen.

    Args: embeddings, scores, kinds: one each a task; kind `training`, or a name for tasks that only
        test. network: space and skeleton. form: `pair` or `score`, see `PairNetwork`.
    Raises: DataError: too few tasks, or no cell scored on all of them. IntegrityError: embeddings
        of different probes, or of other tasks.
    """
    lessons = _lessons(embeddings, scores, kinds, work.files)
    learning = [lesson for lesson in lessons if lesson.kind == TRAINING]
    bank = np.stack([lesson.vector for lesson in learning])
    pair = PairNetwork(
        code_width(network.space),
        bank.shape[1],
        form,
        torch_generator(work.seed, "predictor", "weights"),
    )
    train = _questions(learning, standardised(bank, bank), network.space)
    context = RunContext(device=work.device, folder=work.folder / "fit", report=work.report)
    generator = torch_generator(work.seed, "predictor", "batches")
    loss = functional.binary_cross_entropy_with_logits
    fit(_Flat(pair), train, recipe, generator=generator, loss=loss, context=context)
    card: dict[str, Any] = {
        "space": network.space,
        "probe": embeddings[0].probe,
        "definition": embeddings[0].definition,
        "form": form,
        "skeleton": network.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "seed": work.seed,
        "labels": "majority of " + ", ".join(PROXIES),
        "tasks": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "cells": {
            "training, each task its own": len(lessons[0].own),
            "held out, the same for all tasks": len(lessons[0].common),
        },
        "training_pairs": len(train),
        "missing": {name: sum(task.missing.get(name, 0) for task in scores) for name in PROXIES},
    }
    predictor = load_predictor(network.space, save_predictor(pair.to("cpu"), bank, card))
    card |= {
        "agreement": agreement(lessons),
        "pair_accuracy": pair_accuracy(predictor, lessons, work.seed),
    }
    return FittedPredictor(file=work.files.put(save_predictor(pair, bank, card)), card=card)


class _Flat(nn.Module):
    """A `PairNetwork` that takes both codes and the task in one row, as the training loop gives
    them.
    """

    def __init__(self, pair: PairNetwork) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, rows: Float[Tensor, "n w"]) -> Float[Tensor, " n"]:
        """The logits that the first cell is better."""
        a, b, z = torch.split(rows, [self.pair.code, self.pair.code, self.pair.dimension], dim=1)
        logits: Tensor = self.pair(a, b, z)
        return logits


@dataclass(frozen=True)
class Lesson:
    """One task: its embedding, its cells, which of two the proxies prefer, and the places of its
    training and of the held-out cells.
    """

    kind: str
    vector: Float[np.ndarray, " d"]
    cells: tuple[Cell, ...]
    prefer: Int64[np.ndarray, "k k"]
    own: tuple[int, ...]
    common: tuple[int, ...]


def _lessons(
    embeddings: Sequence[TaskEmbedding],
    scores: Sequence[CellScores],
    kinds: Sequence[str],
    files: Files,
) -> tuple[Lesson, ...]:
    if (
        not len(embeddings) == len(scores) == len(kinds)
        or min(kinds.count(TRAINING), len(kinds) - kinds.count(TRAINING)) < _LEAST_TASKS
    ):
        raise DataError(
            f"{kinds.count(TRAINING)} tasks to learn from and "
            f"{len(kinds) - kinds.count(TRAINING)} to test on are too few",
            hint=f"give at least {_LEAST_TASKS} of each",
        )
    marks = {(embedding.probe, embedding.definition) for embedding in embeddings}
    if len(marks) > 1 or any(
        embedding.images != task.images for embedding, task in zip(embeddings, scores, strict=True)
    ):
        raise IntegrityError(
            "embeddings and scores do not belong together",
            hint="one probe for all, and the tasks in the same order",
        )
    shared = set.intersection(*(set(task.cells) for task in scores))
    if len(shared) < 2:
        raise DataError(
            "fewer than two cells were scored on every task",
            hint="score some cells on all of them: they are held out",
        )
    common_cells = sorted(shared, key=str)
    lessons = []
    for embedding, task, kind in zip(embeddings, scores, kinds, strict=True):
        place = {cell: at for at, cell in enumerate(task.cells)}
        lessons.append(
            Lesson(
                kind=kind,
                vector=np.asarray(files.get_arrays(embedding.vector)["fisher"], dtype=np.float64),
                cells=task.cells,
                prefer=majority(files.get_arrays(task.scores)["scores"]),
                own=tuple(at for at, cell in enumerate(task.cells) if cell not in shared),
                common=tuple(place[cell] for cell in common_cells),
            )
        )
    return tuple(lessons)


def _questions(lessons: Sequence[Lesson], shapes: Float[Tensor, "t d"], space: str) -> TensorFeed:
    """All pairs of own cells that the proxies do not balance; every other pair is asked the other
    way round.
    """
    rows: list[Tensor] = []
    labels: list[Tensor] = []
    for lesson, shape in zip(lessons, shapes, strict=True):
        codes = torch.from_numpy(one_hot([lesson.cells[at] for at in lesson.own], space))
        prefer = lesson.prefer[np.ix_(lesson.own, lesson.own)]
        i, j = np.nonzero(np.triu(prefer, 1))
        turned = np.arange(len(i)) % 2 == 1
        i, j = np.where(turned, j, i), np.where(turned, i, j)
        rows.append(torch.cat([codes[i], codes[j], shape.expand(len(i), -1)], dim=1))
        labels.append(torch.from_numpy((prefer[i, j] > 0).astype(np.float32)))
    return TensorFeed(torch.cat(rows), torch.cat(labels))


def agreement(lessons: Sequence[Lesson]) -> float:
    """How alike the tasks are: the share of held-out pairs that two tasks decide alike, over all
    pairs of tasks and pairs both decide.

    One less this is all that a task embedding could ever explain.
    """
    upper = np.triu_indices(len(lessons[0].common), 1)
    answers = np.stack(
        [lesson.prefer[np.ix_(lesson.common, lesson.common)][upper] for lesson in lessons]
    )
    same = decided = 0
    for at in range(len(answers)):
        products = answers[at] * answers[at + 1 :]
        same += int((products > 0).sum())
        decided += int((products != 0).sum())
    return round(same / max(1, decided), 4)


def pair_accuracy(
    predictor: Predictor, lessons: Sequence[Lesson], seed: int
) -> dict[str, dict[str, Any]]:
    """For each kind of task, the share of pairs answered as the proxies' majority does, a mean over
    tasks.

    `held_out_cells` and `own_cells` (seen in training only where the task was): with the task's own
    embedding (`real`), with those of other tasks (`shuffled`, mean over eight) and with none
    (`zero`: the mean task). `real_minus_shuffled` has a value a task, on held-out cells.
    """
    report: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(lesson.kind for lesson in lessons):
        here = [at for at, lesson in enumerate(lessons) if lesson.kind == kind]
        report[kind] = {}
        for name in ("held_out_cells", "own_cells"):
            rows = np.array([_accuracies(predictor, lessons, at, name, seed) for at in here])
            report[kind][name] = dict(
                zip(
                    ("real", "shuffled", "zero"),
                    (round(float(mean), 4) for mean in rows.mean(0)),
                    strict=True,
                )
            )
            if name == "held_out_cells":
                report[kind]["real_minus_shuffled"] = [
                    round(float(value), 4) for value in rows[:, 0] - rows[:, 1]
                ]
    return report


def _accuracies(
    predictor: Predictor, lessons: Sequence[Lesson], at: int, name: str, seed: int
) -> tuple[float, float, float]:
    """Real, shuffled and zero for one task."""
    lesson = lessons[at]
    kept = lesson.common if name == "held_out_cells" else lesson.own
    cells = [lesson.cells[place] for place in kept]
    prefer = lesson.prefer[np.ix_(kept, kept)]
    others = [task.vector for place, task in enumerate(lessons) if place != at]
    drawn = numpy_generator(seed, "predictor", "shuffle", at).choice(
        len(others), min(_SHUFFLES, len(others)), replace=False
    )
    vectors = np.stack([lesson.vector, *(others[place] for place in drawn)])
    decided = np.triu(prefer, 1) != 0
    logits = predictor.ask_all(cells, vectors), predictor.ask_typical(cells)
    right = [
        float((np.sign(answer[decided]) == prefer[decided]).mean())
        for answer in (*logits[0], logits[1])
    ]
    return right[0], float(np.mean(right[1:-1])), right[-1]
