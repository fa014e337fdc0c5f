"""The predictor: two cells and a task's embedding -> which cell is better there.

Shapes: n questions, k cells, t tasks, e code of a cell (30 or 24), d entries of an embedding.
Logits are natural log odds that the first cell is better; by construction asking the other way
round gives exactly the opposite sign.

One file a space, safetensors: the weights, the mean and spread of the log embeddings it was trained
on, `tasks` (t, d), the embeddings of those tasks, and a card (JSON) that says how it was made and
how well it does.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockforge.errors import IntegrityError
from lockforge.files import Files
from lockforge.records import EDGES, Cell, Digest, Record, TaskEmbedding
from lockforge.spaces import ops_of
from lockforge.spaces.encoding import one_hot

WIDTHS = (128, 64, 32, 16)
Form = Literal["pair", "score"]
_FLOOR = 1e-3  # of an embedding's mean entry: what is smaller is as good as nothing
_LEAST_SPREAD = 0.05
# spreads; a task farther out than this from those of the training is treated as if it were here
_REACH = 4.0
_BLOCK = (
    1 << 12
)  # questions answered at once: 2 MB, which fits a core's cache and costs no fresh pages


class PairNetwork(nn.Module):
    """h(a, b, z): an MLP on [code of a, code of b, task]; the answer is h(a, b, z) - h(b, a, z).

    Differs: the paper has two logits and a softmax, whose answer to (b, a) need not be the opposite
    of its answer to (a, b). With `form="score"` h does not see its second cell, so that the answer
    is a difference of scores s(a, z) - s(b, z).
    """

    def __init__(self, code: int, dimension: int, form: Form, generator: torch.Generator) -> None:
        super().__init__()
        self.code, self.dimension, self.form = code, dimension, form
        widths = (2 * code + dimension, *WIDTHS, 1)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def parts(
        self, codes: Float[Tensor, "k e"], tasks: Float[Tensor, "t d"]
    ) -> tuple[Float[Tensor, "k w"], Float[Tensor, "k w"], Float[Tensor, "t w"]]:
        """The first layer is linear, so a cell's share of it (as first, as second) and a task's are
        worked out once and added up later.
        """
        first = self.layers[0]
        as_first, as_second, of_task = first.weight.split(
            [self.code, self.code, self.dimension], dim=1
        )  # type: ignore[operator]
        second = (
            codes @ as_second.T if self.form == "pair" else codes.new_zeros(len(codes), WIDTHS[0])
        )
        return codes @ as_first.T, second, tasks @ of_task.T + first.bias

    def above(self, x: Float[Tensor, "n w"]) -> Float[Tensor, " n"]:
        """The rest of h, from the first layer's sum, which is spent."""
        for layer in self.layers[1:]:
            x = layer(torch.relu_(x))
        return x.squeeze(-1)

    def forward(
        self, a: Float[Tensor, "n e"], b: Float[Tensor, "n e"], z: Float[Tensor, "n d"]
    ) -> Float[Tensor, " n"]:
        """The logits, question by question; z is as `Predictor.see` gives it."""
        first = self.layers[0]
        seen_a, seen_b = (
            (a, b) if self.form == "pair" else (torch.zeros_like(a), torch.zeros_like(b))
        )
        return self.above(first(torch.cat([a, seen_b, z], dim=1))) - self.above(
            first(torch.cat([b, seen_a, z], dim=1))
        )


class ProbeMark(Record):
    """Which embeddings a predictor understands."""

    probe: Digest
    definition: str


