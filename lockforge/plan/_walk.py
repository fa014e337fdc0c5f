"""The sentence of `pipeline.protect`, asked by one who only looks: which questions there are, and
which are answered already.

As long as answers are found on disk, they give the keys of the next questions. After the first that
is missing, a stand-in takes its place so that the sentence can go on: what is asked downstream of
it is to do, and its counts are those of a typical cell.
"""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_type_hints

from lockforge.audit import cost as audit
from lockforge.audit.ledger import finished_items
from lockforge.audit.protocol import Item
from lockforge.embed import cost as embed
from lockforge.engine.resume import steps_done
from lockforge.engine.workload import Workload, added
from lockforge.models.read import Place
from lockforge.pipeline import STAND_IN, protect
from lockforge.prune import cost as prune
from lockforge.recipe import NetworkRecipe, Recipe
from lockforge.records import (
    HEADLESS,
    AnyArchitecture,
    Architecture,
    Candidate,
    Cell,
    Checkpoint,
    FileRef,
    ImageSet,
    LayerSparsity,
    Op,
    PrunedModel,
    Pruning,
    Record,
    Roles,
    SearchResult,
    TaskEmbedding,
    sha256_text,
)
from lockforge.runs import WORDS, Runs, StageInput
from lockforge.search import cost as search
from lockforge.train import cost as train

R = TypeVar("R", bound=Record)
State = Literal["done", "under way", "interrupted", "to do"]
OTHER = Cell(
    ops=(Op.conv3x3, Op.none, Op.none, Op.skip, Op.conv3x3, Op.none)
)  # another typical cell: lock and reference may differ


@dataclass(frozen=True)
class Question:
    """A stage call of the sentence.

    Args: stage: the verb. on: what it is about. key: its folder's name, where it is known. spent:
        seconds that a finished one took. effort: all of it, done or not; `items`: its pieces that
        go side by side, by name. left: what of it is to do; `left_items` likewise. share: of its
        trainings or pieces that are done. typical: that it stands on a stand-in.
    """

    stage: str
    on: str
    state: State
    key: str | None
    spent: float
    effort: Workload
    left: Workload
    items: dict[Item, Workload] = field(default_factory=dict)
    left_items: tuple[Item, ...] = ()
    share: float = 0.0
    typical: bool = False
    held: int = 0
    network: AnyArchitecture | None = None
    reckonings: int = 0


class _Stands(Record):
    """In the place of an answer that nobody looks into."""


