"""Recipes: strict YAML, all faults at once, overrides with the same types, nothing that runs
code.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockforge.errors import RecipeError
from lockforge.recipe import (
    LARGEST_YAML,
    Recipe,
    explain,
    parse_yaml,
    read_recipe,
    shipped_recipes,
    template,
)


def written(folder: Path, text: str) -> str:
    """A recipe file with this text."""
    path = folder / "r.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_valid_and_its_first_line_says_hardware_and_time(name: str) -> None:
    """Somebody who opens a recipe reads first what it costs."""
    read_recipe(name)
    first = (Path(__file__).parent.parent / "recipes" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "CPU" in first or "H200" in first
    assert "minute" in first or "not timed" in first


def test_the_template_is_the_default_recipe_and_explains_every_key(tmp_path: Path) -> None:
    """`lockforge init` writes what the code would do anyway."""
    assert read_recipe(written(tmp_path, template())) == Recipe()
    assert all(text for _, text, _ in explain())


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    """Unknown keys and wrong types, in sections and on top."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(
            written(tmp_path, "sead: 1\nsearch: {stepz: 4, cosine: 2}\ntrain: {epochs: many}\n")
        )
    faults = "\n".join(caught.value.faults)
    assert all(word in faults for word in ("sead", "search.stepz", "search.cosine", "train.epochs"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("seed: 1\nseed: 2\n", "given before, on line 1"),
        ("search: {steps: 1, steps: 2}\n", "'steps'"),
        ("1: 2\n", "keys are words"),
        ("seed: !!python/object/apply:os.system [echo]\n", "not a recipe"),
        ("seed: [1\n", "not a recipe"),
        ("- 1\n", "a table of keys"),
        ("seed: 2020-01-01\n", "2020-01-01"),
        ("train: {learning_rate: .inf}\n", ".inf"),
        ("&a [*a]", "recipe"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(tmp_path: Path, text: str, word: str) -> None:
    """Duplicate keys, code, broken YAML, other kinds of value."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(tmp_path, text))
    assert word in str(caught.value)


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    """PyYAML alone reads 1e-3 as a word."""
    recipe = read_recipe(written(tmp_path, "train: {learning_rate: 1e-3, weight_decay: 5e-4}\n"))
    assert (recipe.train.learning_rate, recipe.train.weight_decay) == (0.001, 0.0005)


def test_a_section_keeps_the_defaults_of_what_is_not_named(tmp_path: Path) -> None:
    """Naming one key of `train` does not lose the default length; naming steps replaces epochs."""
    assert (
        read_recipe(written(tmp_path, "train: {learning_rate: 0.05}\n")).train.epochs
        == Recipe().train.epochs
    )
    recipe = read_recipe(written(tmp_path, "train: {steps: 7}\n"))
    assert (recipe.train.epochs, recipe.train.steps) == (None, 7)
    with pytest.raises(RecipeError, match="exactly one"):
        read_recipe(written(tmp_path, "train: {steps: 7, epochs: 1}\n"))


def test_overrides_have_the_recipes_types(tmp_path: Path) -> None:
    """--set goes through the same reader and the same checks."""
    path = written(tmp_path, "seed: 3\n")
    assert (
        read_recipe(
            path, ("search.steps=80", "search.shortlist.cells=2", "audit.images_per_class=[1, 0]")
        ).search.steps
        == 80
    )
    for override in ("search.steps=x", "search", "=1", "seed.a=1", "search..steps=1", "nothing=1"):
        with pytest.raises(RecipeError):
            read_recipe(path, (override,))


def test_a_recipe_that_is_not_there_says_which_there_are() -> None:
    """The hint names the shipped recipes."""
    with pytest.raises(RecipeError) as caught:
        read_recipe("digitz")
    assert "digits" in caught.value.hint


@given(st.text(max_size=200))
def test_any_text_is_a_value_or_a_recipe_error(text: str) -> None:
    """The reader never fails in another way."""
    try:
        outcome = type(parse_yaml(text, "fuzz")).__name__
    except RecipeError as error:
        outcome = f"exit code {error.exit_code}"
    assert outcome in {
        "exit code 2",
        "str",
        "int",
        "float",
        "bool",
        "NoneType",
        "list",
        "dict",
        "date",
        "datetime",
        "bytes",
        "set",
    }


BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "anchors and aliases"),
        ("seed: &seed 1", "anchors and aliases"),
        ("train: " + "[" * 40 + "]" * 40, "deep"),
        ("note: " + "x" * LARGEST_YAML, "characters"),
    ],
)
def test_yaml_that_grows_is_refused_before_it_does(text: str, reason: str) -> None:
    """A few hundred bytes of aliases would be more values than any memory holds."""
    with pytest.raises(RecipeError, match=reason):
        parse_yaml(text, "recipe.yaml")


def test_numbers_are_decimal_only() -> None:
    """YAML 1.1 reads 1:30 as ninety, 010 as eight and 2001-01-01 as a date; here they are text."""
    tree = parse_yaml(
        "a: 1:30\nb: 010\nc: 2001-01-01\nd: 12\ne: -3\nf: 1e-3\ng: 0\nh: 0.8\ni: -.5e1", "r.yaml"
    )
    assert tree == {
        "a": "1:30",
        "b": "010",
        "c": "2001-01-01",
        "d": 12,
        "e": -3,
        "f": 0.001,
        "g": 0,
        "h": 0.8,
        "i": -5.0,
    }
