"""What makes a stored pruning impossible: counts that cannot be, networks that were not there,
zeros that the weights do not have.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lockforge.evidence.curves import ABLATION
from lockforge.records import Pruning, Report

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_NOT_BELOW_0 = ("source_loss", "between", "within", "penalty", "primal", "dual")


def pruning_faults(report: Report) -> tuple[str, ...]:
    """Where the records of pruning fit neither themselves nor the networks of the report; one line
    each.
    """
    return (
        *(fault for start, pruning in report.pruned.items() for fault in _of_one(start, pruning)),
        *_of_subjects(report),
    )


def _of_subjects(report: Report) -> Iterator[str]:
    """Prunings of networks that are not there or have no lock, and ablations of which nobody knows
    how they were pruned.
    """
    ablations = {f"{ABLATION}{one.name}" for one in report.subjects.ablations}
    strangers = sorted(report.pruned.keys() - ablations - {"release"})
    yield from (
        f"pruned.{start}: the report has no such network, or it is one without a weight lock"
        for start in strangers
    )
    yield from (
        f"{start} was audited, but it is not told how it was pruned"
        for start in sorted(ablations - report.pruned.keys())
    )
    release, twin = (
        (one.architecture, one.weights) for one in (report.subjects.release, report.subjects.twin)
    )
    if "release" in report.pruned and report.pruned["release"].sparsity > 0 and release == twin:
        yield (
            "pruned.release: the release is said to be pruned, and to be its own twin, which was "
            "not"
        )


def _of_one(start: str, pruning: Pruning) -> Iterator[str]:
    """More zeros than weights, a layer told twice, losses, traces and distances below 0."""
    names = Counter(layer.name for layer in pruning.layers)
    yield from (
        f"pruned.{start}: the layer {name} is told {count} times"
        for name, count in names.items()
        if count > 1
    )
    yield from (
        f"pruned.{start}: {layer.name} has {layer.zeros} zeros among {layer.weights} weights"
        for layer in pruning.layers
        if layer.zeros > layer.weights
    )
    for at, one in enumerate(pruning.rounds):
        for name in _NOT_BELOW_0:
            value = getattr(one, name)
            if value is not None and value < 0:
                yield f"pruned.{start}.rounds.{at}.{name}: {value:g} is below 0"


def zero_faults(pruning: Pruning, tensors: "Mapping[str, Array]") -> tuple[str, ...]:
    """Layers that are not in the weights, are of another size there, or have other zeros.

    Args: tensors: by name, of any shape.
    """
    return tuple(_zero_faults(pruning, tensors))


def _zero_faults(pruning: Pruning, tensors: "Mapping[str, Array]") -> Iterator[str]:
    import numpy as np

    for layer in pruning.layers:
        if layer.name not in tensors:
            yield f"there is no tensor {layer.name}"
            continue
        tensor = tensors[layer.name]
        zeros = tensor.size - int(np.count_nonzero(tensor))
        if (tensor.size, zeros) != (layer.weights, layer.zeros):
            yield (
                f"{layer.name} has {zeros} zeros among {tensor.size} weights, the report says "
                f"{layer.zeros} among {layer.weights}"
            )
