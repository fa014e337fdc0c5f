"""What a network says when it is only asked, and images whose labels stay closed: the means of
attackers who may not look inside.

Shapes: n images, b images a batch, k classes or outputs.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lockforge.audit.protocol import Budget, InitialModel
from lockforge.data.batches import Pool
from lockforge.engine.fit import Loss
from lockforge.models.classifier import Classifier


class Body(nn.Module):
    """A network without its head."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the head would see."""
        return self.network.features(x)


class Oracle(nn.Module):
    """A network that can be asked and not looked into: its outputs for images, always in eval mode,
    and no gradient.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> "Oracle":
        """Stays in eval mode: who asks cannot change the statistics."""
        super().train(mode)
        self.network.eval()
        return self

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Its outputs."""
        outputs: Tensor = self.network(x)
        return outputs


def with_head(network: Classifier, head: Mapping[str, Tensor]) -> Classifier:
    """A copy of the network that ends in this head, of as many classes as it may have."""
    whole = copy.deepcopy(network)
    classes, width = head["weight"].shape
    whole.head = nn.Linear(width, classes, device=head["weight"].device)
    whole.head.load_state_dict(dict(head))
    return whole


def oracle_of(given: InitialModel) -> tuple[Oracle, int]:
    """The network as a service: the logits of the head that came with it, or its features where
    none came; and how many outputs.
    """
    if given.source_head is None:
        return Oracle(Body(copy.deepcopy(given.network))), given.network.head.in_features
    whole = with_head(given.network, given.source_head)
    return Oracle(whole), whole.head.out_features


def fresh_head(inputs: int, classes: int, generator: torch.Generator) -> nn.Linear:
    """A linear head with weights uniform in +-1/sqrt(inputs), as `models.networks.build` draws
    them.
    """
    head = nn.Linear(inputs, classes, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in head.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return head


def numbered(pool: Pool) -> Pool:
    """The same images; each one's label is its row. The true labels are not read."""
    return replace(pool, labels=torch.arange(len(pool.images), device=pool.mean.device))


def soft_cross_entropy(targets: Float[Tensor, "n k"]) -> Loss:
    """The loss of numbered images: - mean over the batch of sum_k t_k log p_k, t the row's
    target.
    """

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        return -(targets[rows] * functional.log_softmax(outputs, 1)).sum(1).mean()

    return loss


def entropy_of_mean(logits: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Sum of m_k log m_k, m the mean of the batch's probabilities: least, - ln k, when all classes
    are said equally often.
    """
    mean = functional.softmax(logits, 1).mean(0)
    return (mean * (mean + 1e-8).log()).sum()


def phases(budget: Budget, share: float) -> tuple[Budget, Budget]:
    """A share of the steps, and the others, one at least; together the budget's.

    >>> (
    ...     [part.steps for part in phases(Budget(5, 64), 0.5)],
    ...     [part.steps for part in phases(Budget(1, 64), 0.5)],
    ... )
    ([3, 2], [0, 1])
    """
    second = max(1, round(budget.steps * (1 - share)))
    return replace(budget, steps=budget.steps - second), replace(budget, steps=second)
