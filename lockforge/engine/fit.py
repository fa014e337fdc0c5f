"""The one training loop of the project, for whole networks, heads and predictors alike.

Shapes: b examples a batch, k classes. Losses are means over examples, in nats; accuracies are in
    [0, 1].
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lockforge.engine._sharpness import sam_perturbation
from lockforge.engine._team import ALONE, Share, Team
from lockforge.engine.evaluate import hits, logits_of
from lockforge.engine.feed import Feed, TensorFeed
from lockforge.engine.resume import Progress, Stream, question_of, read_state, write_state
from lockforge.engine.schedule import learning_rate
from lockforge.errors import DataError, OutcomeError
from lockforge.recipe import FitRecipe
from lockforge.records import Epoch

__all__ = ["Feed", "Fitted", "RunContext", "TensorFeed", "fit"]

Loss = Callable[[Tensor, Tensor], Tensor]
_LINES = 10  # of history, and validations, in a run that is given in steps
_SECONDS_A_REPORT = 0.5


def _say_nothing(_done: float, _total: float, _note: str) -> None:
    pass


@dataclass(frozen=True)
class RunContext:
    """Where a run takes place; of what decides the outcome it holds only what the recipe says too,
    the size of the team.

    Args: device: `cpu` or `cuda`. folder: where the run is kept, to be resumed exactly; None:
        nowhere. report: told of progress as (done, total, note), in epochs or steps, whichever the
        recipe counts. save_every: least seconds between two writes. team: the processes that train
        together, each of which calls `fit` with the same arguments but for its own place in the
        team; the first writes and reports, all return the same.
    """

    device: str = "cpu"
    folder: Path | None = None
    report: Callable[[float, float, str], None] = _say_nothing
    save_every: float = 10.0
    team: Team = ALONE


@dataclass(frozen=True)
class Fitted:
    """A trained module in eval mode with the kept weights, its history, their accuracy in
    validation (NaN without data), and steps done.
    """

    module: nn.Module
    history: tuple[Epoch, ...]
    val_accuracy: float
    steps: int


_DEFAULT_CONTEXT = RunContext()


def fit(  # noqa: PLR0913
    module: nn.Module,
    train: Feed,
    recipe: FitRecipe,
    *,
    generator: torch.Generator,
    val: Feed | None = None,
    loss: Loss | None = None,
    sharpness: float = 0.0,
    mask: Mapping[str, Tensor] | None = None,
    context: RunContext = _DEFAULT_CONTEXT,
) -> Fitted:
    """Train a module in place.

    Only parameters that require gradients are trained; a batch norm whose own parameters are all
    frozen keeps its statistics too. SGD is Nesterov's, Adam's penalty is L2 (added to the
    gradient). History has a line an epoch, or ten for a run given in steps. `select: best` keeps
    the state with the highest validation accuracy of these lines, the later of equals; `last`, or
    no validation data, the last one. With `last` a run given in steps is validated once, at its
    end.

    Differs: the published schedule of NAS-Bench-201 (arXiv:2001.00326, table 1) puts the weight
    penalty on every parameter; here biases and the scales and shifts of batch norms go without (He
    et al. 2019, arXiv:1812.01187, section 3.1): a penalty on them does not bound the function, as
    the next layer's weights make up for it, and it pulls the features of small networks towards
    zero.

    Args: generator: shuffles and augments. loss: of (outputs, labels); None is cross-entropy with
        the recipe's label smoothing. sharpness: above 0, rho of adaptive sharpness-aware steps (see
        `engine._sharpness`): two gradients a step. mask: by the names of parameters, 0 where a
        weight is zero from the first step on and 1 elsewhere. With a folder in `context`, an
        interrupted run goes on where it was stored when it is started again from the same weights,
        recipe, mask and generator, and ends with the same bits; a stored run of another question is
        not used.
    Raises: OutcomeError: the loss or a weight is not finite. DataError: no examples.
        IntegrityError: the stored run is damaged.
    """
    for name, feed in (("training", train), ("validation", val)):
        if feed is not None and not len(feed):
            raise DataError(
                f"there are no {name} examples", hint="give more images, or another split"
            )
    if min(len(train), recipe.batch_size) < context.team.size:
        raise DataError(
            f"{context.team.size} processes cannot share batches of "
            f"{min(len(train), recipe.batch_size)} examples",
            hint="give more images, or fewer train.processes",
        )
    run = _Run(
        module,
        train,
        recipe,
        generator,
        val,
        loss or _cross_entropy(recipe),
        sharpness,
        mask or {},
        context,
    )
    run.go()
    return Fitted(
        module.eval(), tuple(run.progress.history), run.kept_accuracy(), run.progress.step
    )


def _cross_entropy(recipe: FitRecipe) -> Loss:
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=recipe.label_smoothing)

    return loss


def train_mode(module: nn.Module) -> None:
    """Train mode, but for batch norms whose own parameters are all frozen."""
    module.train()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if (
            isinstance(part, _BatchNorm)
            and own
            and not any(parameter.requires_grad for parameter in own)
        ):
            part.eval()


def autocast(device: str, recipe: FitRecipe) -> AbstractContextManager[object]:
    """bfloat16 on CUDA unless the recipe says float32; on the CPU always float32."""
    wanted = device.startswith("cuda") and recipe.precision == "auto"
    return torch.autocast("cuda", dtype=torch.bfloat16) if wanted else nullcontext()


def line_ends(recipe: FitRecipe, per_pass: int) -> tuple[int, ...]:
    """The steps at which a line of history is written; the last is the run's length."""
    if recipe.epochs:
        return tuple(range(per_pass, recipe.epochs * per_pass + 1, per_pass))
    return tuple(
        dict.fromkeys(
            math.ceil(int(recipe.steps or 0) * part / _LINES) for part in range(1, _LINES + 1)
        )
    )


