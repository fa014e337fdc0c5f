"""What the thief can start from: release, twin, reference, empty networks, one passed off as the
release, ablations and public networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lockforge.audit.protocol import Capabilities, InitialModel
from lockforge.errors import DataError
from lockforge.files import Files
from lockforge.models.black_box import OpaqueNetwork, read_opaque
from lockforge.models.networks import build, load
from lockforge.models.read_onnx import BlackBox
from lockforge.records import (
    AnyArchitecture,
    Architecture,
    Checkpoint,
    FileRef,
    ImageSet,
    Start,
    Subjects,
    is_black_box,
)

SCRATCH = "scratch"


@dataclass(frozen=True)
class StartingPoint:
    """A network before any attack. `architecture` has the target's classes; `weights` is None for
    an empty network.

    `scratch` networks are trained from nothing; all others, the dummy too, are attacked like the
    release. `source_classes` are those of the head that comes with it. A `box` is all there is of a
    black box, which has no weights. A `public` network may have other classes than the source: what
    can be done with it is its own matter.
    """

    name: Start
    architecture: AnyArchitecture
    weights: Mapping[str, Tensor] | None
    scratch: bool
    source_classes: int
    box: BlackBox | None = None
    public: bool = False

    def given(self, generator: torch.Generator, device: str = "cpu") -> InitialModel:
        """The network with a new head for the target's classes; the head, and all weights where
        there are none, from `generator`.
        """
        if self.box is not None:
            return self._given_box(self.box, generator, device)
        empty = build(self.architecture, generator)
        if self.weights is None:
            if self.scratch:
                return InitialModel(empty.to(device))
            passed_off = build(
                self.architecture.model_copy(update={"classes": self.source_classes}), generator
            )
            return InitialModel(
                empty.to(device), source_head=passed_off.head.to(device).state_dict()
            )
        body = {
            name: tensor for name, tensor in self.weights.items() if not name.startswith("head.")
        }
        head = {f"head.{name}": tensor for name, tensor in empty.head.state_dict().items()}
        fits = all(self.weights[name].shape == tensor.shape for name, tensor in head.items())
        came = {name: self.weights[f"head.{name}"].to(device) for name in empty.head.state_dict()}
        return InitialModel(
            load(self.architecture, {**body, **head}).to(device), came if fits else None, came
        )

    def _given_box(self, box: BlackBox, generator: torch.Generator, device: str) -> InitialModel:
        """A new head behind the answers. The old head hands the answers on, where there are as many
        as the target has classes.
        """
        classes = self.architecture.classes
        old = (
            OpaqueNetwork(box, classes).head.to(device).state_dict()
            if box.classes == classes
            else None
        )
        return InitialModel(
            OpaqueNetwork(box, classes, generator).to(device),
            old,
            OpaqueNetwork(box, box.classes).head.to(device).state_dict(),
        )

    def facts(self, facts: Capabilities) -> Capabilities:
        """What holds for an attack from here: the audit's facts, except that a public network has
        classes and layers of its own.
        """
        if not self.public:
            return facts
        fits = self.source_classes == self.architecture.classes
        return replace(
            facts,
            same_classes=False,
            head_fits=fits,
            cells=isinstance(self.architecture, Architecture),
        )


def facts_of(
    subjects: Subjects, source: ImageSet, target: ImageSet
) -> tuple[Capabilities, Capabilities]:
    """What holds for every start but the public ones, and what would hold were the release, with
    its weights, the only one.

    Ablations are not asked: what they allow is what the release and the reference do, or there is
    no audit (`starting_points`). A thief has the file of a black box, and with it all that is in
    it: what this audit cannot do with it, he may.
    """
    networks = [one.architecture for one in (subjects.release, subjects.twin, subjects.reference)]
    alone = Capabilities(
        same_classes=source.classes == target.classes,
        head_fits=len(source.classes) == len(target.classes),
        source_images=True,
        cells=isinstance(networks[0], Architecture) or is_black_box(networks[0]),
    )
    cells = all(isinstance(network, Architecture) for network in networks)
    return replace(
        alone, cells=cells, black_box=any(is_black_box(network) for network in networks)
    ), alone


def starting_points(
    subjects: Subjects, target: ImageSet, files: Files
) -> tuple[tuple[StartingPoint, ...], dict[Start, Start]]:
    """The starts that need attacking, with their weights, and the others: {start: the earlier start
    that is the same network}.

    Raises: DataError: see `distinct_starts`.
    """
    found, same_as = distinct_starts(subjects, target)
    return tuple(_with_weights(start, weights, files) for start, weights in found), same_as


def _with_weights(start: StartingPoint, weights: FileRef | None, files: Files) -> StartingPoint:
    if weights is None:
        return start
    if is_black_box(start.architecture):
        return replace(
            start,
            box=read_opaque(
                start.architecture.model_copy(update={"classes": start.source_classes}),
                weights,
                files,
            ),
        )
    return replace(start, weights=files.get_tensors(weights))


def distinct_starts(
    subjects: Subjects, target: ImageSet
) -> tuple[tuple[tuple[StartingPoint, FileRef | None], ...], dict[Start, Start]]:
    """The starts that need attacking, none read yet, each with where its weights are; and the
    others, as `starting_points` gives them.

    Two trained starts are the same when architecture and weights are; two scratch starts when the
    architectures are.

    Raises: DataError: the target's images have another shape than the networks take, or an
        ablation is no network that every attacker of the release can be sent at; all such networks
        are listed.
    """
    trained: tuple[tuple[Start, Checkpoint], ...] = (
        ("release", subjects.release),
        ("twin", subjects.twin),
        ("reference", subjects.reference),
    )
    ablations: tuple[tuple[Start, Checkpoint], ...] = tuple(
        (f"ablation:{one.name}", one.checkpoint) for one in subjects.ablations
    )
    strangers: dict[Start, AnyArchitecture] = {
        f"public:{one.name}": one.architecture for one in subjects.public
    }
    _check_shapes(
        {**{name: one.architecture for name, one in (*trained, *ablations)}, **strangers}, target
    )
    _check_kinds(
        [one.architecture for _, one in trained],
        {name: one.architecture for name, one in ablations},
    )
    points: list[tuple[StartingPoint, FileRef | None]] = []
    same_as: dict[Start, Start] = {}
    first: dict[tuple[str, str], Start] = {}

    def add(
        name: Start,
        architecture: AnyArchitecture,
        weights: FileRef | None,
        identity: str,
        *,
        public: bool = False,
    ) -> None:
        headless = architecture.model_copy(update={"classes": len(target.classes)})
        key = (headless.digest, identity)
        if key in first:
            same_as[name] = first[key]
            return
        first[key] = name
        start = StartingPoint(
            name,
            headless,
            None,
            scratch=identity == SCRATCH,
            source_classes=architecture.classes,
            public=public,
        )
        points.append((start, weights))

    for name, checkpoint in trained:
        add(name, checkpoint.architecture, checkpoint.weights, checkpoint.weights.sha256)
    add("scratch_release", subjects.empty(subjects.release), None, SCRATCH)
    add("scratch_reference", subjects.empty(subjects.reference), None, SCRATCH)
    add("dummy", subjects.empty(subjects.release), None, "dummy")
    for name, checkpoint in ablations:
        add(name, checkpoint.architecture, checkpoint.weights, checkpoint.weights.sha256)
    for one in subjects.public:
        add(f"public:{one.name}", one.architecture, one.weights, one.weights.sha256, public=True)
    return tuple(points), same_as


def _check_shapes(networks: Mapping[Start, AnyArchitecture], target: ImageSet) -> None:
    wrong = [
        (name, network.shape) for name, network in networks.items() if network.shape != target.shape
    ]
    if wrong:
        (name, shape), others = wrong[0], wrong[1:]
        raise DataError(
            f"the {name} takes images of shape {shape}, the target's are {target.shape}",
            faults=[f"the {other} takes {another}" for other, another in others],
            hint="read the target in the source's shape: `data.size` and `data.channels` do that",
        )


def _check_kinds(
    trained: Sequence[AnyArchitecture], ablations: Mapping[Start, AnyArchitecture]
) -> None:
    """Refuse ablations that would keep an attacker away from the release: black boxes, and networks
    without cells beside ones with them.
    """
    cells = all(isinstance(network, Architecture) for network in trained)
    boxes = any(is_black_box(network) for network in trained)
    wrong = [
        f"{name} is {network}"
        for name, network in ablations.items()
        if (is_black_box(network) and not boxes)
        or (cells and not isinstance(network, Architecture))
    ]
    if wrong:
        raise DataError(
            "an ablation is another kind of network than the release",
            faults=wrong,
            hint="an ablation is the release's or the reference's own architecture with other "
            "weights",
        )
