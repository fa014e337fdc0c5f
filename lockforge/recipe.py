"""YAML -> frozen Recipe: everything that decides the outcome, and nothing else.

A recipe names values, never Python objects, so a stranger's recipe cannot run code. Unknown keys,
wrong types and duplicate keys are errors, all listed at once. Inputs (data, weights, keys) and
runtime (device, folders) are arguments of the command instead.
"""

import re
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from lockforge.errors import RecipeError
from lockforge.records import Record, fault_lines


def says(text: str) -> Any:
    """What a recipe key means, in a few words: the template and the docs are written from it."""
    return Field(description=text)


Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Unit = Annotated[float, Field(ge=0, le=1)]


class FitRecipe(Record):
    """One training run: exactly one of `epochs` and `steps` says how long."""

    epochs: Annotated[Positive | None, says("passes over the data; give this or steps")] = None
    steps: Annotated[Positive | None, says("optimiser steps; give this or epochs")] = None
    batch_size: Annotated[Positive, says("images a step")] = 128
    optimizer: Annotated[Literal["sgd", "adam"], says("sgd (Nesterov) or adam")] = "sgd"
    learning_rate: Annotated[Rate, says("the highest of the schedule")] = 0.1
    momentum: Annotated[Unit, says("of sgd")] = 0.9
    weight_decay: Annotated[float, Field(ge=0), says("L2 penalty")] = 5e-4
    schedule: Annotated[Literal["cosine", "constant"], says("cosine (to zero) or constant")] = (
        "cosine"
    )
    warmup: Annotated[Unit, says("share of the run in which the rate rises from zero")] = 0.0
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1), says("share of the label given to all classes")
    ] = 0.0
    crop: Annotated[int, Field(ge=0), says("padding of a random crop, in pixels")] = 0
    flip: Annotated[bool, says("mirror half of the images; off for digits")] = False
    balance: Annotated[
        Unit,
        says(
            "0: every image as often as it is there; 1: every class as often as any other; "
            "between: a compromise"
        ),
    ] = 0.0
    precision: Annotated[
        Literal["auto", "float32"], says("auto is bfloat16 autocast on CUDA, float32 on the CPU")
    ] = "auto"
    select: Annotated[
        Literal["best", "last"], says("which weights are kept: best by validation, or last")
    ] = "best"

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        return self


class TrainRecipe(FitRecipe):
    """The training of release and reference, which several processes may share."""

    processes: Annotated[
        Positive,
        says(
            "each has a part of every batch and its own batch norm statistics; on CUDA a device "
            "each; changes the outcome"
        ),
    ] = 1

    @model_validator(mode="after")
    def _a_part_for_each(self) -> Self:
        if self.processes > self.batch_size:
            raise ValueError(
                f"{self.processes} processes cannot share batches of {self.batch_size}"
            )
        return self


class DataRecipe(Record):
    """How images become tensors."""

    size: Annotated[
        Annotated[int, Field(ge=4, le=512)] | None, says("side in pixels; none is the source's own")
    ] = None
    channels: Annotated[
        Literal[1, 3] | None, says("1 grey, 3 colour; none is the source's own")
    ] = None
    val_share: Annotated[
        float, Field(gt=0, lt=0.5), says("of the training images, where no val split is given")
    ] = 0.2
    test_share: Annotated[
        float, Field(gt=0, lt=0.5), says("of all images, where no test split is given")
    ] = 0.2
    limit_per_class: Annotated[
        Positive | None, says("at most so many images a class in each split; none is all")
    ] = None
    skip_unreadable: Annotated[
        bool, says("leave out images that cannot be read, and count them, instead of stopping")
    ] = False
    overlap: Annotated[
        Literal["error", "drop"],
        says(
            "a target image that is also in source or auxiliary: stop, or drop it there and say so"
        ),
    ] = "error"


class NetworkRecipe(Record):
    """The space and the macro skeleton. Published: nasbench201 16 channels, 5 cells a stage;
    transnas101 64 channels, 2 cells a module.
    """

    space: Annotated[Literal["nasbench201", "transnas101"], says("the cells to choose among")] = (
        "nasbench201"
    )
    stem_channels: Annotated[Positive, says("width of the first layer; published 16 and 64")] = 16
    cells_per_stage: Annotated[
        Positive, says("cells between two reductions; published 5 and 2")
    ] = 5


