"""YAML -> frozen Recipe: everything that decides the outcome, and nothing else.

A recipe names values, never Python objects, so a stranger's recipe cannot run code. Unknown keys, wrong types and duplicate keys
are errors, all listed at once. Inputs (data, weights, keys) and runtime (device, folders) are arguments of the command instead.
"""

import re
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from lockforge.errors import RecipeError
from lockforge.records import Record, fault_lines

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Unit = Annotated[float, Field(ge=0, le=1)]


class FitRecipe(Record):
    """One training run: exactly one of `epochs` and `steps` says how long. `crop` is the padding of a random crop, in pixels."""

    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Rate = 0.1
    momentum: Unit = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: Unit = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    crop: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    precision: Literal["auto", "float32"] = "auto"
    select: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class DataRecipe(Record):
    """How pictures become tensors. `size`: side in pixels (none: the source's own); `channels`: none means the source's own."""

    size: Annotated[int, Field(ge=4, le=512)] | None = None
    channels: Literal[1, 3] | None = None
    val_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    test_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    limit_per_class: Positive | None = None
    overlap: Literal["error", "drop"] = "error"


class NetworkRecipe(Record):
    """The space and the macro skeleton. Published: nasbench201 16 channels, 5 cells a stage; transnas101 64 channels, 2 cells a module."""

    space: Literal["nasbench201", "transnas101"] = "nasbench201"
    stem_channels: Positive = 16
    cells_per_stage: Positive = 5


class EmbedRecipe(Record):
    """The task embedding: which probe, how many images, how its head is trained."""

    probe: Literal["packaged", "mobilenet_v2", "resnet18", "resnet34", "resnet50"] = "packaged"
    samples: Positive = 512
    head_steps: Positive = 300


class ShortlistRecipe(Record):
    """The measured finish: `cells` of the history trained briefly on the source, each for `fit`."""

    cells: Positive = 5
    fit: FitRecipe = FitRecipe(epochs=2)


class SearchRecipe(Record):
    """`scheme` none: TK when auxiliary sets are given, otherwise TU. Defaults are the authors' settings."""

    scheme: Literal["S", "TU", "TK"] | None = None
    population: Annotated[int, Field(ge=2)] = 10
    sample: Positive = 10
    history: Positive = 30
    steps: Annotated[int, Field(ge=0)] = 40
    source_weight: Annotated[float, Field(ge=0)] = 2.0
    simulated: Positive = 10
    cosine: Unit = 0.9
    construction: Literal["mixture", "isotropic"] = "mixture"
    shortlist: ShortlistRecipe = ShortlistRecipe()


class AuditRecipe(Record):
    """The thief's means. Every starting point gets this grid, this budget and this rule of choice. 0 images a class means all."""

    suite: Literal["quick"] = "quick"
    images_per_class: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2)] = (1, 2, 5, 10, 20, 50, 0)
    seeds: Annotated[int, Field(ge=2)] = 3
    steps: Positive = 100
    batch_size: Positive = 64
    fine_tune_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.003, 0.01, 0.03)
    probe_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.01, 0.1)


class ExportRecipe(Record):
    """What a release holds beside the weights and the report."""

    onnx: bool = True
    opset: Annotated[int, Field(ge=18, le=23)] = 20
    parity_samples: Positive = 16


class Recipe(Record):
    """Everything that decides the outcome of `protect`."""

    seed: Annotated[int, Field(ge=0)] = 0
    threads: Positive = 2
    data: DataRecipe = DataRecipe()
    network: NetworkRecipe = NetworkRecipe()
    embed: EmbedRecipe = EmbedRecipe()
    search: SearchRecipe = SearchRecipe()
    train: FitRecipe = FitRecipe(epochs=12)
    audit: AuditRecipe = AuditRecipe()
    export: ExportRecipe = ExportRecipe()


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number and refuses duplicate keys."""


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    faults = []
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            faults.append(f"line {key_node.start_mark.line + 1}: keys are words, not {key!r}")
            continue
        if key in seen:
            faults.append(f"line {key_node.start_mark.line + 1}: {key!r} was given before, on line {seen[key]}")
        seen.setdefault(key, key_node.start_mark.line + 1)
    if faults:
        raise RecipeError("the recipe's keys are not unique words", faults=faults, hint="keep one line for each key")
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


def parse_yaml(text: str, where: str) -> Any:
    """Strict YAML.

    Raises: RecipeError: no valid YAML, duplicate keys, or tags that name code.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  a SafeLoader subclass: it builds plain values only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise RecipeError(f"{place}: not a recipe: {getattr(error, 'problem', None) or first}", hint="see docs/recipes.md") from error


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = recipe_folder()
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def recipe_folder() -> Path:
    """Where the shipped recipes lie: inside an installed package, or `recipes/` of a checkout."""
    installed = Path(str(package_files("lockforge"))) / "recipes"
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "recipes"


def recipe_text(name: str) -> str:
    """The text of a recipe given by its name or by its path.

    Raises: RecipeError: neither a shipped name nor a readable file.
    """
    shipped = recipe_folder() / f"{name}.yaml"
    path = shipped if re.fullmatch(r"[A-Za-z0-9_-]+", name) and shipped.is_file() else Path(name)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(
            f"no recipe {name!r}: {error}",
            hint=f"give a YAML file or one of: {', '.join(shipped_recipes())}; `lockforge init` writes a template",
        ) from error


def read_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by name or path and apply `--set key.sub=value` overrides, with the same types.

    Raises: RecipeError: every fault at once.
    """
    tree = parse_yaml(recipe_text(name), name)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise RecipeError(f"{name}: a recipe is a table of keys, not {type(tree).__name__}", hint="`lockforge init` writes a template")
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate_json(_json(tree, name))
    except ValidationError as error:
        raise RecipeError(
            f"recipe {name!r} has {error.error_count()} fault(s)",
            faults=fault_lines(error),
            hint="`lockforge init` writes every key with its meaning",
        ) from error


def _json(tree: dict[str, Any], where: str) -> str:
    import json

    try:
        return json.dumps(tree, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{where}: a recipe holds numbers, words, lists and tables only: {error}", hint="quote dates and drop .inf and .nan"
        ) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set {override!r} is not KEY=VALUE", hint="for instance --set search.steps=80")
    here = tree
    for key in keys[:-1]:
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            raise RecipeError(
                f"--set {override!r}: {key!r} is a value, not a table", hint="name a key below a section, for instance train.epochs"
            )
    here[keys[-1]] = parse_yaml(text, f"--set {path}")
