"""All settings with a quarter of the budget, the best quarter again with all of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from torch import nn

from lockforge.audit._halving import halving
from lockforge.audit.protocol import Asking, Attempt, Budget, Setting, in_step

FULL = 40


@dataclass
class Runs:
    """Attempts whose accuracy at each number of steps is known, and the rounds that were run."""

    accuracy: Mapping[str, Mapping[int, float]]
    rounds: list[tuple[list[str], int]] = field(default_factory=list)

    def __call__(self, settings: Sequence[Setting], budget: Budget) -> Asking:
        """Steps count one operation each."""
        self.rounds.append(([name_of(one) for one in settings], budget.steps))
        yield []
        return [
            Attempt(
                one,
                nn.Identity(),
                self.accuracy[name_of(one)].get(budget.steps, 0.0),
                budget.steps,
                float(budget.steps),
            )
            for one in settings
        ]


def name_of(setting: Setting) -> str:
    """The setting's letter."""
    return str(dict(setting.also)["letter"])


def halve(accuracy: Mapping[str, Mapping[int, float]]) -> tuple[Runs, Sequence[Attempt]]:
    """The rounds and the attempts."""
    runs = Runs(accuracy)
    settings = [Setting("adam", 0.1, "own", (("letter", letter),)) for letter in accuracy]
    (attempts,) = in_step([halving(runs, settings, Budget(FULL, 8))], lambda _wanted: [])
    assert [one.setting for one in attempts] == settings
    return runs, attempts


def test_the_best_quarter_gets_the_whole_budget() -> None:
    """Of five settings two, by validation, in their own order; the others keep what a quarter
    gave.
    """
    runs, attempts = halve(
        {
            letter: {10: val, 40: 0.9}
            for letter, val in zip("abcde", (0.2, 0.6, 0.1, 0.7, 0.5), strict=True)
        }
    )
    assert runs.rounds == [(list("abcde"), 10), (["b", "d"], 40)]
    assert [one.val_accuracy for one in attempts] == [0.2, 0.9, 0.1, 0.9, 0.5]


def test_all_that_a_setting_spent_is_counted() -> None:
    """A quarter for each, and the whole budget besides for those that went on: steps and operations
    alike.
    """
    _, attempts = halve(
        {letter: {10: val} for letter, val in zip("abcd", (0.2, 0.6, 0.1, 0.3), strict=True)}
    )
    assert [(one.steps, one.operations) for one in attempts] == [
        (10, 10.0),
        (50, 50.0),
        (10, 10.0),
        (10, 10.0),
    ]


def test_of_equal_settings_the_first_by_name_goes_on() -> None:
    """Whatever the order in which they were given."""
    runs, _ = halve({letter: {10: 0.5} for letter in "dbca"})
    assert runs.rounds[1][0] == ["a"]


def test_the_thief_keeps_the_better_of_his_two_networks() -> None:
    """The short training's where the whole one did worse; the whole one's where they are equal."""
    _, worse = halve({"a": {10: 0.8, 40: 0.6}, "b": {10: 0.1}, "c": {10: 0.1}})
    assert (worse[0].val_accuracy, worse[0].steps) == (0.8, 50)
    again, first = (
        Attempt(worse[0].setting, nn.ReLU(), 0.5, 40, 40.0),
        Attempt(worse[0].setting, nn.Identity(), 0.5, 10, 10.0),
    )
    rest = [
        Attempt(Setting("adam", rate, "own"), nn.Identity(), 0.1, 10, 10.0) for rate in (0.2, 0.3)
    ]

    def equal(settings: Sequence[Setting], _budget: Budget) -> Asking:
        yield []
        return [again] if len(settings) == 1 else [first, *rest]

    (attempts,) = in_step(
        [halving(equal, [one.setting for one in (first, *rest)], Budget(FULL, 8))],
        lambda _wanted: [],
    )
    assert attempts[0].network is again.network


@pytest.mark.parametrize("letters", ["a", "ab"])
def test_one_or_two_settings_are_not_halved(letters: str) -> None:
    """Each gets the whole budget once."""
    runs, attempts = halve({letter: {40: 0.5} for letter in letters})
    assert runs.rounds == [(list(letters), 40)]
    assert [one.steps for one in attempts] == [40] * len(letters)


@pytest.mark.parametrize("count", [3, 4, 8, 9, 24])
def test_the_cost_depends_on_the_number_of_settings_alone(count: int) -> None:
    """Closed form: n quarters and ceil(n / 4) budgets, whatever validation says."""
    for turn in (1, -1):
        _, attempts = halve(
            {f"{i:02}": {10: (turn * i) % 7 / 10, 40: i / 30} for i in range(count)}
        )
        assert sum(one.steps for one in attempts) == count * 10 + -(-count // 4) * 40