class EmbedRecipe(Record):
    """The task embedding."""

    probe: Annotated[
        Literal["packaged", "mobilenet_v2", "resnet18", "resnet34", "resnet50"],
        says("the network whose Fisher information is taken; all but packaged need --probe FILE"),
    ] = "packaged"
    samples: Annotated[Positive, says("training images used")] = 512
    head_steps: Annotated[Positive, says("steps that train the probe's head")] = 300


class ShortlistRecipe(Record):
    """The measured finish of the search: the best candidates are trained briefly on the source."""

    cells: Annotated[
        Positive,
        says("candidates of each list that are trained: the lock's, and the one without a lock"),
    ] = 6
    rounds: Annotated[
        Positive, says("after each but the last, the better half goes on with twice the training")
    ] = 2
    fit: Annotated[FitRecipe, says("how each is trained in the first round")] = FitRecipe(epochs=2)


class SearchRecipe(Record):
    """ArchLock. Population to cosine are the authors' settings; recipe archlock-paper has all of
    them.
    """

    scheme: Annotated[
        Literal["S", "TU", "TK"] | None,
        says(
            "S source only, TU target unknown, TK auxiliary known; none is TK with auxiliary "
            "sets, else TU"
        ),
    ] = None
    method: Annotated[
        Literal["exhaustive", "evolution", "measured"],
        says(
            "measured: short trainings; exhaustive: rank the whole space by the predictor; "
            "evolution: the paper's; all end in a short list"
        ),
    ] = "measured"
    panel: Annotated[
        int, Field(ge=2), says("cells that every cell is held against, of method exhaustive")
    ] = 256
    poor: Annotated[
        Literal["general", "simulated"],
        says(
            "where TU is to be poor, of method exhaustive: in general (short trainings on other "
            "data), or on made-up embeddings"
        ),
    ] = "general"
    over: Annotated[
        Literal["mean", "worst"],
        says(
            "several known targets: their mean, or the one on which a cell does best; evolution "
            "ranks by the mean"
        ),
    ] = "mean"
    guard: Annotated[
        Unit, says("source accuracy that the lock may cost: under the best cell measured")
    ] = 0.02
    measurements: Annotated[
        int,
        Field(ge=2),
        says("cells trained on the source, and on each auxiliary set, of method measured"),
    ] = 32
    population: Annotated[int, Field(ge=2), says("cells alive at once")] = 10
    sample: Annotated[Positive, says("cells drawn for a tournament, with replacement")] = 10
    history: Annotated[Positive, says("best cells remembered")] = 30
    steps: Annotated[int, Field(ge=0), says("mutations")] = 40
    source_weight: Annotated[
        float, Field(ge=0), says("lambda in f = target rank - lambda * source rank")
    ] = 2.0
    simulated: Annotated[Positive, says("target embeddings to make up in TU")] = 10
    cosine: Annotated[Unit, says("their similarity to the source's embedding")] = 0.9
    construction: Annotated[
        Literal["mixture", "isotropic"],
        says("mixture of real tasks (non-negative), or the paper's isotropic direction"),
    ] = "mixture"
    shortlist: Annotated[ShortlistRecipe, says("the measured finish")] = ShortlistRecipe()


