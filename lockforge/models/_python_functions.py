"""Networks that a function of their owner's makes: `python:package.module:function`, given on the
command line of `protect` alone.

A record of such a network names the function and a digest of its code, so that a report says which
it was. Nothing is ever imported because a file, a recipe or a report names it: only what was given
to this very process is called.
"""

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from lockforge.errors import DataError, RecipeError
from lockforge.records import PYTHON

SPELLING = re.compile(r"python:([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Function(NamedTuple):
    call: Callable[[], Any]
    head: str | None


_given: dict[str, _Function] = {}  # by the name that records have; filled by `give` alone


def told(error: BaseException) -> str:
    """What an exception of such code says, on one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def give(text: str) -> str:
    """Import the function, remember it for this process, and say under which name records have it.

    Its module may say which layer is the head, by `HEAD = "fc"`; otherwise it is the last linear
    layer.

    Raises: RecipeError: not that spelling, no such module or function, or an import that fails.

    >>> SPELLING.fullmatch("python:shop.networks:build").groups()
    ('shop.networks', 'build')
    """
    spelt = SPELLING.fullmatch(text)
    if spelt is None:
        raise RecipeError(
            f"{text!r} names no function", hint="spell it python:package.module:function"
        )
    module_name, function_name = spelt.groups()
    try:
        module = importlib.import_module(module_name)
        source = inspect.getsource(module)
    except (*BROKEN, SyntaxError) as error:
        raise RecipeError(
            f"{module_name} cannot be imported: {told(error)}",
            hint="install the package, or run with PYTHONPATH=FOLDER that holds it",
        ) from error
    function, head = getattr(module, function_name, None), getattr(module, "HEAD", None)
    if not callable(function) or isinstance(function, nn.Module):
        raise RecipeError(
            f"{module_name} has no function {function_name!r}",
            hint="give a function without arguments that returns a network",
        )
    if head is not None and not isinstance(head, str):
        raise RecipeError(
            f"{module_name}.HEAD is {type(head).__name__}, not a name",
            hint='name the last linear layer, as in HEAD = "fc"',
        )
    name = f"{text}@{hashlib.sha256(source.encode()).hexdigest()[:12]}"
    _given[name] = _Function(function, head)
    return name


def call(name: str) -> tuple[nn.Module, str]:
    """A new network from a function that was given, on the CPU, and the name of its last linear
    layer.

    Raises: DataError: the function was not given to this process, fails, or gives no network with a
        linear layer.
    """
    found = _given.get(name)
    if found is None:
        raise DataError(
            f"{name} is made by a function of its owner's, which is never called because a file "
            "names it",
            hint=f"give it yourself: lockforge protect SOURCE --model {name.partition('@')[0]}",
        )
    try:
        made = found.call()
    except BROKEN as error:
        raise DataError(
            f"{name} failed: {told(error)}", hint="it is called without arguments"
        ) from error
    if not isinstance(made, nn.Module):
        raise DataError(
            f"{name} gave {type(made).__name__}, not a torch.nn.Module",
            hint="return the network itself",
        )
    linear = [path for path, part in made.named_modules() if isinstance(part, nn.Linear) and path]
    head = found.head if found.head is not None else (linear or [""])[-1]
    if head not in linear:
        raise DataError(
            f"{name} gave a network without a linear "
            f"layer{f' named {found.head}' if found.head else ''}",
            faults=[f"there is {path}" for path in linear[-8:]],
            hint=f'name its last linear layer in the module, as in HEAD = "fc"; {PYTHON}... '
            "needs a classifier",
        )
    return made, head
