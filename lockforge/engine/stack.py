"""Many small networks trained at once: the same outcomes as `fit` one by one, to rounding, for less
time.

The operations of a small network take longer to begin than to carry out. Members of one structure
are folded into one network (`engine.fold`), so that a step begins each operation once for all of
them; batches are still drawn member by member, by each member's own generator, in the order in
which `fit` draws them.

What it gains on a CPU falls with the work a step holds: a grouped convolution of K small ones is
begun once, yet computes no faster than they do, and over half of a step is convolution. Measured on
one thread of a busy machine, stem of 8 channels (`tests/benchmarks/stack.py`): 16 members at 8 x 8
pixels 3.4 times with 5 examples a step and 2.9 times with 32; 4 members with 32, 1.2 times; at 28 x
28 with 10, 1.3. Networks whose largest activation fills a core's cache by itself gain nothing and
are left to `fit`.

Shapes: K members, b examples a batch, k classes, P numbers in the trained parameters of one member.
    Losses in nats, accuracies in [0, 1].
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil, isfinite, nan
from statistics import fmean

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from lockforge.engine._memory import SHARE, Need, counting, free_bytes
from lockforge.engine.evaluate import accuracy, logits_of
from lockforge.engine.feed import Feed, TensorFeed
from lockforge.engine.fit import (
    Fitted,
    RunContext,
    autocast,
    divergence,
    fit,
    line_ends,
    train_mode,
)
from lockforge.engine.fold import Apart, UnfoldableError, fold, structure_of, unfold, why_not
from lockforge.engine.resume import Stream
from lockforge.engine.schedule import learning_rate
from lockforge.errors import DataError, OutcomeError
from lockforge.recipe import FitRecipe
from lockforge.records import Epoch

MOST_CPU = (
    2**18
)  # numbers in the largest activation: 1 MB, about a core's cache; beyond it stacks gain nothing
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # of torch.optim.Adam
_SECONDS_A_REPORT = 0.5
_DEFAULT_CONTEXT = RunContext()


@dataclass(frozen=True)
class Member:
    """One training run of a stack: what `fit` takes, with cross-entropy as the loss.

    Args: mask: by the name of a parameter, in its shape: where it is 0 the weight is set to zero
        and stays there.
    """

    module: nn.Module
    train: Feed
    val: Feed | None
    recipe: FitRecipe
    generator: torch.Generator
    mask: Mapping[str, Tensor] | None = None


def fit_stack(
    members: Sequence[Member], *, context: RunContext = _DEFAULT_CONTEXT
) -> tuple[Fitted | OutcomeError, ...]:
    """Train every member in place, in the groups of `groups_of`; a group of one is trained by
    `fit`.

    Each outcome is what `fit` would give or raise for that member alone (history, accuracy,
    weights, draws), but for rounding: where a member diverges its error takes its place, the others
    go on. The module of a member that diverged must not be used.

    Args: context: `report` is told of the steps of a group; it may end the whole stack by raising.
        A stack is not kept in a folder.
    Raises: DataError: a member has no examples. ValueError: a folder in `context`; members that
        share a module or a generator; a mask that fits no parameter.
    """
    _check(members, context)
    outcomes: dict[int, Fitted | OutcomeError] = {}
    for group in groups_of(members, device=context.device):
        together = [members[index] for index in group]
        found = _Stack(together, context).go() if len(group) > 1 else [_alone(together[0], context)]
        outcomes |= dict(zip(group, found, strict=True))
    return tuple(outcomes[index] for index in range(len(members)))


def groups_of(
    members: Sequence[Member], *, device: str = "cpu", memory: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Which members go together, by index: of one structure, input shape, examples a step,
    optimiser, smoothing and precision.

    Everything else may differ. Two of each kind are run for a look: where the folded network does
    not answer as they do by themselves, or does what `engine.fold` does not know, its members stay
    alone. Groups are of nearly equal size. On the CPU they hold as many members as keep the largest
    activation within `MOST_CPU` numbers; on a GPU as many as fit into its free memory by
    `engine._memory`.

    Args: memory: free bytes of a GPU; None asks it.
    """
    kinds: dict[object, list[int]] = {}
    for index, member in enumerate(members):
        recipe = member.recipe
        inputs, _ = next(iter(member.train.batches(1, None)))
        size = min(len(member.train), recipe.batch_size)
        kind = (
            tuple(inputs.shape),
            inputs.dtype,
            size,
            recipe.optimizer,
            recipe.label_smoothing,
            recipe.precision,
        )
        kinds.setdefault((structure_of(member.module), *kind), []).append(index)
    groups: list[tuple[int, ...]] = []
    for found in kinds.values():
        most = 1 if len(found) == 1 else _most(members[found[0]], members[found[1]], device, memory)
        size = ceil(len(found) / ceil(len(found) / most))
        groups += [tuple(found[start : start + size]) for start in range(0, len(found), size)]
    return tuple(groups)


