"""What the thief can start from: the release, its twin, the reference, empty networks, and an empty network passed off as the release."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lockforge.audit.protocol import Given
from lockforge.errors import DataError
from lockforge.records import AnyArchitecture, Checkpoint, ImageSet, Start, Subjects
from lockforge.runs import Files
from lockforge.spaces.networks import build, load


@dataclass(frozen=True)
class StartingPoint:
    """A network before any attack. `architecture` has the target's classes; `weights` is None for an empty network.

    `scratch` networks are trained from nothing; all others, the dummy too, are attacked like the release. `source_classes` are those
    of the head that comes with it.
    """

    name: Start
    architecture: AnyArchitecture
    weights: Mapping[str, Tensor] | None
    scratch: bool
    source_classes: int

    def given(self, generator: torch.Generator, device: str = "cpu") -> Given:
        """The network with a new head for the target's classes; the head, and all weights where there are none, from `generator`."""
        empty = build(self.architecture, generator)
        if self.weights is None:
            if self.scratch:
                return Given(empty.to(device))
            passed_off = build(self.architecture.model_copy(update={"classes": self.source_classes}), generator)
            return Given(empty.to(device), source_head=passed_off.head.to(device).state_dict())
        body = {name: tensor for name, tensor in self.weights.items() if not name.startswith("head.")}
        head = {f"head.{name}": tensor for name, tensor in empty.head.state_dict().items()}
        fits = all(self.weights[name].shape == tensor.shape for name, tensor in head.items())
        came = {name: self.weights[f"head.{name}"].to(device) for name in empty.head.state_dict()}
        return Given(load(self.architecture, {**body, **head}).to(device), came if fits else None, came)


def starting_points(subjects: Subjects, target: ImageSet, files: Files) -> tuple[tuple[StartingPoint, ...], dict[Start, Start]]:
    """The starts that need attacking, and the others: {start: the earlier start that is the same network}.

    Two trained starts are the same when architecture and weights are; two scratch starts when the architectures are.

    Raises: DataError: the target's pictures have another shape than the networks take.
    """
    trained: tuple[tuple[Start, Checkpoint], ...] = (
        ("release", subjects.release),
        ("twin", subjects.twin),
        ("reference", subjects.reference),
    )
    for name, checkpoint in trained:
        if checkpoint.architecture.shape != target.shape:
            raise DataError(
                f"the {name} takes pictures of shape {checkpoint.architecture.shape}, the target's are {target.shape}",
                hint="read the target in the source's shape: `data.size` and `data.channels` do that",
            )
    points: list[StartingPoint] = []
    same_as: dict[Start, Start] = {}
    first: dict[tuple[str, str], Start] = {}

    def add(name: Start, checkpoint: Checkpoint, identity: str | None, *, scratch: bool) -> None:
        architecture = checkpoint.architecture.model_copy(update={"classes": len(target.classes)})
        key = (architecture.digest, name if identity is None else identity)
        if key in first:
            same_as[name] = first[key]
            return
        first[key] = name
        empty = scratch or name == "dummy"
        weights = None if empty else files.get_tensors(checkpoint.weights)
        points.append(StartingPoint(name, architecture, weights, scratch, checkpoint.architecture.classes))

    for name, checkpoint in trained:
        add(name, checkpoint, checkpoint.weights.sha256, scratch=False)
    add("scratch_release", subjects.release, "scratch", scratch=True)
    add("scratch_reference", subjects.reference, "scratch", scratch=True)
    add("dummy", subjects.release, None, scratch=False)
    return tuple(points), same_as