def divergence(what: str, step: int, total: int, per_pass: int, recipe: FitRecipe) -> OutcomeError:
    """The error of a run that went astray at a step, counted from 0."""
    rate = learning_rate(step, total, recipe)
    return OutcomeError(
        f"training diverged: {what} in epoch {step // per_pass + 1}, step {step + 1} of {total}, "
        f"learning rate {rate:.4g}",
        hint="lower learning_rate, give warmup, or look at the data for constant or broken images",
    )


def _optimizer_of(module: nn.Module, recipe: FitRecipe) -> torch.optim.Optimizer:
    """Matrices and kernels with the weight penalty, vectors without. Fused: one call a step, on CPU
    and CUDA.
    """
    free = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in free if parameter.dim() > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [parameter for parameter in free if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate, fused=True)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov, fused=True
    )


@dataclass
class _Run:
    """One training run; `go` is the loop."""

    module: nn.Module
    train: Feed
    recipe: FitRecipe
    generator: torch.Generator
    val: Feed | None
    loss: Loss
    sharpness: float
    mask: Mapping[str, Tensor]
    context: RunContext
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        recipe, context = self.recipe, self.context
        self.team, self.cuda = context.team, context.device.startswith("cuda")
        question = (
            question_of(
                self.module, self.train, recipe, self.generator, (self.sharpness, self.mask)
            )
            if context.folder
            else ""
        )
        if self.cuda:
            # torch's stubs lack it
            self.module.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            self.module.to(context.device)
        named = dict(self.module.named_parameters())
        self.mask = {name: kept.to(context.device) for name, kept in self.mask.items()}
        self.gone = [(named[name], kept == 0) for name, kept in self.mask.items()]
        self.hold()
        self.question = question
        self.optimizer = _optimizer_of(self.module, recipe)
        self.stream = Stream(self.train, recipe, self.generator)
        self.progress = Progress()
        if context.folder:
            self.progress = read_state(
                context.folder, question, self.module, self.optimizer, self.stream
            )
        self.trained = self.team.joined(self.module)
        self.unit = (
            self.stream.per_pass if recipe.epochs else 1
        )  # steps in one unit of what the recipe counts
        self.total = line_ends(recipe, self.stream.per_pass)[-1]
        self.note = ""

    def go(self) -> None:
        """Train to the end of each line of history, validate, store; then keep the best state."""
        saved = time.perf_counter()
        self.tell()
        for end in line_ends(self.recipe, self.stream.per_pass):
            if end <= self.progress.step:
                continue
            losses, right, seen = self.steps(end)
            self.write_line(self.checked(losses, end), right, seen, end)
            self.progress.step = end
            if (
                self.context.folder
                and self.team.first
                and (time.perf_counter() - saved >= self.context.save_every or end == self.total)
            ):
                write_state(
                    self.context.folder,
                    self.question,
                    self.module,
                    self.optimizer,
                    self.stream,
                    self.progress,
                )
                saved = time.perf_counter()
            self.tell()
        if self.progress.best is not None:
            self.module.load_state_dict(self.progress.best)
        if not all(bool(parameter.isfinite().all()) for parameter in self.module.parameters()):
            raise self.diverged("a weight is not finite", self.total - 1)

    def steps(self, end: int) -> tuple[Tensor, int, int]:
        """Optimiser steps up to `end`; nothing is read back from the device before the last.

        Returns: the loss of each step, how many examples were seen and answered right while
        training, and how many were seen; of the whole team.
        """
        train_mode(self.module)
        device, begun, told = self.context.device, self.progress.step, time.perf_counter()
        losses: list[Tensor] = []
        right = torch.zeros((), dtype=torch.int64, device=device)
        seen = 0
        for step in range(begun, end):
            inputs, labels = self.stream.next()
            seen += len(labels)
            inputs, labels, weight = self.team.share(inputs, labels)
            inputs, labels = (
                inputs.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
            )
            if self.cuda and inputs.dim() == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(step, self.total, self.recipe)
            outputs, value = self.gradient(inputs, labels, weight)
            if self.sharpness:
                with sam_perturbation(self.module, self.sharpness, self.mask):
                    self.gradient(inputs, labels, weight)
            self.optimizer.step()
            self.hold()
            losses.append(value.detach())
            right += hits(outputs.detach(), labels).sum()
            if time.perf_counter() - told > _SECONDS_A_REPORT and step + 1 < end:
                told = time.perf_counter()
                self.context.report((step + 1) / self.unit, self.total / self.unit, self.note)
        # room for what comes between: validation, or a caller's own work
        self.optimizer.zero_grad()
        self.team.average_statistics(self.module)
        return self.team.mean(torch.stack(losses)), int(self.team.sum(right)), seen

    def gradient(self, inputs: Tensor, labels: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """The gradient of the team's batch, in the parameters; the outputs for this process's share
        of it, and their weighted loss.
        """
        self.optimizer.zero_grad()
        with autocast(self.context.device, self.recipe):
            outputs = self.trained(inputs)
            value = self.loss(outputs, labels)
            value = value if weight == 1 else value * weight
        value.backward()  # type: ignore[no-untyped-call]
        return outputs, value

    @torch.no_grad()
    def hold(self) -> None:
        """Set the masked weights to zero."""
        for parameter, gone in self.gone:
            parameter.masked_fill_(gone, 0.0)

    def checked(self, losses: Tensor, end: int) -> float:
        """The mean of the losses.

        Raises: OutcomeError: one is not finite; it says at which step.
        """
        values = losses.double().cpu()
        wrong = (~values.isfinite()).nonzero().flatten()
        if len(wrong):
            first = int(wrong[0])
            raise self.diverged(f"the loss is {float(values[first])}", end - len(losses) + first)
        return float(values.mean())

    def diverged(self, what: str, step: int) -> OutcomeError:
        """The error of this run at a step, counted from 0."""
        return divergence(what, step, self.total, self.stream.per_pass, self.recipe)

    def write_line(self, mean_loss: float, right: int, seen: int, end: int) -> None:
        """Validate if this line calls for it, note the line, remember the best state."""
        progress, choosing = self.progress, self.recipe.select == "best"
        val_accuracy = None
        if self.val is not None and (choosing or self.recipe.epochs or end == self.total):
            logits, labels = logits_of(
                self.module, Share(self.val, self.team), device=self.context.device
            )
            val_accuracy = int(self.team.sum(hits(logits, labels).sum())) / len(self.val)
            if choosing and val_accuracy >= progress.best_accuracy:
                progress.best_accuracy = val_accuracy
                progress.best = (
                    {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
                    if end < self.total
                    else None
                )
        line = Epoch(
            epoch=len(progress.history) + 1,
            loss=mean_loss,
            train_accuracy=right / seen,
            val_accuracy=val_accuracy,
            learning_rate=learning_rate(end - 1, self.total, self.recipe),
        )
        progress.history.append(line)
        self.note = f"loss {mean_loss:.3f}" + (
            "" if val_accuracy is None else f", val {val_accuracy:.3f}"
        )

    def tell(self) -> None:
        """Report progress."""
        self.context.report(self.progress.step / self.unit, self.total / self.unit, self.note)

    def kept_accuracy(self) -> float:
        """What the kept state reaches in validation; NaN without validation data."""
        if self.val is None:
            return math.nan
        if self.recipe.select == "best":
            return self.progress.best_accuracy
        return float(self.progress.history[-1].val_accuracy or 0.0)