def _most(one: Member, other: Member, device: str, memory: int | None) -> int:
    """How many members like these two a stack may hold; 1 if they cannot be folded."""
    if why_not(one.module) or why_not(other.module):
        return 1
    size = min(len(one.train), one.recipe.batch_size)
    try:
        need, largest = _look([one, other])
    except UnfoldableError:
        return 1
    if not device.startswith("cuda"):
        return max(1, MOST_CPU // (largest * size))
    more = any(member.mask for member in (one, other)) + any(
        member.recipe.select == "best" for member in (one, other)
    )
    free = free_bytes(device) if memory is None else memory
    return max(1, int(SHARE * free) // need.bytes(size, more=more))


@torch.no_grad()
def _look(pair: Sequence[Member]) -> tuple[Need, int]:
    """Run two members folded and by themselves, in eval mode; nothing of them changes.

    Returns: what one member needs, and the numbers of its largest activation, for one example.
    Raises: UnfoldableError: the answers differ, or cannot be had.
    """
    count = min(2, *(len(member.train) for member in pair))
    places = [next(member.module.parameters()) for member in pair]
    inputs = [
        next(iter(member.train.batches(count, None)))[0].to(place.device)
        for member, place in zip(pair, places, strict=True)
    ]
    if inputs[0].dim() not in {2, 4}:
        raise UnfoldableError(f"inputs have {inputs[0].dim()} axes")
    looks = [TensorFeed(x, torch.zeros(count, dtype=torch.int64)) for x in inputs]
    alone = [
        logits_of(one.module, look, device=str(place.device))[0]
        for one, look, place in zip(pair, looks, places, strict=True)
    ]
    folded = fold([member.module for member in pair]).eval()
    joined = _channels_together(torch.cat(inputs, 1))
    try:
        with counting(folded) as kept, Apart(2) as apart:
            together = folded(joined)
        answers = together.detach().view(count, 2, -1).unbind(1)
    except RuntimeError as error:
        raise UnfoldableError(str(error)) from error
    if not all(
        a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
        for a, b in zip(alone, answers, strict=True)
    ):
        raise UnfoldableError("the folded network answers otherwise")
    tensors = [*pair[0].module.parameters(), *pair[0].module.buffers()]
    largest = int(apart.largest / count / 2)
    need = Need(
        kept=ceil(kept.bytes / count / 2),
        largest=largest * joined.element_size(),
        weights=sum(tensor.nbytes for tensor in tensors),
        moments=2 if pair[0].recipe.optimizer == "adam" else 1,
    )
    return need, largest


def _channels_together(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs


def _check(members: Sequence[Member], context: RunContext) -> None:
    if context.folder is not None:
        raise ValueError("a stack is not kept in a folder")
    for what, shared in (
        ("module", [id(one.module) for one in members]),
        ("generator", [id(one.generator) for one in members]),
    ):
        if len(set(shared)) < len(shared):
            raise ValueError(f"two members of a stack share a {what}")
    for name in ("train", "val"):
        empty = [
            index
            for index, one in enumerate(members)
            if getattr(one, name) is not None and not len(getattr(one, name))
        ]
        if empty:
            raise DataError(
                f"there are no {name} examples for members {empty} of a stack",
                hint="give more images, or another split",
            )
    for index, member in enumerate(members):
        shapes = {name: tensor.shape for name, tensor in member.module.named_parameters()}
        wrong = [
            name for name, mask in (member.mask or {}).items() if shapes.get(name) != mask.shape
        ]
        if wrong:
            raise ValueError(
                f"the mask of member {index} has other names or shapes than its parameters: "
                f"{', '.join(wrong)}"
            )


def _alone(member: Member, context: RunContext) -> Fitted | OutcomeError:
    member.module.to(context.device)
    try:
        return fit(
            member.module,
            member.train,
            member.recipe,
            generator=member.generator,
            val=member.val,
            context=context,
            mask=member.mask,
        )
    except OutcomeError as error:
        return error


@dataclass
class _Course:
    """One member on its way: what it has drawn, and its history."""

    member: Member
    stream: Stream = field(init=False)
    losses: list[float] = field(default_factory=list)  # of the present line
    right: int = 0
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_accuracy: float = -1.0
    outcome: Fitted | OutcomeError | None = None

    def __post_init__(self) -> None:
        recipe = self.member.recipe
        self.stream = Stream(self.member.train, recipe, self.member.generator)
        self.ends = line_ends(recipe, self.stream.per_pass)
        self.total = self.ends[-1]
        self.size = min(len(self.member.train), recipe.batch_size)

    def rate(self, step: int) -> float:
        """Of one step; 0 after the last."""
        return learning_rate(step, self.total, self.member.recipe) if step < self.total else 0.0

    def diverged(self, what: str, step: int) -> None:
        """Out."""
        self.outcome = divergence(what, step, self.total, self.stream.per_pass, self.member.recipe)

    def check_line(self, end: int) -> None:
        """Out, if a loss of the line that ends here is not finite."""
        first = next((index for index, loss in enumerate(self.losses) if not isfinite(loss)), None)
        if first is not None:
            self.diverged(f"the loss is {self.losses[first]}", end - len(self.losses) + first)

    def validates(self, end: int) -> bool:
        """Whether the line that ends here has a validation accuracy, as `fit` has it."""
        recipe = self.member.recipe
        return self.member.val is not None and (
            recipe.select == "best" or recipe.epochs is not None or end == self.total
        )

    def close_line(self, end: int, device: str) -> None:
        """Validate, note the line, remember the best state; at the last line, hand over. The module
        holds the weights where they matter.
        """
        module, val, val_accuracy = self.member.module, self.member.val, None
        if val is not None and self.validates(end):
            val_accuracy = accuracy(*logits_of(module, val, device=device))
            if self.member.recipe.select == "best" and val_accuracy >= self.best_accuracy:
                self.best_accuracy = val_accuracy
                self.best = (
                    {name: tensor.clone() for name, tensor in module.state_dict().items()}
                    if end < self.total
                    else None
                )
        line = Epoch(
            epoch=len(self.history) + 1,
            loss=fmean(self.losses),
            train_accuracy=self.right / (self.size * len(self.losses)),
            val_accuracy=val_accuracy,
            learning_rate=self.rate(end - 1),
        )
        self.history.append(line)
        self.losses, self.right = [], 0
        if end == self.total:
            self.hand_over()

    def hand_over(self) -> None:
        """The kept state, if it is finite."""
        module = self.member.module
        if self.best is not None:
            module.load_state_dict(self.best)
        if not all(bool(parameter.isfinite().all()) for parameter in module.parameters()):
            self.diverged("a weight is not finite", self.total - 1)
            return
        last = float(self.history[-1].val_accuracy or 0.0)
        kept = (
            nan
            if self.member.val is None
            else self.best_accuracy
            if self.member.recipe.select == "best"
            else last
        )
        self.outcome = Fitted(module.eval(), tuple(self.history), kept, self.total)


class _Flat:
    """The trained parameters of a folded network as one vector, parameter after parameter, in each
    the members one after another.
    """

    def __init__(self, folded: nn.Module, members: int) -> None:
        self.members = members
        self.parameters = [
            parameter for parameter in folded.parameters() if parameter.requires_grad
        ]
        self.sizes = [parameter.numel() for parameter in self.parameters]
        self.orders = [_last(parameter) for parameter in self.parameters]
        self.values = self.joined([parameter.detach() for parameter in self.parameters])
        for parameter, part in zip(
            self.parameters, torch.split(self.values, self.sizes), strict=True
        ):
            parameter.data = _in_shape(part, parameter)
        counts = torch.tensor(self.sizes) // members
        self.owner: Int64[Tensor, " KP"] = (
            torch.arange(members)
            .repeat(len(counts))
            .repeat_interleave(counts.repeat_interleave(members))
        )
        self.owner = self.owner.to(self.values.device)

    def joined(self, parts: Sequence[Tensor | None]) -> Float[Tensor, " KP"]:
        """One vector of tensors in the parameters' shapes; None is zeros."""
        there = [
            torch.zeros_like(like) if part is None else part
            for part, like in zip(parts, self.parameters, strict=True)
        ]
        return torch.cat(
            [
                (part.permute(order) if order else part).reshape(-1)
                for part, order in zip(there, self.orders, strict=True)
            ]
        )

    def spread(self, each: Float[Tensor, " K"]) -> Float[Tensor, " KP"]:
        """One number a member."""
        return each[self.owner]

    def kept(self, vector: Float[Tensor, " KP"], members: Sequence[int]) -> Float[Tensor, " MP"]:
        """The parts of some members of a vector."""
        chosen = torch.tensor(members, device=vector.device)
        return torch.cat(
            [
                part.view(self.members, -1)[chosen].reshape(-1)
                for part in torch.split(vector, self.sizes)
            ]
        )


def _last(like: Tensor) -> tuple[int, ...]:
    """The order of axes in which a kernel's channels lie side by side; nothing where it is the one
    that there is.
    """
    return (0, 2, 3, 1) if like.dim() == 4 else ()


def _in_shape(part: Float[Tensor, " n"], like: Tensor) -> Tensor:
    """A view of a piece of a vector in the shape of a parameter."""
    order = _last(like)
    return (
        part.view([like.shape[axis] for axis in order]).permute(0, 3, 1, 2)
        if order
        else part.view(like.shape)
    )


class _Stack:
    """Members of one kind on their way; `go` is the loop."""

    def __init__(self, members: Sequence[Member], context: RunContext) -> None:
        self.context = context
        self.recipe = members[0].recipe  # what all share: optimiser, smoothing, precision
        self.all = [_Course(member) for member in members]
        for member in members:
            member.module.to(context.device)
            for name, parameter in member.module.named_parameters():
                if member.mask and name in member.mask:
                    parameter.data.mul_(member.mask[name].to(parameter.device, parameter.dtype))
        self.step = 0
        self.moments: list[Tensor] = []
        self.fold(self.all)

    def fold(self, courses: list[_Course]) -> None:
        """Fold the members that are still on their way."""
        self.courses, device = courses, self.context.device
        recipes = [course.member.recipe for course in courses]
        self.net = fold([course.member.module for course in courses])
        self.flat = flat = _Flat(self.net, len(courses))
        like = flat.values
        steps = range(self.step, max(course.total for course in courses))
        self.rates = torch.tensor(
            [[course.rate(step) for course in courses] for step in steps], dtype=like.dtype
        ).to(device)
        self.begun = self.step
        self.momentum = flat.spread(
            torch.tensor([recipe.momentum for recipe in recipes], dtype=like.dtype).to(device)
        )
        self.penalty: Tensor | None = None
        self.mask: Tensor | None = None
        if any(course.member.mask for course in courses):
            self.mask = flat.joined(self.masks())

    def masks(self) -> list[Tensor]:
        """The masks of the trained parameters, folded."""
        named = [
            (name, own)
            for name, own in self.courses[0].member.module.named_parameters()
            if own.requires_grad
        ]
        ones = {name: torch.ones_like(own, requires_grad=False) for name, own in named}
        return [
            torch.cat(
                [
                    (course.member.mask or {}).get(name, ones[name]).to(ones[name])
                    for course in self.courses
                ]
            )
            for name, _ in named
        ]

    def go(self) -> list[Fitted | OutcomeError]:
        """Train to each step at which a member's line ends, close these lines, and go on without
        those who are done.
        """
        total = max(course.total for course in self.all)
        self.context.report(0, total, "")
        for end in sorted(set(chain.from_iterable(course.ends for course in self.all))):
            if self.courses:
                self.steps(end, total)
                self.close_lines(end)
                self.context.report(end, total, f"{len(self.courses)} networks at once")
        return [course.outcome for course in self.all if course.outcome is not None]

    def steps(self, end: int, total: int) -> None:
        """Optimiser steps up to `end`; nothing is read back from the device before the last."""
        train_mode(self.net)
        members, told = len(self.courses), time.perf_counter()
        losses: list[Float[Tensor, " K"]] = []
        right = torch.zeros(members, dtype=torch.int64, device=self.context.device)
        while self.step < end:
            inputs, labels = self.draw()
            with autocast(self.context.device, self.recipe):
                with Apart(members):
                    outputs = self.net(inputs)
                logits = outputs.view(len(inputs) * members, -1)
                each = functional.cross_entropy(
                    logits,
                    labels.view(-1),
                    reduction="none",
                    label_smoothing=self.recipe.label_smoothing,
                )
            loss = each.view(-1, members).mean(0)
            gradients = torch.autograd.grad(loss.sum(), self.flat.parameters, allow_unused=True)
            self.update(gradients)
            losses.append(loss.detach())
            right += (logits.detach().argmax(1) == labels.view(-1)).view(-1, members).sum(0)
            self.step += 1
            if time.perf_counter() - told > _SECONDS_A_REPORT and self.step < end:
                told = time.perf_counter()
                self.context.report(self.step, total, f"{members} networks at once")
        for course, values, hits in zip(
            self.courses, torch.stack(losses, 1).tolist(), right.tolist(), strict=True
        ):
            course.losses += values
            course.right += hits

    def draw(self) -> tuple[Tensor, Int64[Tensor, "b K"]]:
        """The next batch of every member."""
        device = self.context.device
        batches = [course.stream.next() for course in self.courses]
        inputs = torch.cat([inputs for inputs, _ in batches], 1).to(device, non_blocking=True)
        labels = torch.stack([labels for _, labels in batches], 1).to(device, non_blocking=True)
        return _channels_together(inputs), labels

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None]) -> None:
        """One step of `fit`'s optimiser, each member at its own rate. What receives no gradient at
        all carries no penalty either.
        """
        flat, rate = self.flat, self.flat.spread(self.rates[self.step - self.begun])
        if self.penalty is None:
            self.penalty = self.penalties([gradient is not None for gradient in gradients])
        gradient = flat.joined(gradients)
        if self.mask is not None:
            gradient *= self.mask
        gradient.addcmul_(flat.values, self.penalty)
        if not self.moments:
            self.moments = [
                torch.zeros_like(gradient)
                for _ in range(2 if self.recipe.optimizer == "adam" else 1)
            ]
        if self.recipe.optimizer == "adam":
            mean, square = self.moments
            mean.lerp_(gradient, 1 - _BETAS[0])
            square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            first, second = (1 - beta ** (self.step + 1) for beta in _BETAS)
            flat.values.addcmul_(
                mean / first / (square / second).sqrt_().add_(_EPSILON), rate, value=-1
            )
        else:
            (buffer,) = self.moments
            buffer.mul_(self.momentum).add_(gradient)
            flat.values.addcmul_(gradient.addcmul_(buffer, self.momentum), rate, value=-1)

    def penalties(self, used: Sequence[bool]) -> Float[Tensor, " KP"]:
        """The weight penalty of every number: on matrices and kernels that are used, by the
        member's recipe.
        """
        like = self.flat.values
        each = torch.tensor(
            [course.member.recipe.weight_decay for course in self.courses], dtype=like.dtype
        ).to(like.device)
        parameters = self.flat.parameters
        bears = [
            torch.full_like(one, float(there and one.dim() > 1))
            for there, one in zip(used, parameters, strict=True)
        ]
        return self.flat.spread(each) * self.flat.joined(bears)

    def close_lines(self, end: int) -> None:
        """Close the lines that end here; who is done or diverged leaves the stack."""
        ending = [course for course in self.courses if end in course.ends]
        for course in ending:
            course.check_line(end)
        if any(
            course.outcome is not None or course.validates(end) or end == course.total
            for course in ending
        ):
            unfold(self.net, [course.member.module for course in self.courses])
        for course in ending:
            if course.outcome is None:
                course.close_line(end, self.context.device)
        going = [index for index, course in enumerate(self.courses) if course.outcome is None]
        if len(going) < len(self.courses):
            self.moments = (
                [self.flat.kept(moment, going) for moment in self.moments] if going else []
            )
            courses, self.courses = self.courses, []
            if going:
                self.fold([courses[index] for index in going])