class PruneRecipe(Record):
    """The weight lock. Names and values as in the paper on non-transferable pruning
    (arXiv:2410.08015), but for the defaults.
    """

    method: Annotated[
        Literal["none", "magnitude", "ntp"],
        says(
            "none: no weight lock; magnitude: the smallest weights; ntp: non-transferable pruning"
        ),
    ] = "none"
    sparsity: Annotated[
        float, Field(gt=0, lt=1), says("share of the prunable weights that end as zeros")
    ] = 0.9
    scope: Annotated[
        Literal["layer", "global"],
        says("the same share of every layer, or the smallest weights of all layers"),
    ] = "layer"
    projection: Annotated[
        Literal["exact", "soft"],
        says(
            "the Z step: keep the largest weights, to a sparsity that rises; or the paper's soft "
            "threshold"
        ),
    ] = "exact"
    rho: Annotated[
        Rate, says("weight of the squared distance between weights and their sparse copy")
    ] = 0.005
    shrink: Annotated[Rate, says("weight of |Z|_1 in a soft threshold of shrink / rho")] = 1e-4
    alpha: Annotated[
        float,
        Field(ge=0),
        says("weight of the auxiliary sets' cross-entropy, which is driven up; published 1"),
    ] = 0.1
    bound: Annotated[Rate, says("nats above which it is driven up no more; published 10")] = 3.0
    away: Annotated[
        Literal["ce", "mmd"],
        says("what is driven up: the cross-entropy, or that times the distance of features (MMD)"),
    ] = "ce"
    fisher: Annotated[
        float,
        Field(ge=0),
        says(
            "lambda: weight of the scatter between the auxiliary classes as a share of that within"
        ),
    ] = 1.0
    over: Annotated[
        Literal["mean", "worst"],
        says("several auxiliary sets: their mean, or the one locked least"),
    ] = "mean"
    rounds: Annotated[Positive, says("of a W, a Z and a dual step; the last mask is kept")] = 8
    fit: Annotated[FitRecipe, says("the W step of one round")] = FitRecipe(
        steps=50,
        batch_size=64,
        optimizer="adam",
        learning_rate=1e-3,
        weight_decay=8e-4,
        schedule="constant",
        select="last",
    )
    recovery: Annotated[
        FitRecipe, says("after the rounds, with the masks fixed and the lock's terms kept")
    ] = FitRecipe(
        steps=1200,
        batch_size=64,
        optimizer="adam",
        learning_rate=3e-3,
        weight_decay=8e-4,
        select="last",
    )
    max_source_drop: Annotated[
        Unit, says("source accuracy, on validation, that the lock may cost before it is refused")
    ] = 0.02
    bisection: Annotated[
        int,
        Field(ge=0),
        says("lower sparsities to try where the lock costs more than that; the highest that holds"),
    ] = 0
    structured: Annotated[
        bool, says("remove whole filters: the network itself becomes smaller")
    ] = False


class AuditRecipe(Record):
    """The thief's means: every starting point gets this grid, this budget and this rule of
    choice.
    """

    suite: Annotated[
        Literal["quick", "paper", "standard", "full"],
        says("which attackers; quick is indicative only, paper only for comparison"),
    ] = "quick"
    images_per_class: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=2),
        says("how many images a class the thief has; 0 is all"),
    ] = (1, 2, 5, 10, 20, 50, 0)
    fractions: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], ...],
        says("of the thief's training images, instead of images a class; empty: not used"),
    ] = ()
    seeds: Annotated[
        int, Field(ge=2), says("repetitions: each redraws subset, split and initialisation")
    ] = 3
    steps: Annotated[
        Positive | None,
        says("optimiser steps of each setting of an attacker; none is the suite's own number"),
    ] = None
    probe_steps: Annotated[
        Positive, says("steps of a linear probe's head; none of them passes through the network")
    ] = 100
    batch_size: Annotated[Positive, says("images a step")] = 64
    fine_tune_rates: Annotated[
        tuple[Rate, ...],
        Field(min_length=1),
        says("Adam's learning rates, fine-tuning and from scratch"),
    ] = (0.01,)
    fine_tune_sgd_rates: Annotated[tuple[Rate, ...], says("the same for SGD; may be empty")] = (
        0.3,
    )
    probe_rates: Annotated[
        tuple[Rate, ...], Field(min_length=1), says("learning rates tried for the linear probe")
    ] = (0.1,)
    rates: Annotated[
        tuple[Rate, ...],
        Field(min_length=1),
        says("Adam's learning rates in the suites beyond quick"),
    ] = (0.001, 0.003, 0.01)
    sgd_rates: Annotated[tuple[Rate, ...], says("the same for SGD; may be empty")] = (
        0.03,
        0.1,
        0.3,
    )


