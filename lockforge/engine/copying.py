"""Copies of networks, as many as an audit takes: one for every setting of every attacker at every point.

Most of the time of `copy.deepcopy` goes into a network's empty tables (hooks, parts that a layer does not have; a dozen a layer) and into
finding out how a tensor is copied. Both are told to it here beforehand; everything else it does itself.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


@torch.no_grad()
def copied(module: Net) -> Net:
    """The same as `copy.deepcopy`, in a third of the time for a network of some seventy parts: what is shared within it stays so."""
    known: dict[int, Any] = {}
    for part in module.modules():
        for table in vars(part).values():
            if isinstance(table, dict | set) and not table:
                known[id(table)] = type(table)()
        for weight in part._parameters.values():
            if type(weight) is nn.Parameter and id(weight) not in known:
                known[id(weight)] = nn.Parameter(weight.detach().clone(), weight.requires_grad)
        for statistic in part._buffers.values():
            if type(statistic) is torch.Tensor and id(statistic) not in known:
                known[id(statistic)] = statistic.clone()
    return copy.deepcopy(module, known)
