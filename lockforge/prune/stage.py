"""Non-transferable pruning: rounds of ADMM to a sparse network that strangers find nothing in, then
recovery of the source.

arXiv:2410.08015. Differs: the ADMM norm is squared (`admm.pull`); weights fall away by size under a
sparsity that rises (`projection: exact`), as the published soft threshold alone stops where the
data say; the head is trained too; strangers' images pass with both kinds of batch-norm
statistics; a recovery follows, and a guard on the source.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lockforge.data.batches import Pool, load_pool
from lockforge.engine.evaluate import accuracy, confusion, logits_of
from lockforge.engine.fit import Fitted, RunContext, fit
from lockforge.errors import DataError, IntegrityError, OutcomeError, RecipeError
from lockforge.files import write_arrays
from lockforge.models.classifier import Classifier
from lockforge.models.networks import flops, load, parameters, state
from lockforge.models.sparse import sizes
from lockforge.models.structured import choose_filters, remove_filters, share_for
from lockforge.prune._admm import dual_step, keep_largest, soft_threshold
from lockforge.prune._masks import (
    check_masks,
    kept_counts,
    layers_of,
    masks_of,
    prunable,
    sparsity_of,
)
from lockforge.prune._objective import Objective, new_stranger
from lockforge.prune.restyle import SETS, restyled, some_of
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe, PruneRecipe
from lockforge.records import (
    Checkpoint,
    ImageSet,
    PrunedModel,
    PruneRound,
    Pruning,
    Smaller,
    is_black_box,
)
from lockforge.runs import Work, stage

ROUND = "round.safetensors"
Tensors = dict[str, Tensor]


@stage(version=2)
def prune_model(
    model: Checkpoint,
    reference: Checkpoint,
    source: ImageSet,
    auxiliary: tuple[ImageSet, ...],
    recipe: PruneRecipe,
    *,
    work: Work,
) -> PrunedModel:
    """The model behind its weight lock.

    Without auxiliary sets, images made of the source stand in for the thief's task. The
    validation split of the source measures what the lock costs, against the reference; the test
    split is looked at once, at the end. Interrupted, it goes on after its last round.

    Raises: RecipeError: no method, or a layer would keep nothing. DataError: auxiliary images of
    another shape; a network without prunable layers; a black box. IntegrityError: what an
    interrupted run left is damaged. OutcomeError: a loss is not finite; or the source lost more
    than `max_source_drop`.
    """
    _check(model, source, auxiliary, recipe)
    lock = _Lock(model, source, auxiliary, recipe, work)
    network, rounds, fitted = lock.locked(recipe.sparsity)
    drop = reference.val_accuracy - fitted.val_accuracy
    if drop > recipe.max_source_drop:
        raise _refusal(lock, reference, fitted, recipe)
    logits, labels = logits_of(network, lock.test, device=work.device)
    tensors = state(network)
    checkpoint = Checkpoint(
        architecture=network.architecture,
        weights=work.files.put_tensors(tensors),
        trained_on=source.digest,
        made_by="prune_model/2",
        val_accuracy=fitted.val_accuracy,
        test_accuracy=accuracy(logits, labels),
        test_samples=len(lock.test),
        confusion=confusion(logits, labels, len(source.classes)),
        history=fitted.history,
    )
    dense, sparse = sizes(tensors)
    pruning = Pruning(
        method="magnitude" if recipe.method == "magnitude" else "ntp",
        fisher=recipe.method == "ntp" and recipe.fisher > 0,
        auxiliary=lock.stand_in,
        layers=layers_of(network),
        rounds=rounds,
        source_drop=drop,
        dense_bytes=dense,
        sparse_bytes=sparse,
        smaller=Smaller(
            parameters=(parameters(model.architecture), parameters(network.architecture)),
            flops=(flops(model.architecture), flops(network.architecture)),
        )
        if recipe.structured
        else None,
    )
    return PrunedModel(checkpoint=checkpoint, pruning=pruning)


def _check(
    model: Checkpoint, source: ImageSet, auxiliary: Sequence[ImageSet], recipe: PruneRecipe
) -> None:
    if recipe.method == "none":
        raise RecipeError(
            "prune.method is none: there is nothing to do",
            hint="set prune.method=ntp (or magnitude, to compare)",
        )
    if is_black_box(model.architecture):
        raise DataError("an ONNX file cannot be pruned", hint="give the weights: ARCHITECTURE=FILE")
    wrong = [
        f"auxiliary set {at + 1} has {images.shape}"
        for at, images in enumerate(auxiliary)
        if images.shape != source.shape
    ]
    if wrong:
        raise DataError(
            f"auxiliary images of another shape than the source's {source.shape}",
            faults=wrong,
            hint="sets are read in the source's shape together: `data.size` and `data.channels` "
            "do that",
        )


def _refusal(
    lock: "_Lock", reference: Checkpoint, fitted: Fitted, recipe: PruneRecipe
) -> OutcomeError:
    """The guard's words. Bisection names a sparsity that holds; without it the message says how to
    look for one.
    """
    least = reference.val_accuracy - recipe.max_source_drop
    low, high, holds = 0.0, recipe.sparsity, ""
    for _ in range(recipe.bisection):
        middle = (low + high) / 2
        found = lock.locked(middle)[2].val_accuracy
        if found >= least:
            low, holds = middle, f"; {middle:.3g} holds, with {found:.4f}"
        else:
            high = middle
    tried = (
        f"{recipe.bisection} lower ones were tried and none holds"
        if recipe.bisection
        else "--set prune.bisection=4 looks for one"
    )
    return OutcomeError(
        f"the source guard refuses: at sparsity {recipe.sparsity:g} validation accuracy is "
        f"{fitted.val_accuracy:.4f}, the reference's "
        f"{reference.val_accuracy:.4f}, and prune.max_source_drop allows "
        f"{recipe.max_source_drop:g}{holds}",
        hint=f"set a lower prune.sparsity ({holds.removeprefix('; ') or tried}), a longer "
        "prune.recovery, or a lower prune.alpha",
    )


@dataclass
class _Lock:
    """What every try of one question shares."""

    model: Checkpoint
    source: ImageSet
    auxiliary: Sequence[ImageSet]
    recipe: PruneRecipe
    work: Work

    def __post_init__(self) -> None:
        work = self.work
        self.train, self.val, self.test = (
            load_pool(self.source, split, work.files, device=work.device)
            for split in ("train", "val", "test")
        )
        self.stand_in: Literal["given", "generated", "none"] = "none"
        self.pools: list[Pool] = []
        if self.recipe.method == "ntp":
            self.stand_in = "given" if self.auxiliary else "generated"
            draw = torch_generator(work.seed, "prune", "restyle")
            base = self.train if self.auxiliary else some_of(self.train, draw)
            self.pools = [self._stranger(images) for images in self.auxiliary] or [
                restyled(base, draw, kinds=kinds) for kinds in SETS
            ]

    def _stranger(self, images: ImageSet) -> Pool:
        """The training split of an auxiliary set, normalised as the source is: that preprocessing
        comes with a release.
        """
        pool = load_pool(images, "train", self.work.files, device=self.work.device)
        return Pool(pool.images, pool.labels, self.train.mean, self.train.std, pool.classes)

    def locked(self, sparsity: float) -> tuple[Classifier, tuple[PruneRound, ...], Fitted]:
        """Rounds, then recovery under the last mask."""
        network = load(self.model.architecture, self.work.files.get_tensors(self.model.weights)).to(
            self.work.device
        )
        structured, share = self.recipe.structured, 0.0
        if structured:
            share = share_for(network, sparsity)
        else:
            kept_counts(prunable(network), sparsity, self.recipe.scope)
        copies = _Copies.of(
            {} if structured else prunable(network), with_dual=self.recipe.projection == "soft"
        )
        rounds = self._stored(network, copies, sparsity)
        for at in range(len(rounds), self.recipe.rounds):
            rounds.append(self._round(network, copies, at, sparsity))
            self._store(network, copies, rounds, sparsity)
        masks: Tensors = {}
        if structured:
            network = remove_filters(network, choose_filters(network, share)).to(self.work.device)
        else:
            masks = masks_of(copies.sparse, sparsity, self.recipe.scope)
        copies.forget()
        fitted, last = self._w_step(network, self.recipe.recovery, "recovery", masks, None)
        rounds.append(last.model_copy(update={"sparsity": sparsity_of(prunable(network))}))
        return network.eval(), tuple(rounds), fitted

    def _round(
        self, network: Classifier, copies: "_Copies", at: int, sparsity: float
    ) -> PruneRound:
        """A W, a Z and a dual step. Weights that were zero in Z stay dead. Where whole filters are
        to go, a W step and nothing else.
        """
        weights, recipe = prunable(network), self.recipe
        pulled = bool(at and recipe.method == "ntp" and not recipe.structured)
        alive = {name: tensor != 0 for name, tensor in copies.sparse.items()} if at else {}
        _, line = self._w_step(
            network, recipe.fit, f"round {at + 1}", alive, copies if pulled else None
        )
        if recipe.structured:
            self.work.log(round=at + 1, **line.model_dump(mode="json"))
            return line
        with torch.no_grad():
            length = _root([_squares(weight) for weight in weights.values()])
            wanted = sparsity * (
                1 - (1 - (at + 1) / recipe.rounds) ** 3
            )  # Zhu & Gupta 2017, arXiv:1710.01878, equation 1
            primal, dual = copies.step(
                {name: weight.detach() for name, weight in weights.items()},
                wanted,
                sparsity,
                recipe,
            )
        line = line.model_copy(
            update={
                "primal": primal / length,
                "dual": dual / length,
                "sparsity": sparsity_of(copies.sparse),
            }
        )
        self.work.log(round=at + 1, **line.model_dump(mode="json"))
        return line

    def _w_step(
        self,
        network: Classifier,
        recipe: FitRecipe,
        name: str,
        masks: Tensors,
        copies: "_Copies | None",
    ) -> tuple[Fitted, PruneRound]:
        work, draw = self.work, partial(torch_generator, self.work.seed, "prune", name)
        strangers = [
            new_stranger(pool, network, recipe.batch_size, draw("auxiliary", at))
            for at, pool in enumerate(self.pools)
        ]
        objective = Objective(network, self.recipe, strangers, draw("statistics"))
        if copies:
            objective.weights, objective.sparse, objective.dual = (
                prunable(network),
                copies.sparse,
                copies.dual,
            )
        context = RunContext(
            device=work.device,
            report=lambda done, total, note: work.report(done, total, f"{name}: {note}"),
        )
        try:
            with objective.watching():
                fitted = fit(
                    network,
                    self.train,
                    recipe,
                    generator=draw("batches"),
                    val=self.val,
                    loss=objective,
                    mask=masks,
                    context=context,
                )
        except OutcomeError as error:
            wrong = [
                term
                for term, value in objective.means().items()
                if not torch.tensor(value).isfinite()
            ]
            raise OutcomeError(
                f"pruning diverged in {name}: {error.message}",
                faults=[f"the term {term} is not finite" for term in wrong],
                hint="lower prune.fit.learning_rate, prune.alpha or prune.fisher; the rounds "
                "before are kept and found again",
            ) from error
        line = PruneRound(
            phase="recovery" if name == "recovery" else "rounds",
            **objective.means(),
            sparsity=0.0,
            val_accuracy=fitted.val_accuracy,
        )
        return fitted, line

    def _question(self, sparsity: float) -> str:
        return json.dumps([self.model.weights.sha256, self.recipe.digest, sparsity, self.work.seed])

    def _store(
        self, network: Classifier, copies: "_Copies", rounds: Sequence[PruneRound], sparsity: float
    ) -> None:
        parts = {"model": network.state_dict(), "sparse": copies.sparse, "dual": copies.dual}
        arrays = {
            f"{kind}.{name}": tensor.detach().cpu().numpy()
            for kind, held in parts.items()
            for name, tensor in held.items()
        }
        lines = "[" + ",".join(line.to_json() for line in rounds) + "]"
        write_arrays(
            self.work.folder / ROUND,
            arrays,
            {"question": self._question(sparsity), "rounds": lines},
        )

    def _stored(self, network: Classifier, copies: "_Copies", sparsity: float) -> list[PruneRound]:
        """Rounds of an interrupted run of the same question, with the network and the copies as
        they were after them.

        Raises: IntegrityError: the file is damaged, or its copies are of another network.
        """
        from safetensors import SafetensorError, safe_open

        path = self.work.folder / ROUND
        if not path.is_file():
            return []
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("question") != self._question(sparsity):
                    return []
                # it is no mapping
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            rounds = [PruneRound.model_validate(line) for line in json.loads(metadata["rounds"])]
            network.load_state_dict(
                {
                    name.removeprefix("model."): one
                    for name, one in tensors.items()
                    if name.startswith("model.")
                }
            )
        except (SafetensorError, ValueError, LookupError, RuntimeError) as error:
            raise IntegrityError(
                f"{path} is damaged: {error}", hint="delete that file: the rounds are done again"
            ) from error
        for kind, held in (("sparse", copies.sparse), ("dual", copies.dual)):
            stored = {
                name.removeprefix(f"{kind}."): one
                for name, one in tensors.items()
                if name.startswith(f"{kind}.")
            }
            if held:
                check_masks(stored, network)
            held.update({name: one.to(self.work.device) for name, one in stored.items()})
        return rounds


@dataclass
class _Copies:
    """Z and U of every prunable weight. The exact projection keeps entries of W + U as they are, so
    that U stays zero: it has none.
    """

    sparse: Tensors
    dual: Tensors

    @classmethod
    def of(cls, weights: "dict[str, torch.nn.Parameter]", *, with_dual: bool) -> "_Copies":
        """Z = W, U = 0."""
        return cls(
            {name: weight.detach().clone() for name, weight in weights.items()},
            {
                name: torch.zeros_like(weight, requires_grad=False)
                for name, weight in weights.items()
                if with_dual
            },
        )

    def forget(self) -> None:
        """Z and U are not needed any more."""
        self.sparse, self.dual = {}, {}

    def step(
        self, weights: Tensors, wanted: float, last: float, recipe: PruneRecipe
    ) -> tuple[float, float]:
        """The Z and the dual step, a tensor at a time; |W - Z| and |Z - Z_before|.

        A soft threshold never goes beyond the last sparsity; what it has left over falls to the
        exact projection at the end.
        """
        soft = recipe.projection == "soft"
        sums = {name: weights[name] + dual for name, dual in self.dual.items()} or weights
        kept = kept_counts(sums, last if soft else wanted, recipe.scope)
        apart, moved = [], []
        for name, total in sums.items():
            made = (
                soft_threshold(total, recipe.shrink / recipe.rho)
                if soft
                else keep_largest(total, kept[name])
            )
            if soft and int((made != 0).sum()) < kept[name]:
                made = keep_largest(total, kept[name])
            if name in self.dual and recipe.method == "ntp":
                self.dual[name] = dual_step(self.dual[name], weights[name], made) * (made != 0)
            apart.append(_squares(weights[name] - made))
            moved.append(_squares(made - self.sparse[name]))
            self.sparse[name] = made
        return _root(apart), _root(moved)


def _squares(tensor: Tensor) -> Tensor:
    return tensor.detach().square().sum()


def _root(squares: Sequence[Tensor]) -> float:
    return float(torch.stack(list(squares)).sum().sqrt())
