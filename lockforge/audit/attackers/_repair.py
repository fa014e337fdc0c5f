"""Source-only repair, then fine-tuning: on disturbed copies of source images the network learns to
say what it says of the clean ones.

Hong, Shen & Liu 2024 (TransNTL, CVPR, pages 28805-28815): a lock reaches beyond the target that it
was made for, into every domain near the source; disturbed source images are such domains, and there
the network can teach itself with a tenth of the source's images.
Differs: the teacher is the network as it was given, not as it is at each step; every copy gets a
draw of all disturbances together instead of one of a group; the thief's labelled images follow,
where the paper stops; plain steps instead of sharpness-aware ones.

Shapes: n images, c channels, h x w pixels, k classes. Pixels of this file are in [0, 1].
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from lockforge.audit._queries import fresh_head, numbered, phases, soft_cross_entropy, with_head
from lockforge.audit._thief import AttackerData, Draw
from lockforge.audit.attackers import _fine_tune as fine_tune
from lockforge.audit.protocol import (
    Asking,
    Attacker,
    Attempt,
    Budget,
    Capabilities,
    InitialModel,
    Setting,
)
from lockforge.data.batches import Pool
from lockforge.engine.evaluate import logits_of, reestimate_batch_norm
from lockforge.engine.fit import Loss
from lockforge.errors import DataError
from lockforge.models.classifier import Classifier
from lockforge.models.networks import flops
from lockforge.recipe import AuditRecipe

COPIES = 3  # disturbed copies of each source image, beside the clean one
INVERTED = 0.25  # share of copies that are turned into their negative
BLURRED = 0.5  # share of copies that are blurred
NOISE = 0.2  # greatest deviation of the noise


def settings(recipe: AuditRecipe, facts: Capabilities) -> tuple[Setting, ...]:
    """The first and the last optimiser and rate of fine-tuning, each with half and with a quarter
    of the steps for the repair.
    """
    first, *_, last = [*fine_tune.settings(recipe, facts)] * 2
    return tuple(
        replace(one, also=(("repair", share),))
        for one in dict.fromkeys((first, last))
        for share in (0.5, 0.25)
    )


def unfit(facts: Capabilities) -> str:
    """There must be source images."""
    return "" if facts.source_images else "the thief has none of the source's images"


def disturbed(
    images: UInt8[Tensor, "n c h w"], generator: torch.Generator
) -> UInt8[Tensor, "n c h w"]:
    """Each image with another contrast, brightness and colour, some as negatives, some blurred, and
    with noise; all drawn on the CPU.
    """

    def uniform(least: float, most: float, *shape: int) -> Float[Tensor, "..."]:
        return least + (most - least) * torch.rand(*shape, generator=generator)

    n, c = images.shape[:2]
    x = images.cpu().float() / 255
    x = torch.where(uniform(0, 1, n, 1, 1, 1) < INVERTED, 1 - x, x)
    x = (
        0.5
        + (x - 0.5) * uniform(0.4, 1.6, n, 1, 1, 1) * uniform(0.7, 1.3, n, c, 1, 1)
        + uniform(-0.3, 0.3, n, c, 1, 1)
    )
    x = torch.where(
        uniform(0, 1, n, 1, 1, 1) < BLURRED,
        functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        x,
    )
    x += uniform(0, NOISE, n, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).to(images.device)


@dataclass(frozen=True)
class Lesson:
    """Clean source images, then their disturbed copies, numbered, and what should be said of each
    row.
    """

    images: Pool
    loss: Loss


def lesson(teacher: Classifier, source: Pool, device: str, generator: torch.Generator) -> Lesson:
    """Clean images have their labels; disturbed copies what the teacher says of the clean image."""
    said, labels = logits_of(teacher, source, device=device)
    copies = [source.images, *(disturbed(source.images, generator) for _ in range(COPIES))]
    wanted = [
        functional.one_hot(labels, source.classes).to(said.dtype),
        *[functional.softmax(said, 1)] * COPIES,
    ]
    return Lesson(
        numbered(replace(source, images=torch.cat(copies))), soft_cross_entropy(torch.cat(wanted))
    )


def repair(
    given: InitialModel, data: AttackerData, settings: Sequence[Setting], budget: Budget, draw: Draw
) -> Asking:
    """Repair a copy with the head that came with it, give it the thief's head back, re-estimate the
    statistics, fine-tune.

    Operations: 3 passes for each image seen, 1 for each source image that is taught with, 1 for
    each image whose statistics are taken.
    Raises: DataError: there are no source images.
    """
    if data.source is None:
        raise DataError(
            "source-only repair needs images of the source",
            hint="give the thief some of them, or leave this attacker out",
        )
    head = fresh_head(
        given.network.head.in_features, data.source.classes, draw("source head")
    ).state_dict()
    whole = with_head(given.network, given.source_head or head).to(budget.device)
    lessons = lesson(whole, data.source, budget.device, draw("disturbed"))
    parts = [phases(budget, float(dict(setting.also)["repair"])) for setting in settings]
    begun = [at for at, (first, _) in enumerate(parts) if first.steps]
    repaired = yield [
        replace(
            parts[at][0].training(
                whole, (lessons.images, data.source), settings[at], draw(settings[at], "repair")
            ),
            loss=lessons.loss,
        )
        for at in begun
    ]
    starts = [copy.deepcopy(given.network) for _ in settings]
    for at, one in zip(begun, repaired, strict=True):
        body = {
            name: tensor
            for name, tensor in one.module.state_dict().items()
            if not name.startswith("head.")
        }
        starts[at].load_state_dict(
            {
                **body,
                **{
                    f"head.{name}": tensor
                    for name, tensor in given.network.head.state_dict().items()
                },
            }
        )
    for start, setting in zip(starts, settings, strict=True):
        if setting.batch_norm == "re-estimated":
            reestimate_batch_norm(start, data.train, device=budget.device)
    done = yield [
        second.training(start, (data.train, data.val), setting, draw(setting, "tuning"))
        for start, setting, (_, second) in zip(starts, settings, parts, strict=True)
    ]
    return [
        Attempt(
            setting,
            one.module,
            one.val_accuracy,
            budget.steps,
            _cost(given, data, lessons, setting, part),
            one.diverged,
        )
        for setting, one, part in zip(settings, done, parts, strict=True)
    ]


def _cost(
    given: InitialModel,
    data: AttackerData,
    lessons: Lesson,
    setting: Setting,
    parts: tuple[Budget, Budget],
) -> float:
    first, second = parts
    trained = 3 * (first.seen(len(lessons.images)) + second.seen(len(data.train)))
    taught = len(lessons.images) // (1 + COPIES)
    return float(
        flops(given.network.architecture)
        * (trained + taught + (setting.batch_norm == "re-estimated") * len(data.train))
    )


REPAIR = Attacker("source-repair", repair, settings, unfit)
