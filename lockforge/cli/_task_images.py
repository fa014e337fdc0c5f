"""`benchmark --images TASK=PLACE --figures DIR`: check what was given, and have it embedded as
`embed` does.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockforge.errors import DataError, RecipeError, ResourceError

if TYPE_CHECKING:
    from lockforge.benchmark.embedded import Known
    from lockforge.cli._console import Terminal

RECIPE = "digits"  # that of `embed`, and of the packaged predictors
_HINT = "give --images TASK=PLACE once a task, for instance --images cifar10=cifar10.npz"


def read_given(given: Sequence[str], tasks: Sequence[str]) -> dict[str, str]:
    """The place of each task's images; a place may be NAME=PLACE.

    Raises: RecipeError: no TASK=PLACE, a task the table has not, a task twice; missing places are
        told along with them. DataError: only places that are missing, or no data sets.
    """
    from lockforge.data.images import check_place
    from lockforge.data.roles import all_or_none, named

    parted = [text.partition("=") for text in given]
    faults = [
        f"{text!r} is no TASK=PLACE"
        for text, (task, _, place) in zip(given, parted, strict=True)
        if not (task and place)
    ]
    pairs = [(task, place) for task, _, place in parted if task and place]
    names = [task for task, _ in pairs]
    faults += [
        f"there is no task {name!r} in the table: {', '.join(tasks)}"
        for name in dict.fromkeys(names)
        if name not in tasks
    ]
    faults += [
        f"{name!r} is given {names.count(name)} times"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    try:
        all_or_none([partial(check_place, named(place).place) for _, place in pairs])
    except DataError as error:
        if not faults:
            raise
        faults += [error.message, *error.faults]
    if faults:
        raise RecipeError("--images cannot be used as given", faults=faults, hint=_HINT)
    return dict(pairs)


def embed_given(
    places: dict[str, str], space: str, runs: Path, device: str, terminal: "Terminal"
) -> "tuple[Known | None, dict[str, dict[str, Any]]]":
    """The embeddings for the rows that need them, and what each task's images are. A set that is
    not named like the task stands in for it.

    Raises: DataError: unreadable sets, or one set for two tasks. IntegrityError: embeddings the
        predictor cannot read.
    """
    if not places:
        return None, {}
    from lockforge import pipeline
    from lockforge.benchmark.embedded import know
    from lockforge.engine.device import set_threads
    from lockforge.recipe import read_recipe

    settings = read_recipe(RECIPE)
    do = pipeline.open_runs(settings, runs, device=device, reporter=terminal)
    embeddings = dict(
        zip(
            places,
            pipeline.embed(settings, list(places.values()), None, do, tell=terminal.tell),
            strict=True,
        )
    )
    shown = {
        task: {
            "set": _name(place),
            "stands_in": _name(place) != task,
            "images": embeddings[task].images,
            "samples": embeddings[task].samples,
            "probe": embeddings[task].probe,
            "definition": embeddings[task].definition,
        }
        for task, place in places.items()
    }
    set_threads(
        1
    )  # the rows ask many small questions; threads that wait for one another took ten times as long
    return know(space, embeddings, do.files), shown


def note_of(shown: Mapping[str, Mapping[str, Any]]) -> str:
    """Which sets stand in for which tasks; nothing where each task has its own.

    >>> note_of({"a": {"set": "b", "stands_in": True}, "c": {"set": "c", "stands_in": False}})
    'STANDS IN: images of b for those of a. What is said of embeddings holds for these images.'
    """
    pairs = [
        f"{images['set']} for those of {task}"
        for task, images in shown.items()
        if images["stands_in"]
    ]
    return (
        f"STANDS IN: images of {', '.join(pairs)}. What is said of embeddings holds for these "
        "images."
        if pairs
        else ""
    )


def _name(place: str) -> str:
    """What the set is called: as given, or as its file or folder is."""
    from lockforge.data.roles import named

    given = named(place)
    return Path(given.place).stem if given.name == "set" else given.name


def check_folder(folder: Path | None) -> None:
    """Refuse before the work what would be refused after it.

    Raises: ResourceError: there is a file of that name.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ResourceError(f"{folder} is no folder", hint="give --figures another name")