@dataclass(frozen=True)
class Predictor:
    """A trained `PairNetwork`, what it was trained on, and the hash of its file."""

    space: str
    network: PairNetwork
    centre: Float[Tensor, " d"]
    spread: Float[Tensor, " d"]
    tasks: Float[np.ndarray, "t d"]
    mark: ProbeMark
    card: Mapping[str, Any]
    digest: str

    def see(self, vectors: Float[np.ndarray, "t d"]) -> Float[Tensor, "t d"]:
        """Embeddings as the network wants them: log of the shape, standardised over the tasks of
        the training.
        """
        return _standardised(vectors, self.centre, self.spread)

    def ask(
        self, a: Sequence[Cell], b: Sequence[Cell], vectors: Float[np.ndarray, "n d"]
    ) -> Float[np.ndarray, " n"]:
        """Logits that a[i] is better than b[i] on the task vectors[i]."""
        with torch.no_grad():
            codes = (torch.from_numpy(one_hot(cells, self.space)) for cells in (a, b))
            logits: Tensor = self.network(*codes, self.see(vectors))
        return logits.numpy()

    def ask_all(
        self, cells: Sequence[Cell], vectors: Float[np.ndarray, "t d"]
    ) -> Float[np.ndarray, "t k k"]:
        """Logits of all ordered pairs on all tasks at once: entry [z, i, j] says how much better
        cells[i] is than cells[j].

        Only pairs i < j are worked out; the others are their opposites, and a cell beside itself is
        exactly 0.
        """
        return self._answers(cells, self.see(vectors))

    def ask_typical(self, cells: Sequence[Cell]) -> Float[np.ndarray, "k k"]:
        """The same without an embedding: on the mean task of the training."""
        typical: Float[np.ndarray, "k k"] = self._answers(
            cells, torch.zeros(1, self.network.dimension)
        )[0]
        return typical

    def wins_over(
        self, cells: Sequence[Cell], panel: Sequence[Cell], vectors: Float[np.ndarray, "t d"] | None
    ) -> Float[np.ndarray, " k"]:
        """How many of a panel's cells each cell beats, the tasks added; a logit of exactly 0 is
        half a win. None: see `ask_typical`.
        """
        seen = torch.zeros(1, self.network.dimension) if vectors is None else self.see(vectors)
        wins = torch.zeros(len(cells), dtype=torch.float64)
        with torch.no_grad():
            first, second, task = self.network.parts(
                torch.from_numpy(one_hot(cells, self.space)), seen
            )
            panel_first, panel_second, _ = self.network.parts(
                torch.from_numpy(one_hot(panel, self.space)), seen
            )
            step = max(1, _BLOCK // len(panel))
            for start in range(0, len(cells), step):
                part = slice(start, start + step)
                for of_task in task:
                    there = self.network.above((of_task + first[part])[:, None] + panel_second)
                    back = self.network.above((of_task + panel_first) + second[part, None])
                    wins[part] += ((there > back).double() + 0.5 * (there == back).double()).sum(1)
        return wins.numpy()

    def _answers(
        self, cells: Sequence[Cell], seen: Float[Tensor, "t d"]
    ) -> Float[np.ndarray, "t k k"]:
        """Copies of a cell share one answer: worked out twice, at two places of a batch, their last
        bits may differ.
        """
        places = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
        if len(places) < len(cells):
            at = [places[cell] for cell in cells]
            return self._answers(list(places), seen)[:, at][:, :, at]
        k, t = len(cells), len(seen)
        logits = np.zeros((t, k, k), dtype=np.float32)
        i, j = np.triu_indices(k, 1)
        with torch.no_grad():
            first, second, task = self.network.parts(
                torch.from_numpy(one_hot(cells, self.space)), seen
            )
            step = max(1, _BLOCK // max(1, t))
            for start in range(0, len(i), step):
                some_i, some_j = i[start : start + step], j[start : start + step]
                there = self.network.above(task[:, None] + (first[some_i] + second[some_j])[None])
                back = self.network.above(task[:, None] + (first[some_j] + second[some_i])[None])
                answers = (there - back).numpy()
                logits[:, some_i, some_j] = answers
                logits[:, some_j, some_i] = -answers
        return logits

    def vector_of(self, embedding: TaskEmbedding, files: Files) -> Float[np.ndarray, " d"]:
        """The numbers of an embedding, checked to be of the kind this predictor was trained on.

        Raises: IntegrityError: another probe, definition or length, or values that no Fisher
            diagonal has.
        """
        wanted = (self.mark.probe, _kind(self.mark.definition), self.tasks.shape[1])
        given = (embedding.probe, _kind(embedding.definition), embedding.dimension)
        faults = [
            f"{name}: the predictor was trained on {want!r}, this embedding has {have!r}"
            for name, want, have in zip(
                ("probe", "definition", "dimension"), wanted, given, strict=True
            )
            if want != have
        ]
        if faults:
            raise IntegrityError(
                f"the {self.space} predictor cannot read this task embedding",
                faults=faults,
                hint="embed with embed.probe: packaged, or train a predictor for your probe "
                "(docs/search.md)",
            )
        vector = files.get_arrays(embedding.vector).get("fisher")
        if (
            vector is None
            or vector.shape != (embedding.dimension,)
            or not np.isfinite(vector).all()
            or (vector < 0).any()
        ):
            raise IntegrityError(
                f"the embedding of {embedding.images[:12]} does not hold {embedding.dimension} "
                "finite numbers >= 0",
                hint="remove the run that made it and embed again",
            )
        return np.asarray(vector, dtype=np.float64)


def _kind(definition: str) -> str:
    """Layers and loss of an embedding; what follows the first semicolon and `; head` says how long
    the head was trained.
    """
    return definition.split("; head", maxsplit=1)[0]


def log_shape(vectors: Float[np.ndarray, "t d"]) -> Float[Tensor, "t d"]:
    """log(z / mean z + 0.001): an embedding's shape, whatever its length; entries below zero (the
    paper's construction) count as zero.

    >>> log_shape(np.array([[1.0, 3.0], [10.0, 30.0]]))
    tensor([[-0.6911,  0.4061],
            [-0.6911,  0.4061]])
    """
    kept = np.maximum(np.asarray(vectors, np.float64), 0)
    return torch.from_numpy(np.log(kept / kept.mean(1, keepdims=True) + _FLOOR)).to(torch.float32)


def _standardised(
    vectors: Float[np.ndarray, "n d"], centre: Float[Tensor, " d"], spread: Float[Tensor, " d"]
) -> Float[Tensor, "n d"]:
    return ((log_shape(vectors) - centre) / spread).clamp(-_REACH, _REACH)


def standardised(
    vectors: Float[np.ndarray, "n d"], tasks: Float[np.ndarray, "t d"]
) -> Float[Tensor, "n d"]:
    """Embeddings as a network sees them that was trained on `tasks`."""
    return _standardised(vectors, *standardise(tasks))


def standardise(tasks: Float[np.ndarray, "t d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Centre and spread of the log shapes of the training's tasks."""
    shapes = log_shape(tasks)
    return shapes.mean(0), shapes.std(0, correction=0).clamp_min(_LEAST_SPREAD)


def save_predictor(
    network: PairNetwork, tasks: Float[np.ndarray, "t d"], card: Mapping[str, Any]
) -> bytes:
    """One file: weights, tasks and card. The card needs `space`, `probe`, `definition` and
    `form`.
    """
    from safetensors.torch import save

    centre, spread = standardise(tasks)
    bank = torch.from_numpy(np.ascontiguousarray(tasks, dtype=np.float32))
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    text = json.dumps(dict(card), sort_keys=True)
    return save(
        {**tensors, "centre": centre.contiguous(), "spread": spread.contiguous(), "tasks": bank},
        {"card": text},
    )


def packaged_name(space: str) -> str:
    """The file of a space's predictor inside the package."""
    return f"predictor-{space}.safetensors"


def load_predictor(space: str, data: bytes | None = None) -> Predictor:
    """The predictor of a space, from the package or from given bytes.

    Raises: IntegrityError: not a predictor, of another space, or with tensors of other names,
        shapes or values; every fault is listed.
    """
    name = packaged_name(space)
    if data is None:
        packaged = package_files("lockforge.search").joinpath(name)
        if not packaged.is_file():
            raise IntegrityError(
                f"this installation has no {name}",
                hint="install LockForge again, or train a predictor with metatrain",
            )
        data = packaged.read_bytes()
    card, tensors = _read(data, name)
    if card["space"] != space:
        raise IntegrityError(
            f"this predictor is for {card['space']}, not for {space}",
            hint=f"give the predictor of {space}",
        )
    tasks = tensors.pop("tasks", torch.empty(0))
    dimension = tasks.shape[1] if tasks.dim() == 2 else 0
    network = PairNetwork(code_width(space), dimension, card["form"], torch.Generator())
    centre, spread = tensors.pop("centre", torch.empty(0)), tensors.pop("spread", torch.empty(0))
    faults = _faults(network, tensors, centre, spread, tasks)
    if faults:
        raise IntegrityError(
            f"{name} is not a predictor for {space}",
            faults=faults,
            hint="install LockForge again, or train a predictor with metatrain",
        )
    network.load_state_dict(tensors)
    mark = ProbeMark.from_json(json.dumps({key: card[key] for key in ("probe", "definition")}))
    return Predictor(
        space,
        network.eval(),
        centre,
        spread,
        tasks.double().numpy(),
        mark,
        card,
        hashlib.sha256(data).hexdigest(),
    )


def code_width(space: str) -> int:
    """Entries of a cell's code.

    >>> code_width("nasbench201"), code_width("transnas101")
    (30, 24)
    """
    return len(EDGES) * len(ops_of(space))


def _faults(
    network: PairNetwork,
    tensors: Mapping[str, Tensor],
    centre: Tensor,
    spread: Tensor,
    tasks: Tensor,
) -> list[str]:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = [
        f"{name}: {found.get(name, 'missing')} where {wanted.get(name, 'nothing')} is needed"
        for name in sorted(wanted | found)
        if wanted.get(name) != found.get(name)
    ]
    dimension = network.dimension
    if dimension == 0 or centre.shape != (dimension,) or spread.shape != (dimension,):
        faults.append(
            f"tasks {tuple(tasks.shape)}, centre {tuple(centre.shape)} and spread "
            f"{tuple(spread.shape)} do not fit together"
        )
    if not all(
        bool(torch.isfinite(tensor).all()) for tensor in (*tensors.values(), centre, spread, tasks)
    ):
        faults.append("a number is not finite")
    return faults


def _read(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The card and the tensors of a predictor's file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = dict(load(data))
        (length,) = struct.unpack("<Q", data[:8])
        card = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["card"])
        missing = [
            key
            for key in ("space", "probe", "definition", "form")
            if not isinstance(card.get(key), str)
        ]
    except (SafetensorError, struct.error, ValueError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{name} is not a predictor's file: {error}",
            hint="install LockForge again, or give the right file",
        ) from error
    if missing or card["form"] not in {"pair", "score"}:
        raise IntegrityError(
            f"the card of {name} does not say {', '.join(missing) or 'pair or score'}",
            hint="install LockForge again",
        )
    return card, tensors
