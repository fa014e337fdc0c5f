"""Structured pruning: whole filters leave a network by name, which becomes smaller itself; nothing
has to know of masks.

`silence_filters` says what the smaller network computes: filters, biases, and scale and shift of
their norms are zero, so that they give exactly nothing. `remove_filters` then takes them out, which
changes no value but for rounding, in training mode neither. A filter without weights is not
nothing: its bias and norm make a constant of it. Where that constant reaches all who read it whole
it is added to their biases first, so that nothing is lost in eval mode; before a padded convolution
it cannot be, because there is none of it in the padding.

Shapes: c channels of a group (`filters.Group`), d outputs of a layer.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from lockforge.errors import RecipeError
from lockforge.models._filters import Group, Reader, groups_of, keep
from lockforge.models._named import NamedNetwork
from lockforge.models.classifier import Classifier
from lockforge.records import NamedArchitecture

Chosen = Mapping[str, tuple[int, ...]]


def choose_filters(network: Classifier, share: float) -> dict[str, tuple[int, ...]]:
    """The weakest filters of every group, by the Euclidean norm of all weights that make a channel;
    the first of equals.

    Differs: Li et al. 2017 (arXiv:1608.08710, section 3.1) sum absolute weights; here a widened
        channel has two filters, and both count.

    Args: share: of each group's filters, rounded to whole ones.
    Returns: the indices of the filters that should go, under the name of the layer that makes them.
    Raises: RecipeError: a share that no filter or a whole layer would follow, or a network without
        such filters; all layers are listed.
    """
    if not 0 < share < 1:
        raise RecipeError(
            f"a share of {share} of all filters cannot go", hint="give a share between 0 and 1"
        )
    groups = _groups(network)
    counts = {name: _count(share, group) for name, group in groups.items()}
    vanishing = [
        f"{name}: {group.channels} filters"
        for name, group in groups.items()
        if counts[name] == group.channels
    ]
    if vanishing:
        raise RecipeError(
            f"without {share:.3g} of their filters, layers would vanish",
            faults=vanishing,
            hint="give a smaller share",
        )
    if not any(counts.values()):
        widest = max(group.channels for group in groups.values())
        raise RecipeError(
            f"a share of {share:.3g} is no filter: no layer has more than {widest}",
            hint="give a larger share",
        )
    return {
        name: tuple(sorted(_norms(groups[name]).argsort(stable=True)[:count].tolist()))
        for name, count in counts.items()
        if count
    }


def share_for(network: Classifier, sparsity: float) -> float:
    """The share of every layer's filters that must go so that a given share of all prunable weights
    goes with them.

    A layer loses weights with its own filters and with those it reads, so in a chain of layers s of
    the filters are 1 - (1 - s)^2 of the weights; layers that only read or make channels summed from
    block to block lose s or nothing.

    Args: sparsity: share of the weights of all convolutions and linear layers, in (0, 1).
    Returns: the smallest share in thousandths with which `choose_filters` takes that much, one
        filter of each layer staying.
    Raises: RecipeError: not even the largest share takes that much; the message says how much it
        takes.
    """
    groups = tuple(_groups(network).values())
    if not 0 < sparsity < 1:
        raise RecipeError(
            f"a sparsity of {sparsity} is none", hint="give a sparsity between 0 and 1"
        )
    reached = 0.0
    for share in (thousandth / 1000 for thousandth in range(1, 1000)):
        if any(_count(share, group) == group.channels for group in groups):
            break
        reached = _weights_gone(network, groups, share)
        if reached >= sparsity:
            return share
    raise RecipeError(
        f"whole filters cannot take {sparsity:.3g} of the weights of {network.architecture}",
        hint=f"give a sparsity of at most {math.floor(1000 * reached) / 1000}, or set "
        "prune.structured: false",
    )


def dead_filters(network: Classifier) -> dict[str, tuple[int, ...]]:
    """The filters without weights that can go and leave the function as it is, in eval mode; one
    stays in a layer that has no other.

    Raises: RecipeError: a network without filters that can go.
    """
    found = {}
    for name, group in _groups(network).items():
        known, value = _constants(group)
        free = known if _passes_constants(group) else known & (value == 0)
        places = free.nonzero().flatten().tolist()
        if places:
            found[name] = tuple(places if len(places) < group.channels else places[1:])
    return {name: places for name, places in found.items() if places}


def silence_filters(network: Classifier, chosen: Chosen) -> NamedNetwork:
    """A copy in which these filters give nothing; constants among them are kept in the biases of
    their readers, where that is exact.

    Raises: RecipeError: no such filters, or all of a layer's; all are listed.
    """
    silent = _copy_for(network, chosen)
    groups = groups_of(silent, silent.head)
    with torch.no_grad():
        for name, places in chosen.items():
            _silence(groups[name], torch.tensor(sorted(set(places)), dtype=torch.long))
    return silent


def remove_filters(network: Classifier, chosen: Chosen) -> NamedNetwork:
    """A smaller copy without these filters: the function of `silence_filters`. Its `architecture`
    says how wide its layers are.

    Raises: RecipeError: no such filters, or all of a layer's; all are listed.
    """
    small = silence_filters(network, chosen)
    groups = groups_of(small, small.head)
    widths = dict(small.architecture.widths)
    for name, places in chosen.items():
        if not places:
            continue
        group = groups[name]
        keep(
            group, torch.tensor(sorted(set(range(group.channels)) - set(places)), dtype=torch.long)
        )
        widths[name] = group.channels
    kept = small.architecture
    small.architecture = NamedArchitecture(
        name=kept.name, classes=kept.classes, shape=kept.shape, widths=tuple(sorted(widths.items()))
    )
    return small


def _groups(network: Classifier) -> dict[str, Group]:
    if not isinstance(network, NamedNetwork):
        raise RecipeError(
            "whole filters can be taken out of networks by name only, not of "
            f"{network.architecture}",
            hint="set prune.structured: false; a cell network becomes smaller with fewer "
            "network.stem_channels",
        )
    return groups_of(network, network.head)


def _copy_for(network: Classifier, chosen: Chosen) -> NamedNetwork:
    groups = _groups(network)
    faults = [f"{name}: no filters that can be taken out" for name in chosen if name not in groups]
    for name, places in chosen.items():
        channels = groups[name].channels if name in groups else 0
        if channels and any(not 0 <= place < channels for place in places):
            faults.append(
                f"{name}: filters {min(places)} to {max(places)} where there are 0 to "
                f"{channels - 1}"
            )
        elif channels and len(set(places)) == channels:
            faults.append(f"{name}: all {channels} filters, and one must stay")
    if faults:
        raise RecipeError(
            f"these filters cannot be taken out of {network.architecture}",
            faults=faults[:20],
            hint="use choose_filters",
        )
    copied = copy.deepcopy(network)
    assert isinstance(copied, NamedNetwork)  # noqa: S101
    return copied


def _weights_gone(network: nn.Module, groups: Sequence[Group], share: float) -> float:
    """The share of all prunable weights that goes with a share of every layer's filters."""
    weights: dict[nn.Module, float] = {
        layer: layer.weight.numel()
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    before = sum(weights.values())
    for group in groups:
        touched = [
            *(step.layer for step in group.steps),
            *(reader.layer for reader in group.readers),
            group.gate,
        ]
        for layer in touched:
            if layer is not None:
                weights[layer] *= 1 - _count(share, group) / group.channels
    return 1 - sum(weights.values()) / before


def _count(share: float, group: Group) -> int:
    return int(share * group.channels + 0.5)


def _norms(group: Group) -> Float[Tensor, " c"]:
    squares = [
        step.layer.weight.detach().double().flatten(1).square().sum(1).cpu() for step in group.steps
    ]
    return torch.stack(squares).sum(0).sqrt()


def _constants(group: Group) -> tuple[Bool[Tensor, " c"], Float[Tensor, " c"]]:
    """Which channels are one value for every image in eval mode, before their factors, and that
    value (0 elsewhere).
    """
    first = group.steps[0].layer.weight
    known = torch.zeros(group.channels, dtype=torch.bool, device=first.device)
    value = torch.zeros(group.channels, dtype=first.dtype, device=first.device)
    with torch.no_grad():
        for layer, norm, act in group.steps:
            known = layer.weight.flatten(1).eq(0).all(1) | (known & (value == 0))
            value = torch.zeros_like(value) if layer.bias is None else layer.bias
            if norm is not None:
                value = functional.batch_norm(
                    value[None],
                    norm.running_mean,
                    norm.running_var,
                    norm.weight,
                    norm.bias,
                    eps=norm.eps,
                )[0]
            value = torch.where(known, act(value), 0)
    return known, value


def _passes_constants(group: Group) -> bool:
    """Whether a constant reaches every reader whole: no factor that the image decides, no
    padding, and a place to keep it in.
    """
    return group.gate is None and all(
        _unpadded(reader) and (reader.layer.bias is not None or reader.norm)
        for reader in group.readers
    )


def _unpadded(reader: Reader) -> bool:
    return isinstance(reader.layer, nn.Linear) or reader.layer.kernel_size == (1, 1)


def _silence(group: Group, places: Tensor) -> None:
    _, value = _constants(group)
    if _passes_constants(group):
        for reader in group.readers:
            _add_constant(reader, places, value)
    for layer, norm, _ in group.steps:
        for tensor in (
            layer.weight,
            layer.bias,
            *((norm.weight, norm.bias) if norm is not None else ()),
        ):
            if tensor is not None:
                tensor[places] = 0


def _add_constant(reader: Reader, places: Tensor, value: Float[Tensor, " c"]) -> None:
    """Give a reader what constant channels give it: in its bias, or as a norm's smaller mean."""
    weight = reader.layer.weight
    added = weight.reshape(len(weight), len(value), -1).sum(2)[:, places] @ value[places]
    if reader.layer.bias is not None:
        reader.layer.bias += added
    elif reader.norm is not None and reader.norm.running_mean is not None:
        reader.norm.running_mean -= added
