"""Networks that are made elsewhere, by timm or by a function of their owner's, as a `Classifier`:
the last linear layer is the head.

What is asked of them is tried on two made-up images before anything else, since nothing is known
of their code. It runs on the CPU and draws from torch's global random state: that is seeded around
it and put back.

Shapes: n images, c channels, h x w pixels, d features, k classes.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.errors import DataError
from lockforge.models import _python_functions as functions
from lockforge.models import _timm_networks as timm_networks
from lockforge.models._read_state_dict import read_tensors
from lockforge.models.backbones import finite, misfits, with_counters
from lockforge.models.classifier import Classifier
from lockforge.randomness import torch_generator
from lockforge.records import NamedArchitecture, origin_of

_DRAWN = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)  # by `networks.build`
_Dropout = nn.modules.dropout._DropoutNd


class ForeignNetwork(Classifier):
    """A network made elsewhere (`body`) with its last linear layer taken off and one for the
    architecture's classes (`head`) put beside it.

    Differs: dropout layers drop nothing, as in our own networks. Only the features are known: they
        are the maps too, of one pixel.
    """

    architecture: NamedArchitecture

    def __init__(self, architecture: NamedArchitecture, made: nn.Module, head: str) -> None:
        super().__init__()
        self.architecture = architecture
        old = made.get_submodule(head)
        # `head_of` and timm_networks.create see to it
        assert isinstance(old, nn.Linear)  # noqa: S101
        self.body = made
        self.head = nn.Linear(old.in_features, architecture.classes, device="meta").to_empty(
            device="cpu"
        )
        if len(old.weight) == architecture.classes:
            self.head.load_state_dict(old.state_dict())
        else:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        made.set_submodule(head, nn.Identity())
        for part in made.modules():
            if isinstance(part, _Dropout):
                part.p = 0.0

    def maps(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d 1 1"]:
        """The features as maps of one pixel."""
        return self.features(x)[:, :, None, None]

    def features(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the head sees."""
        features: Tensor = self.body(x)
        return features


def read_foreign(
    name: str, path: Path | None, shape: tuple[int, int, int], classes: int | None = None
) -> tuple[NamedArchitecture, dict[str, Tensor]]:
    """A network that is made elsewhere, and its tensors under the names that a `ForeignNetwork`
    has.

    Args: path: its state dict; None takes what its function gives it. shape: (c, h, w) of the
        images. classes: how many there must be, where that is known.
    Raises: RecipeError, ResourceError: see `make`. DataError: see `check_made` and `read_tensors`;
        other tensors than it has, or other classes; all differences are listed.
    """
    stored = None if path is None else read_tensors(path)
    known = NamedArchitecture(name=name, classes=classes or 2, shape=shape)
    with seeded():
        made, head = _create(known)
        rows = (
            len(stored[f"{head}.weight"])
            if stored and f"{head}.weight" in stored and stored[f"{head}.weight"].ndim
            else 0
        )
        if origin_of(known) == "timm" and rows >= 2:
            made, head = _create(known.model_copy(update={"classes": rows}))
    check_made(made, head, shape, name)
    wanted = {key: tensor.detach().clone() for key, tensor in made.state_dict().items()}
    given = wanted if stored is None else with_counters(stored, wanted)
    faults = misfits(given, wanted) + [
        f"{key}: not all finite"
        for key in sorted(wanted.keys() & given.keys())
        if not finite(given[key])
    ]
    found = len(wanted[f"{head}.weight"])
    if classes is not None and found != classes:
        faults.append(f"{head}.weight: {found} classes where the source has {classes}")
    if faults:
        where = name if path is None else str(path)
        raise DataError(
            f"{where} holds other tensors than {name} must have",
            faults=faults,
            hint="give the weights of this very network",
        )
    own = {
        f"head.{key.removeprefix(f'{head}.')}" if key.startswith(f"{head}.") else f"body.{key}": key
        for key in wanted
    }
    return known.model_copy(update={"classes": found}), {
        ours: given[key].to(wanted[key].dtype) for ours, key in own.items()
    }


@contextmanager
def seeded(generator: torch.Generator | None = None) -> Iterator[None]:
    """Torch's global random state for code that draws from nothing else: seeded from a generator
    (none: with 0), put back at the end.
    """
    seed = 0 if generator is None else int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def make(
    architecture: NamedArchitecture, generator: torch.Generator | None = None
) -> ForeignNetwork:
    """The network as it is made, on the CPU.

    Raises: RecipeError: timm has no such network. ResourceError: timm is not installed. DataError:
        the function was not given to this run.
    """
    with seeded(generator):
        return ForeignNetwork(architecture, *_create(architecture))


def _create(architecture: NamedArchitecture) -> tuple[nn.Module, str]:
    if origin_of(architecture) == "timm":
        return timm_networks.create(architecture.name, architecture.classes, architecture.shape)
    return functions.call(architecture.name)


def draw_again(part: nn.Module, generator: torch.Generator) -> None:
    """Fresh weights for a layer with weights of its own that `networks.build` has no rule for, by
    its own `reset_parameters`.
    """
    if _owns(part) and callable(reset := getattr(part, "reset_parameters", None)):
        with seeded(generator):
            reset()


