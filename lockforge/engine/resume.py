"""A training run on disk: everything that decides how it goes on, in one safetensors file, so that
one rename makes it whole.

The file holds `model.*`, `best.*` (where another state than the present one is the best),
`optimizer.INDEX.*` and `generator` (its state at the start of the present pass); its header holds
the rest as JSON. Nothing in it can run code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lockforge.engine.feed import Feed
from lockforge.errors import IntegrityError
from lockforge.files import write_whole
from lockforge.recipe import FitRecipe
from lockforge.records import Epoch, canonical_json

FORMAT = 1
FILE = "fit.safetensors"
State = dict[str, Tensor]


@dataclass
class Progress:
    """How far a run has come: steps done, lines of history, and the state that was best by
    validation (None: the present one).
    """

    step: int = 0
    history: list[Epoch] = field(default_factory=list)
    best_accuracy: float = -1.0
    best: State | None = None


@dataclass
class Stream:
    """Training batches without end: a new shuffled pass whenever one is used up.

    `start` is the generator's state at the start of the present pass, `taken` the batches taken
    from it.
    """

    feed: Feed
    recipe: FitRecipe
    generator: torch.Generator

    def __post_init__(self) -> None:
        self.per_pass = max(1, len(self.feed) // self.recipe.batch_size)
        self.start, self.taken = self.generator.get_state(), 0
        self._open()

    def _open(self) -> None:
        recipe = self.recipe
        self.start, self.taken = self.generator.get_state(), 0
        self._batches = iter(
            self.feed.batches(
                recipe.batch_size,
                self.generator,
                crop=recipe.crop,
                flip=recipe.flip,
                balance=recipe.balance,
            )
        )

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch."""
        if self.taken == self.per_pass:
            self._open()
        self.taken += 1
        return next(self._batches)

    def mark(self) -> tuple[Tensor, int]:
        """Where the stream stands: a generator state, and how many batches to take from there."""
        return (
            (self.generator.get_state(), 0)
            if self.taken == self.per_pass
            else (self.start, self.taken)
        )

    def go_to(self, start: Tensor, taken: int) -> None:
        """Stand where `mark` said: draw the same batches again and leave them out."""
        self.generator.set_state(start)
        self._open()
        for _ in range(taken):
            self.next()


def question_of(
    module: nn.Module,
    train: Feed,
    recipe: FitRecipe,
    generator: torch.Generator,
    steps: tuple[float, Mapping[str, Tensor]] = (0.0, {}),
) -> str:
    """What tells one run from another: recipe, starting weights, number of examples, generator, and
    the steps' sharpness and mask.

    Returns: SHA-256 in hex.
    """
    sharpness, mask = steps
    seen = hashlib.sha256(
        canonical_json(
            [FORMAT, recipe.digest, len(train), *([sharpness] if sharpness else [])]
        ).encode()
    )
    seen.update(generator.get_state().numpy().tobytes())
    for name, tensor in (*module.state_dict().items(), *mask.items()):
        seen.update(name.encode())
        seen.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()


def write_state(
    folder: Path,
    question: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    progress: Progress,
) -> None:
    """Store a run where `read_state` finds it.

    Raises: ResourceError: the disk refuses.
    """
    start, taken = stream.mark()
    tensors = {f"model.{name}": tensor for name, tensor in module.state_dict().items()} | {
        "generator": start
    }
    tensors |= {f"best.{name}": tensor for name, tensor in (progress.best or {}).items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{name}": value
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
    header = {
        "question": question,
        "step": progress.step,
        "taken": taken,
        "best_accuracy": progress.best_accuracy,
        "history": [epoch.model_dump(mode="json") for epoch in progress.history],
    }
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        {"run": json.dumps(header)},
    )
    write_whole(folder / FILE, data)


def read_state(
    folder: Path, question: str, module: nn.Module, optimizer: torch.optim.Optimizer, stream: Stream
) -> Progress:
    """Put module, optimiser and stream where a stored run left them; nothing changes when the
    folder holds no run of this question.

    Raises: IntegrityError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return Progress()
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads((stored.metadata() or {})["run"])
            if header["question"] != question:
                return Progress()
            # it is no mapping
            tensors: State = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        module.load_state_dict(_below("model.", tensors))
        _load_optimizer(optimizer, tensors)
        stream.go_to(tensors["generator"], header["taken"])
        best = (
            {
                name: torch.empty_like(like).copy_(tensors[f"best.{name}"])
                for name, like in module.state_dict().items()
            }
            if any(name.startswith("best.") for name in tensors)
            else None
        )
        history = [Epoch.model_validate(line) for line in header["history"]]
        return Progress(header["step"], history, header["best_accuracy"], best)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise IntegrityError(
            f"{path} is not a stored training run: {error}",
            hint="delete it; the training starts from its beginning",
        ) from error


def steps_done(folder: Path) -> int:
    """The optimiser steps of the run that is stored in a folder, whatever its question; 0 where
    none can be read.
    """
    try:
        with safe_open(folder / FILE, framework="pt") as stored:
            return int(json.loads((stored.metadata() or {})["run"])["step"])
    except (SafetensorError, KeyError, ValueError, OSError):
        return 0


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give each parameter its state back, in the parameter's own order of memory (fused steps read
    both side by side).
    """
    values: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, tensor in _below("optimizer.", tensors).items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        placed = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        values.setdefault(int(index), {})[key] = placed
    optimizer.load_state_dict(optimizer.state_dict() | {"state": values})