class ExportRecipe(Record):
    """What a release holds beside the weights and the report."""

    onnx: Annotated[bool, says("write model.onnx and compare it with the weights")] = True
    opset: Annotated[int, Field(ge=18, le=23), says("of the ONNX file")] = 20
    parity_samples: Annotated[Positive, says("seeded random inputs for that comparison")] = 16
    int8: Annotated[
        bool, says("write model.int8.onnx too, calibrated on the source, and measure its accuracy")
    ] = False

    @model_validator(mode="after")
    def _int8_is_made_of_onnx(self) -> Self:
        if self.int8 and not self.onnx:
            raise ValueError("int8 is made of the ONNX file: it needs onnx: true")
        return self


class Recipe(Record):
    """Everything that decides the outcome of `protect`."""

    seed: Annotated[int, Field(ge=0), says("every random draw follows from it")] = 0
    threads: Annotated[Positive, says("CPU threads; another number may change the last digits")] = 2
    data: Annotated[DataRecipe, says("how images become tensors")] = DataRecipe()
    network: Annotated[NetworkRecipe, says("the space of cells and the skeleton around them")] = (
        NetworkRecipe()
    )
    embed: Annotated[EmbedRecipe, says("the task embedding")] = EmbedRecipe()
    search: Annotated[SearchRecipe, says("the architecture lock")] = SearchRecipe()
    train: Annotated[TrainRecipe, says("how release and reference are trained")] = TrainRecipe(
        epochs=12
    )
    prune: Annotated[PruneRecipe, says("the weight lock")] = PruneRecipe()
    audit: Annotated[AuditRecipe, says("the thief's means")] = AuditRecipe()
    export: Annotated[ExportRecipe, says("what a release holds")] = ExportRecipe()


LARGEST_YAML = 2**17  # bytes; a recipe has about a fiftieth of it
_DEEPEST_YAML = 20


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-3 as a number and refuses duplicate keys, anchors and deep nesting.

    A few lines of aliases stand for more values than any memory holds.
    """

    # Without these: 1:30 is base 60, 010 is base 8 and 2001-01-01 a date in YAML 1.1.
    yaml_implicit_resolvers = {  # noqa: RUF012  as PyYAML declares it
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.split(":")[-1] not in {"int", "float", "timestamp", "merge"}
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, unless it is or has an anchor, or lies too deep."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not read here", event.start_mark
            )
        self.depth += 1
        if self.depth > _DEEPEST_YAML:
            raise yaml.constructor.ConstructorError(
                None, None, f"nested more than {_DEEPEST_YAML} deep", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
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
            faults.append(
                f"line {key_node.start_mark.line + 1}: {key!r} was given before, on line "
                f"{seen[key]}"
            )
        seen.setdefault(key, key_node.start_mark.line + 1)
    if faults:
        raise RecipeError(
            "the keys are not unique words", faults=faults, hint="keep one line for each key"
        )
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


_PAGES = {"recipe": "recipes.md", "policy": "gate.md"}


def parse_yaml(text: str, where: str, what: str = "recipe") -> Any:
    """Strict YAML.

    Args: where, what: the file and its kind, for messages.
    Raises: RecipeError: no valid YAML, duplicate keys, or tags that name code.
    """
    if len(text) > LARGEST_YAML:
        raise RecipeError(
            f"{where}: {len(text)} characters, and a {what} may have {LARGEST_YAML}",
            hint=f"see docs/{_PAGES[what]}",
        )
    try:
        # A SafeLoader subclass builds plain values only.
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  it is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise RecipeError(
            f"{place}: not a {what}: {getattr(error, 'problem', None) or first}",
            hint=f"see docs/{_PAGES[what]}",
        ) from error


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = recipe_folder()
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def recipe_folder() -> Path:
    """Where the shipped recipes lie: inside an installed package, or `recipes/` of a checkout."""
    installed = Path(str(package_files("lockforge"))) / "recipes"
    return installed if installed.is_dir() else Path(__file__).resolve().parent.parent / "recipes"


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file.

    Raises: OSError, UnicodeDecodeError: it cannot be read. RecipeError: it is too large.
    """
    with path.open("rb") as file:
        data = file.read(LARGEST_YAML + 1)
    if len(data) > LARGEST_YAML:
        raise RecipeError(
            f"{path} has more than {LARGEST_YAML} bytes", hint="a recipe or policy is a short text"
        )
    return data.decode("utf-8")