class DryRun(Runs):
    """Runs that work nothing out: an answer that is not there is stood in for, and every question
    is noted.
    """

    def __init__(self, do: Runs, roles: Roles) -> None:
        super().__init__(do.folder, seed=do.seed, device=do.device)
        self.roles = roles
        self.noted: dict[str, Question] = {}
        self._stood: dict[
            int, Record
        ] = {}  # by identity; held, so that no other record gets the same
        self._answers: dict[str, Record] = {}

    def __call__(self, ask: Callable[..., R], *inputs: StageInput) -> R:
        """The answer that is there, or a stand-in.

        Raises: IntegrityError: a stored answer was changed.
        """
        key = self.key(ask, inputs)
        if key in self._answers:
            return cast("R", self._answers[key])
        typical = any(id(part) in self._stood for part in _records(inputs))
        done = self.folder / ask.__name__ / key
        question = self._question(ask.__name__, inputs, None if typical else key)
        if not typical and done.is_dir():
            answer = self._found(
                ask.__name__, done, cast("type[R]", get_type_hints(ask)["return"]), None
            )
            question = replace(
                question,
                state="done",
                spent=self.spent[ask.__name__, key],
                left=Workload(),
                left_items=(),
                share=1.0,
            )
        else:
            answer = cast("R", self._stand_in(ask.__name__, inputs, key))
            given = {id(part) for part in _records(inputs)}
            self._stood |= {id(part): part for part in _records(answer) if id(part) not in given}
        self.noted[key] = question
        self._answers[key] = answer
        return answer

    def all(
        self, ask: Callable[..., R], questions: Sequence[tuple[StageInput, ...]]
    ) -> tuple[R, ...]:
        """The answers, or stand-ins, in order."""
        return tuple(self(ask, *inputs) for inputs in questions)

    def _question(self, name: str, inputs: tuple[Any, ...], key: str | None) -> Question:
        """What it asks for, and how much of that an interrupted run has left behind."""
        folder = self.folder / name / f"{key}.partial"
        begun = key is not None and folder.is_dir()
        items: dict[Item, Workload] = {}
        held = 0
        if name == "audit_transfer":
            subjects, source, target, terms = inputs
            found = audit.workload_of(subjects, source, target, terms, self.files)
            items, held = dict(found.items), found.held
            effort = added(items.values())
        else:
            effort = _effort_of(name, inputs)
        finished = finished_items(folder) if begun and items else frozenset()
        left_items = tuple(item for item in items if item not in finished)
        share = (
            len(finished) / len(items)
            if items
            else _share_of(name, folder, effort)
            if begun
            else 0.0
        )
        left = added(items[item] for item in left_items) if items else _part(effort, 1 - share)
        state: State = "to do" if not begun else "under way" if _in_use(folder) else "interrupted"
        reckonings = search.reckonings(inputs[1], inputs[4]) if name == "search_cell" else 0
        return Question(
            WORDS[name],
            self._about(name, inputs),
            state,
            key,
            0.0,
            effort,
            left,
            items,
            left_items,
            share,
            key is None,
            held,
            _network_of(name, inputs),
            reckonings,
        )

    def _about(self, name: str, inputs: tuple[Any, ...]) -> str:
        """In a few words, what it is about."""
        names = {
            id(images): word
            for word, images in zip(self.roles.names, _sets(self.roles), strict=True)
        }
        sets = [names[id(one)] for one in inputs if id(one) in names]
        match name:
            case "train_cell":
                return self._network(inputs[0])
            case "adopt_model" | "adopt_encoder":
                return str(inputs[0])
            case "prune_model":
                model, reference, _, _, recipe = inputs
                parts = [
                    recipe.method,
                    *(["no Fisher term"] if recipe.method == "ntp" and not recipe.fisher else []),
                ]
                return ", ".join(
                    [
                        *parts,
                        *(
                            ["on the reference"]
                            if model is reference and self._two_networks()
                            else []
                        ),
                    ]
                )
            case "audit_transfer":
                return sets[-1]
            case "export_artifact":
                return "the release"
        return sets[0]

    def _network(self, architecture: AnyArchitecture) -> str:
        if id(architecture) in self._stood:
            return (
                "the reference, a typical cell"
                if getattr(architecture, "cell", None) == OTHER
                else "a typical cell"
            )
        return str(getattr(architecture, "cell", architecture))

    def _two_networks(self) -> bool:
        return sum(one.stage == "train" for one in self.noted.values()) > 1

    def _stand_in(self, name: str, inputs: tuple[Any, ...], key: str) -> Record:
        """What the sentence needs to go on."""
        ref = FileRef(sha256=sha256_text(key), size=0)
        match name:
            case "embed_task":
                images = cast("ImageSet", inputs[0])
                return TaskEmbedding(
                    images=images.digest,
                    probe=ref.sha256,
                    definition="",
                    dimension=1,
                    samples=1,
                    probe_accuracy=0,
                    vector=ref,
                )
            case "search_cell":
                source, auxiliary, _, network, recipe = inputs
                alone = (recipe.scheme or ("TK" if auxiliary else "TU")) == "S"
                chosen, reference = (
                    architecture_with(cell, source, network)
                    for cell in (STAND_IN, STAND_IN if alone else OTHER)
                )
                candidates = tuple(
                    Candidate(cell=cell, source_rank=0, target_rank=None, rank_gap=0, judged_by=())
                    for cell in {STAND_IN, OTHER}
                )
                return SearchResult(
                    scheme="S",
                    chosen=chosen,
                    reference=reference,
                    candidates=candidates,
                    questions=0,
                    predictor=ref.sha256,
                    source_cosines=(),
                    used=(),
                )
            case "train_cell":
                return _checkpoint(inputs[0], inputs[1], ref, "train_cell/1")
            case "adopt_model" | "adopt_encoder":
                return _checkpoint(
                    inputs[0],
                    inputs[2],
                    ref,
                    HEADLESS if name == "adopt_encoder" else "adopt_model/1",
                )
            case "prune_model":
                layer = LayerSparsity(name="typical", weights=1, zeros=0)
                pruning = Pruning(
                    method="ntp",
                    fisher=False,
                    auxiliary="none",
                    layers=(layer,),
                    rounds=(),
                    source_drop=0,
                    dense_bytes=0,
                    sparse_bytes=0,
                )
                return PrunedModel(
                    checkpoint=_checkpoint(inputs[0].architecture, inputs[2], ref, "prune_model/1"),
                    pruning=pruning,
                )
        return _Stands()


