"""The whole objective of a W step, as a loss of the training loop: beside each batch of the source
it draws one of every auxiliary set.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lockforge.data.batches import Batch, Pool
from lockforge.models.classifier import Classifier
from lockforge.prune._admm import pull
from lockforge.prune._loss import ClassMeans, bounded_ce, fisher_ratio, squared_mmd, unit_features
from lockforge.recipe import PruneRecipe

TERMS = ("source_loss", "auxiliary_loss", "between", "within", "penalty")


@dataclass
class AuxiliaryTask:
    """One auxiliary set: endless batches of it, and what its features looked like so far.

    A set with as many classes as the source is read by the network's own head; any other by one of
    its own, drawn once, never trained.
    """

    pool: Pool
    batch_size: int
    generator: torch.Generator
    head: nn.Linear | None
    own: ClassMeans = field(init=False)
    sources: ClassMeans = field(init=False)

    def __post_init__(self) -> None:
        self.own, self.sources = ClassMeans(self.pool.classes), ClassMeans(self.pool.classes)
        self._batches: Iterator[Batch] = iter(())

    def next(self) -> Batch:
        """A batch; a new shuffled pass when one is used up."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = self.pool.batches(self.batch_size, self.generator)
            batch = next(self._batches)
        return batch


def new_stranger(
    pool: Pool, network: Classifier, batch_size: int, generator: torch.Generator
) -> AuxiliaryTask:
    """An auxiliary set for this network; its head, where it needs one, and its batches come from
    `generator`.
    """
    head = None
    if pool.classes != network.head.out_features:
        head = nn.Linear(network.head.in_features, pool.classes)
        bound = network.head.in_features**-0.5
        for parameter in head.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        head.requires_grad_(requires_grad=False).to(pool.labels.device)
    return AuxiliaryTask(pool, min(batch_size, len(pool)), generator, head)


@contextlib.contextmanager
def as_strangers_see(network: Classifier, *, own: bool) -> Iterator[None]:
    """Pass images with the batch norms' statistics of these images (`own`) or of the source;
    the kept statistics do not change.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [
        (module.training, module.momentum, _copied(module.num_batches_tracked)) for module in norms
    ]
    for module in norms:
        module.train(own and module.training)
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, (training, momentum, tracked) in zip(norms, before, strict=True):
            module.train(training)
            module.momentum = momentum
            module.num_batches_tracked = tracked


def _of(values: Float[Tensor, " k"], one: Int64[Tensor, " 1"] | None) -> Float[Tensor, ""]:
    """One of the values, or their mean."""
    return values.mean() if one is None else values.index_select(0, one).squeeze(0)


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


@dataclass
class Objective:
    """L of `prune._loss`, with `_admm.pull` towards `sparse` where there is one.

    Half of the steps, drawn from `generator`, pass the auxiliary images with batch-norm
    statistics of their own, the others with the source's: a thief may estimate them again or not,
    and the lock has to hold both ways.
    """

    network: Classifier
    recipe: PruneRecipe
    strangers: Sequence[AuxiliaryTask]
    generator: torch.Generator
    weights: dict[str, nn.Parameter] = field(default_factory=dict)
    sparse: dict[str, Tensor] = field(default_factory=dict)
    dual: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def __call__(self, outputs: Float[Tensor, "n k"], labels: Int64[Tensor, " n"]) -> Tensor:
        """The objective of one step; the terms are added up in `sums`."""
        self.steps += 1
        total = self._noted("source_loss", functional.cross_entropy(outputs, labels))
        if self.strangers:
            total = total + self._away()
        if self.sparse:
            pulls = [
                pull(self.weights[name], self.sparse[name], self.dual.get(name), self.recipe.rho)
                for name in self.sparse
            ]
            total = total + self._noted("penalty", torch.stack(pulls).sum())
        return total

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps so far; NaN or infinite where one was."""
        return {name: float(value) / max(1, self.steps) for name, value in self.sums.items()}

    def _away(self) -> Float[Tensor, ""]:
        own = bool(torch.rand((), generator=self.generator) < 0.5)
        found = [self._one_away(stranger, own=own) for stranger in self.strangers]
        values = torch.stack([value for value, _ in found])
        worst = (
            values.argmax().view(1) if self.recipe.over == "worst" else None
        )  # stays on the device
        for name in TERMS[1:4]:
            self._noted(name, _of(torch.stack([terms[name] for _, terms in found]), worst))
        return _of(values, worst)

    def _one_away(
        self, stranger: AuxiliaryTask, *, own: bool
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        images, labels = stranger.next()
        with as_strangers_see(self.network, own=own):
            features = self.network.features(images)
        with torch.autocast(
            features.device.type, enabled=False
        ):  # means and distances of features would drown in bfloat16's rounding
            return self._terms(
                stranger,
                features.float() if features.dtype == torch.bfloat16 else features,
                labels,
                own=own,
            )

    def _terms(
        self,
        stranger: AuxiliaryTask,
        features: Float[Tensor, "n d"],
        labels: Int64[Tensor, " n"],
        *,
        own: bool,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        recipe = self.recipe
        head = stranger.head or self.network.head
        logits = functional.linear(
            features, head.weight, head.bias
        )  # not called: what is called is the source's, see `watching`
        driven = bounded_ce(logits, labels, recipe.bound)
        between, within = (stranger.own if own else stranger.sources).scatter(features, labels)
        terms = {
            "auxiliary_loss": driven.detach(),
            "between": between.detach(),
            "within": within.detach(),
        }
        if recipe.away == "mmd":
            driven = (driven * self._distance(features)).clamp_max(recipe.bound)
        return recipe.fisher * fisher_ratio(between, within) - recipe.alpha * driven, terms

    def _distance(self, features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        return squared_mmd(
            unit_features(self._of_source.to(features.dtype)), unit_features(features)
        )

    def _noted(self, name: str, value: Tensor) -> Tensor:
        self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.detach()
        return value

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Where distances of features are asked for, keep those of the source that reach the head;
        else do nothing.
        """
        if self.recipe.away != "mmd":
            yield
            return

        def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if torch.is_grad_enabled():
                self._of_source = inputs[0]

        hook = self.network.head.register_forward_pre_hook(keep)
        try:
            yield
        finally:
            hook.remove()
