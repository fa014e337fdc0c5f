"""Trainings for `test_parallel.py`, made in processes of their own from a few words of JSON."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import torch._dynamo  # torch's parallel module opens it, which takes seconds
from safetensors.torch import save_file
from torch import Tensor, distributed, nn
from torch.nn import functional

from lockforge.engine import parallel
from lockforge.engine.feed import TensorFeed
from lockforge.engine.fit import Fitted, RunContext
from lockforge.engine.parallel import Training
from lockforge.randomness import torch_generator
from lockforge.recipe import FitRecipe

RECIPE = FitRecipe(
    epochs=3, batch_size=17, learning_rate=0.1, weight_decay=0.05, warmup=0.1, label_smoothing=0.1
)


class GhostNorm(nn.BatchNorm2d):
    """What the batch norms of two processes do, in one: each half of a batch by its own statistics,
    running ones their mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalised."""
        if not self.training:
            return super().forward(x)
        statistics = [(self.running_mean.clone(), self.running_var.clone()) for _ in range(2)]
        halves = [
            functional.batch_norm(
                half,
                *own,
                self.weight,
                self.bias,
                training=True,
                momentum=self.momentum,
                eps=self.eps,
            )
            for half, own in zip(x.tensor_split(2), statistics, strict=True)
        ]
        for running, own in zip(
            (self.running_mean, self.running_var), zip(*statistics, strict=True), strict=True
        ):
            running.copy_((own[0] + own[1]) / 2)
        self.num_batches_tracked += 1
        return torch.cat(halves)


class Net(nn.Module):
    """A convolution and a head for 1 x 4 x 4 images in 3 classes; a layer that no output depends
    on.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = norm
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(96, 3)
        draws = torch_generator(0, "together", "network")
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.2, generator=draws)
            else:
                nn.init.constant_(parameter, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(functional.relu(self.norm(self.first(x))).flatten(1))


NETS = {
    "none": lambda: Net(nn.Identity()),
    "batch": lambda: Net(nn.BatchNorm2d(6)),
    "ghost": lambda: Net(GhostNorm(6)),
}
DEEDS = ("killed", "wrong", "lacking", "asleep")


@dataclass(frozen=True)
class Trap:
    """A feed that in the second of two processes does something else at the beginning of its second
    pass.
    """

    feed: TensorFeed
    deed: str
    passes: list[int]

    def __len__(self) -> int:
        return len(self.feed)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None,
        *,
        crop: int = 0,
        flip: bool = False,
        balance: float = 0.0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As the feed behind it, once."""
        self.passes.append(1)
        second = distributed.is_initialized() and distributed.get_rank() == 1
        if len(self.passes) > 1 and second:
            if self.deed == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.deed == "asleep":
                time.sleep(600)
            raise {"wrong": RuntimeError, "lacking": MemoryError}[self.deed]("at the second pass")
        return self.feed.batches(batch_size, generator, crop=crop, flip=flip, balance=balance)


def images(count: int, name: str) -> TensorFeed:
    """Noise, and which of three regions is brightest."""
    draws = torch_generator(0, "together", name)
    images = torch.randn(count, 1, 4, 4, generator=draws)
    means = torch.stack(
        [
            images[:, 0, :2].mean((1, 2)),
            images[:, 0, 2:, :2].mean((1, 2)),
            images[:, 0, 2:, 2:].mean((1, 2)),
        ],
        1,
    )
    return TensorFeed(images, means.argmax(1))


@dataclass(frozen=True)
class Kept(Training):
    """A training that leaves every process's outcome in a folder, as RANK.safetensors with its
    history.
    """

    folder: str = ""

    def go(self, context: RunContext) -> Fitted:
        """Train and write."""
        fitted = super().go(context)
        if self.folder:
            tensors = {
                name: tensor.contiguous() for name, tensor in fitted.module.state_dict().items()
            }
            story = json.dumps(
                [line.model_dump() for line in fitted.history] + [fitted.val_accuracy, fitted.steps]
            )
            save_file(
                tensors,
                f"{self.folder}/"
                f"{context.team.rank if context.team.size > 1 else 'here'}.safetensors",
                {"story": story},
            )
        return fitted


def make(job: str, _device: str) -> Training:
    """Out of {"recipe": changes, "norm": network, "sharpness": rho, "mask": bool, "train", "val":
    counts, "keep": folder, "deed": word}.
    """
    asked = json.loads(job)
    net = NETS[asked.get("norm", "none")]()
    mask = None
    if asked.get("mask"):
        draws = torch_generator(0, "together", "mask")
        mask = {
            name: (torch.rand(one.shape, generator=draws) < 0.5).float()
            for name, one in net.named_parameters()
            if one.dim() > 1
        }
    train, deed = images(asked.get("train", 100), "train"), asked.get("deed")
    fickle = deed == "fickle" and not distributed.is_initialized()
    return Kept(
        module=net,
        train=Trap(train, deed, []) if deed in DEEDS else train,
        recipe=RECIPE.model_copy(update=asked.get("recipe", {})),
        generator=torch_generator(1 if fickle else 0, "together", "batches"),
        val=images(asked.get("val", 60), "val"),
        sharpness=asked.get("sharpness", 0.0),
        mask=mask,
        folder=asked.get("keep", ""),
    )


def lead(job: str, folder: str) -> None:
    """Train with two processes, from a process that will be killed."""
    # this process was made for it and has no threads
    parallel._CONTEXT = get_context("fork")  # type: ignore[assignment]
    parallel.fit_together(make, job, 2, RunContext(folder=Path(folder), save_every=0))