def walk(
    recipe: Recipe, roles: Roles, do: Runs, public: Sequence[str] = (), own: Place | None = None
) -> tuple[Question, ...]:
    """Every question that `protect` would ask with these arguments, in its order, each once.

    Raises: DataError, RecipeError, IntegrityError: what `protect` would find wrong with what it is
    given, with its stored answers, and with the sizes of the targets.
    """
    looking = DryRun(do, roles)
    protect(recipe, roles, looking, public, own)
    return tuple(looking.noted.values())


def architecture_with(cell: Cell, images: ImageSet, network: NetworkRecipe) -> Architecture:
    """The recipe's skeleton with this cell, for these images."""
    return Architecture(
        cell=cell, classes=len(images.classes), shape=images.shape, **network.model_dump()
    )


def _effort_of(name: str, inputs: tuple[Any, ...]) -> Workload:
    """The count of the room that a stage lies in."""
    match name:
        case "embed_task":
            return embed.workload_of(inputs[0], inputs[1])
        case "search_cell":
            return search.workload_of(inputs[0], inputs[1], inputs[4])
        case "train_cell":
            return train.workload_of(inputs[1], inputs[2])
        case "adopt_model" | "adopt_encoder":
            return train.adopting(inputs[2], headless=name == "adopt_encoder")
        case "prune_model":
            return prune.workload_of(*inputs[2:])
    return Workload()


def _share_of(name: str, folder: Path, effort: Workload) -> float:
    """The share of a question's trainings, steps or rounds that is stored."""
    match name:
        case "search_cell":
            return min(1.0, search.trainings_done(folder) / max(1, effort.trainings))
        case "train_cell":
            return min(1.0, steps_done(folder) / max(1, effort.steps))
        case "prune_model":
            rounds = effort.fits[0]
            return prune.rounds_done(folder) * rounds.steps / max(1, effort.steps)
    return 0.0


def _part(effort: Workload, share: float) -> Workload:
    """A share of the steps of trainings that are not stored one by one."""
    if share >= 1 or not effort.fits:
        return effort
    done = 1 - share
    fits = []
    skipped = round(done * effort.steps)
    for one in effort.fits:
        over = min(skipped, one.all_steps) if one.of == "network" else 0
        skipped -= over
        whole, rest = divmod(one.all_steps - over, one.steps)
        fits += [replace(one, trainings=whole)] if whole else []
        fits += (
            [replace(one, trainings=1, steps=rest, validated=one.validated * rest // one.steps)]
            if rest
            else []
        )
    return Workload(tuple(fits), effort.passes)


def _network_of(name: str, inputs: tuple[Any, ...]) -> AnyArchitecture | None:
    """The network that a question is about, as far as it is known."""
    match name:
        case "train_cell" | "adopt_model" | "adopt_encoder":
            return cast("AnyArchitecture", inputs[0])
        case "prune_model":
            return cast("AnyArchitecture", inputs[0].architecture)
        case "audit_transfer":
            return cast("AnyArchitecture", inputs[0].release.architecture)
    return None


def _checkpoint(
    architecture: AnyArchitecture, source: ImageSet, weights: FileRef, made_by: str
) -> Checkpoint:
    return Checkpoint(
        architecture=architecture,
        weights=weights,
        trained_on=source.digest,
        made_by=made_by,
        val_accuracy=0,
        test_accuracy=0,
        test_samples=0,
        confusion=(),
        history=(),
    )


def _sets(roles: Roles) -> tuple[ImageSet, ...]:
    return (roles.source, *roles.auxiliary, *roles.targets)


def _records(value: Any) -> Iterator[Record]:
    """Every record in a value, and in its fields."""
    match value:
        case Record():
            yield value
            for name in type(value).model_fields:
                yield from _records(getattr(value, name))
        case tuple():
            for one in value:
                yield from _records(one)
        case dict():
            for one in value.values():
                yield from _records(one)


def _in_use(folder: Path) -> bool:
    """Whether a process holds the lock of an unfinished question's folder; nothing is written
    there.
    """
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