def _owns(part: nn.Module) -> bool:
    return any(True for _ in part.parameters(recurse=False))


def check_made(made: nn.Module, head: str, shape: tuple[int, int, int], what: str) -> None:
    """Nothing, where a module takes images of (c, h, w), answers with its head's logits, and can
    be drawn anew and trained alike twice.

    Raises: DataError: it does not; all that can be told at once is listed.
    """
    faults = [*_of_weights(made, head), *_undrawable(made)]
    if faults:
        raise DataError(
            f"{what} cannot be protected",
            faults=faults,
            hint="change the network, or give it as one of the named ones",
        )
    images = torch.randn(2, *shape, generator=torch_generator(0, "foreign", "pictures"))
    try:
        with torch.no_grad(), seeded():
            answers = copy.deepcopy(made).eval()(images)
    except functions.BROKEN as error:
        raise DataError(
            f"{what} cannot take two images of shape {shape}: {functions.told(error)}",
            hint="bring the source to the network's size and channels with data.size and "
            "data.channels",
        ) from error
    try:
        with torch.no_grad(), seeded():
            faults = _behind_head(_wrapped(made, head, shape), images, answers)
            faults += _read_not_called(_wrapped(made, head, shape), images)
    except functions.BROKEN as error:
        faults = [functions.told(error)]
    if faults:
        raise DataError(
            f"{what} cannot be protected with {head} as its head",
            faults=faults,
            hint='name the last linear layer in the module, as in HEAD = "fc", with nothing '
            "behind it; call every layer; throw no dice",
        )


def _behind_head(
    network: ForeignNetwork, images: Float[Tensor, "n c h w"], answers: Any
) -> list[str]:
    """What shows that the layer that was taken off is not the last, or that two passes in train
    mode are not alike.
    """
    width, faults = network.head.in_features, []
    features = network.eval().features(images)
    whole = (
        isinstance(features, Tensor)
        and isinstance(answers, Tensor)
        and features.shape == (len(images), width)
    )
    if not whole or not torch.allclose(network(images), answers, atol=1e-5, rtol=1e-4):
        faults.append(f"the network's answers are not those of this layer on {width} features")
    if not torch.equal(*(_trained(network, images, seed) for seed in (1, 2))):
        faults.append(
            "two passes in train mode differ: no generator can be given, so a run could not be "
            "repeated"
        )
    return faults


class _Called(nn.Module):
    """A layer that can be called and not looked into, as one with an attacker's adapter on it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        result: Tensor = self.layer(x)
        return result


def _read_not_called(network: ForeignNetwork, images: Float[Tensor, "n c h w"]) -> list[str]:
    """What goes wrong where a convolution or linear layer is not called but its weights are read by
    the layer around it.
    """
    for parent in list(network.body.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                setattr(parent, name, _Called(layer))
    try:
        network.eval().features(images)
    except functions.BROKEN as error:
        return [
            f"a layer's weights are read where the layer must be called: {functions.told(error)}"
        ]
    return []


def _wrapped(made: nn.Module, head: str, shape: tuple[int, int, int]) -> ForeignNetwork:
    old = made.get_submodule(head)
    assert isinstance(old, nn.Linear)  # noqa: S101
    architecture = NamedArchitecture(name="foreign", classes=old.out_features, shape=shape)
    return ForeignNetwork(architecture, copy.deepcopy(made), head)


def _trained(
    network: ForeignNetwork, images: Float[Tensor, "n c h w"], seed: int
) -> Float[Tensor, "n d"]:
    """The features in train mode, with the global random state at this seed; the network is not
    changed.
    """
    torch.default_generator.manual_seed(seed)
    return copy.deepcopy(network).train().features(images)


def _of_weights(made: nn.Module, head: str) -> Iterator[str]:
    last = dict(made.named_modules()).get(head)
    if not head or not isinstance(last, nn.Linear):
        yield (
            f"{head or 'the network itself'}: {type(last).__name__}, where the head must be a "
            "linear layer of the network"
        )
    elif last.bias is None or last.out_features < 2:
        yield (
            f"{head}: {last.out_features} "
            f"class(es){'' if last.bias is not None else ' and no bias'}; a head has two or more "
            "and a bias"
        )
    parameters = [parameter for _, parameter in made.named_parameters(remove_duplicate=False)]
    if len(set(map(id, parameters))) < len(parameters):
        yield "one parameter is in two places"
    yield from (
        f"{name}: {tensor.dtype}, not float32"
        for name, tensor in made.named_parameters()
        if tensor.dtype != torch.float32
    )
    yield from (
        f"{name}: on {tensor.device}, not on the CPU"
        for name, tensor in made.named_parameters()
        if tensor.device.type != "cpu"
    )


def _undrawable(made: nn.Module) -> Iterator[str]:
    """Layers whose weights nobody knows how to draw; an empty network, which the audit starts over
    with, could not be made.
    """
    for name, part in made.named_modules():
        if (
            _owns(part)
            and not isinstance(part, _DRAWN)
            and not callable(getattr(part, "reset_parameters", None))
        ):
            yield (
                f"{name or 'the network'} ({type(part).__name__}) has weights of its own and no "
                "reset_parameters() to draw them anew"
            )
