"""What stands for the globals that an official benchmark file may name: plain values and
`StubObject`, made by functions of this file.

Nothing here is looked up by a name from a file but in `GLOBALS` and `STATES`; every function raises
ValueError on parts it does not know.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_KEY = 2**31  # integers: the hashes of larger ones can be made to collide
_NUMBERS = re.compile(r"f[248]|[iu][1248]|b1")
_SIDES = 8


class Ordered(dict[Any, Any]):
    """What stands for collections.OrderedDict; its attributes (weights carry some) are not kept."""


@dataclass(slots=True)
class StubObject:
    """What stands for an object of an allowed class: its name, what it was made with, and its
    state; no behaviour.
    """

    name: str
    made_with: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, slots=True)
class Named:
    """What stands for an allowed global: its name, and our function that is called in its place;
    none, where it is only ever named.
    """

    name: str
    make: Callable[[tuple[Any, ...]], Any] | None


NESTING = frozenset({list, dict, Ordered, tuple, StubObject})
KEYS = frozenset({str, bytes, int, bool, type(None)})


def fit_for_key(value: Any) -> bool:
    """Whether a value may be a key: flat, and no large integer.

    >>> fit_for_key(("cifar10", 777)), fit_for_key(((1,),)), fit_for_key(2**61)
    (True, False, False)
    """
    parts = value if type(value) is tuple and len(value) <= _SIDES else (value,)
    return all(
        type(part) in KEYS and (type(part) is not int or abs(part) < LARGEST_KEY) for part in parts
    )


def size_of(made: Any) -> int:
    """Bytes of memory that a value has by itself, by estimate; what it was made of is counted
    elsewhere.

    >>> size_of(b"four"), size_of({1, 2}), size_of(2.5)
    (4, 200, 0)
    """
    if isinstance(made, StubObject):
        return size_of(made.state)
    if isinstance(made, np.ndarray):
        return int(made.nbytes)
    return len(made) * (100 if isinstance(made, set) else 1) if isinstance(made, bytes | set) else 0


def _hold_as(name: str) -> Callable[[tuple[Any, ...]], StubObject]:
    return lambda parts: StubObject(name, parts)


def _forget_as(name: str) -> Callable[[tuple[Any, ...]], StubObject]:
    return lambda _parts: StubObject(name, ())


def _dictionary(parts: tuple[Any, ...]) -> Ordered:
    if len(parts) > 1 or (parts and not (parts[0] is None or type(parts[0]) is Named)):
        raise ValueError("a dictionary is made of something")
    return Ordered()


def _set(parts: tuple[Any, ...]) -> set[Any]:
    match parts:
        case ():
            return set()
        case (list(members),) if all(fit_for_key(member) for member in members):
            return set(members)
    raise ValueError("a set is made of something that is no list of keys")


def _bytes(parts: tuple[Any, ...]) -> bytes:
    match parts:
        case ():
            return b""
        case (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1")
    raise ValueError("bytes are made of something that is no Latin text")


def _size(parts: tuple[Any, ...]) -> tuple[int, ...]:
    match parts:
        case (tuple(sides),) if len(sides) <= _SIDES and all(type(side) is int for side in sides):
            return sides
    raise ValueError("a size is made of something that is no sides")


def _kind(held: Any) -> "np.dtype[Any]":
    match held:
        case StubObject("numpy dtype", (str(code), *_), order) if _NUMBERS.fullmatch(
            code
        ) and order in {
            None,
            "<",
            ">",
            "|",
            "=",
        }:
            return np.dtype((order or "") + code)
    raise ValueError("an array's kind of number is not understood")


def _order(state: Any) -> str:
    match state:
        case (int(), str(order), *_) if order in {"<", ">", "|", "="}:
            return order
    raise ValueError("a kind of number is not understood")


def _scalar(parts: tuple[Any, ...]) -> float | int | bool:
    match parts:
        case (kind, bytes(data)):
            dtype = _kind(kind)
            if len(data) == dtype.itemsize:
                number: float | int | bool = np.frombuffer(data, dtype)[0].item()
                return number
    raise ValueError("a numpy number is not understood")


def _numbers(data: Any, kind: Any, shape: Any, *, fortran: bool) -> "np.ndarray[Any, Any]":
    dtype = _kind(kind)
    if type(data) not in {bytes, bytearray} or type(shape) is not tuple or len(shape) > _SIDES:
        raise ValueError("an array is not understood")
    if any(type(side) is not int or side < 1 for side in shape) or math.prod(
        shape
    ) * dtype.itemsize != len(data):
        raise ValueError("an array's shape and its bytes do not fit")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order="F" if fortran else "C")


def _array(state: Any) -> "np.ndarray[Any, Any]":
    match state:
        case (int(), shape, kind, bool(fortran), data):
            return _numbers(data, kind, shape, fortran=fortran)
    raise ValueError("an array's state is not understood")


def _array_of_bytes(parts: tuple[Any, ...]) -> StubObject:
    match parts:
        case (data, kind, shape, "C" | "F" as order):
            return StubObject(
                "numpy ndarray", (), _numbers(data, kind, shape, fortran=order == "F")
            )
    raise ValueError("an array is not understood")


STATES: Mapping[str, Callable[[Any], Any]] = {"numpy ndarray": _array, "numpy dtype": _order}
_KINDS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
GLOBALS: Mapping[str, Callable[[tuple[Any, ...]], Any] | None] = {
    "collections OrderedDict": _dictionary,
    "collections defaultdict": _dictionary,
    **{
        f"{module} {name}": None
        for module in ("builtins", "__builtin__")
        for name in ("dict", "list", "int", "float", "str")
    },
    **{
        f"{module} {name}": _set
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset")
    },
    **{f"{module} bytes": _bytes for module in ("builtins", "__builtin__")},
    "_codecs encode": _bytes,
    "numpy ndarray": None,
    "numpy dtype": _hold_as("numpy dtype"),
    **{f"numpy.{core}.multiarray scalar": _scalar for core in ("core", "_core")},
    **{
        f"numpy.{core}.multiarray _reconstruct": _forget_as("numpy ndarray")
        for core in ("core", "_core")
    },
    **{f"numpy.{core}.numeric _frombuffer": _array_of_bytes for core in ("core", "_core")},
    "torch Size": _size,
    "torch device": _forget_as("torch device"),
    **{f"torch {kind}Storage": None for kind in _KINDS},
    **{f"torch.storage {name}": None for name in ("UntypedStorage", "TypedStorage")},
    "torch.storage _load_from_bytes": _forget_as("torch storage"),
    **{
        f"torch._utils {name}": _forget_as("torch Tensor")
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
    },
    "argparse Namespace": _hold_as("argparse Namespace"),
    **{
        f"pathlib {name}": _forget_as("pathlib Path")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")
    },
    **{
        f"{module} {name}": _hold_as(name)
        for module in (
            "nats_bench.api_utils",
            "nas_201_api.api_utils",
            "nas_201_api.api_201",
            "nas_201_api.api",
        )
        for name in ("ArchResults", "ResultsCount")
    },
    "api.api ArchResult": _hold_as("ArchResult"),
}