def recipe_text(name: str) -> str:
    """The text of a recipe given by its name or by its path.

    Raises: RecipeError: neither a shipped name nor a readable file.
    """
    shipped = recipe_folder() / f"{name}.yaml"
    path = shipped if re.fullmatch(r"[A-Za-z0-9_-]+", name) and shipped.is_file() else Path(name)
    try:
        return read_yaml_text(path)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise RecipeError(
            f"no recipe {name!r}: {error}",
            hint=f"give a YAML file or one of: {', '.join(shipped_recipes())}; `lockforge init` "
            "writes a template",
        ) from error


def read_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by name or path and apply `--set key.sub=value` overrides, with the same types.

    Raises: RecipeError: every fault at once.
    """
    tree = parse_yaml(recipe_text(name), name)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{name}: a recipe is a table of keys, not {type(tree).__name__}",
            hint="`lockforge init` writes a template",
        )
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate_json(_json(_over_defaults(Recipe(), tree), name))
    except ValidationError as error:
        raise RecipeError(
            f"recipe {name!r} has {error.error_count()} fault(s)",
            faults=fault_lines(error),
            hint="`lockforge init` writes every key with its meaning",
        ) from error


def _over_defaults(defaults: Record, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, laid over the section's own defaults, so that `train: {learning_rate: 0.05}`
    keeps the default epochs.
    """
    merged = defaults.model_dump(mode="json")
    if "epochs" in merged and (given.get("epochs") or given.get("steps")):
        merged |= {"epochs": None, "steps": None}
    for key, value in given.items():
        default = getattr(defaults, key, None) if key in merged else None
        merged[key] = (
            _over_defaults(default, value)
            if isinstance(default, Record) and isinstance(value, dict)
            else value
        )
    return merged


def _json(tree: dict[str, Any], where: str) -> str:
    import json

    try:
        return json.dumps(tree, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{where}: a recipe holds numbers, words, lists and tables only: {error}",
            hint="quote dates and drop .inf and .nan",
        ) from error


def _apply(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(
            f"--set {override!r} is not KEY=VALUE", hint="for instance --set search.steps=80"
        )
    here = tree
    for key in keys[:-1]:
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            raise RecipeError(
                f"--set {override!r}: {key!r} is a value, not a table",
                hint="name a key below a section, for instance train.epochs",
            )
    here[keys[-1]] = parse_yaml(text, f"--set {path}")


def explain(kind: type[Record] = Recipe, prefix: str = "") -> tuple[tuple[str, str, Any], ...]:
    """Every key of a recipe in order: (dotted key, meaning, default); a section's default is the
    section itself.
    """
    rows: list[tuple[str, str, Any]] = []
    for name, field in kind.model_fields.items():
        rows.append((prefix + name, field.description or "", field.default))
        if isinstance(field.default, Record):
            rows += [
                (key, text, _at(field.default, key, prefix + name))
                for key, text, _ in explain(type(field.default), f"{prefix}{name}.")
            ]
    return tuple(rows)


def _at(section: Record, key: str, prefix: str) -> Any:
    value: Any = section
    for part in key.removeprefix(prefix + ".").split("."):
        value = getattr(value, part)
    return value


def template() -> str:
    """A recipe with every key, its default and its meaning, as `lockforge init` writes it."""
    lines = [
        (
            "# A LockForge recipe: every key with its default. Delete what you do not change. Run: "
            "lockforge protect SOURCE --recipe THIS_FILE"
        )
    ]
    for key, text, default in explain():
        depth = key.count(".")
        name = "  " * depth + key.rsplit(".", 1)[-1]
        if isinstance(default, Record):
            lines.append(f"{name}:  # {text}")
        else:
            value = (
                yaml.safe_dump(
                    list(default) if isinstance(default, tuple) else default,
                    default_flow_style=True,
                )
                .removesuffix("\n...\n")
                .strip()
            )
            lines.append(f"{name}: {value}  # {text}")
    return "\n".join(lines) + "\n"


def to_yaml(recipe: Recipe) -> str:
    """A whole recipe as YAML that `read_recipe` reads back to the same."""
    text: str = yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100
    )
    return text
