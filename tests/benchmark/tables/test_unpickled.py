"""A pickle is read without being run: the values are pickle's own, what it would call is never
called, and every limit holds.
"""

import ast
import io
import pickle
import struct
import sys
import types
from collections import OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockforge.benchmark.tables import _stand_ins as stand_ins
from lockforge.benchmark.tables import _streams as streams
from lockforge.benchmark.tables import _unpickled as unpickled
from lockforge.benchmark.tables._stand_ins import StubObject
from lockforge.benchmark.tables._streams import Limits, Source
from lockforge.benchmark.tables._unpickled import read_pickle
from lockforge.errors import DataError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SMALL = Limits(total=2**20, instructions=2**16, memory=2**22, depth=32, stack=2**12, string=2**16)


def read(data: bytes, limits: Limits = SMALL, **options: Any) -> Any:
    """Read bytes as one pickle."""
    return read_pickle(Source(io.BytesIO(data), "it", limits), **options)


def text(value: str) -> bytes:
    """The instruction that pushes short text."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(max_size=80)
    | st.binary(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(
            st.text(max_size=3)
            | st.integers(0, 99)
            | st.tuples(st.text(max_size=2), st.integers(0, 9)),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back_as_pickle_gives_them(value: Any, protocol: int) -> None:
    """In every protocol; the standard library is the judge."""
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_other_kinds_come_back_as_plain_values(protocol: int) -> None:
    """Ordered and default dictionaries as dictionaries, sets, empty bytes, numpy's numbers as
    Python's, arrays as arrays.
    """
    default = defaultdict(list, {"a": [1]})
    given_ = [
        OrderedDict(a=1),
        default,
        {1, 2},
        frozenset({3}),
        b"",
        np.float64(1.5),
        np.float32(0.25),
        np.int64(-7),
        np.bool_(True),
    ]
    found = read(pickle.dumps(given_, protocol))
    assert found == [{"a": 1}, {"a": [1]}, {1, 2}, {3}, b"", 1.5, 0.25, -7, True]
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
    ]
    for array, held in zip(arrays, read(pickle.dumps(arrays, protocol)), strict=True):
        assert isinstance(held, StubObject)
        assert held.state.dtype == array.dtype
        assert np.array_equal(held.state, array)


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_of_official_classes_become_holders_without_behaviour(
    protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name and the state are kept; neither the class nor its `__setstate__` is ever asked."""
    module = types.ModuleType("nats_bench.api_utils")

    class ArchResults:
        def __setstate__(self, state: dict[str, Any]) -> None:
            raise AssertionError("the pickle was run")

    ArchResults.__module__, ArchResults.__qualname__ = module.__name__, "ArchResults"
    module.ArchResults = ArchResults  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nats_bench", types.ModuleType("nats_bench"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = ArchResults()
    made.__dict__.update(arch_index=3, dataset_seed={"cifar10": [777]})
    data = pickle.dumps(made, protocol)
    monkeypatch.undo()
    assert read(data) == StubObject(
        "ArchResults", (), {"arch_index": 3, "dataset_seed": {"cifar10": [777]}}
    )


def test_keys_and_ends_are_those_of_the_stream() -> None:
    """Two pickles in one stream are read one after the other."""
    source = Source(io.BytesIO(pickle.dumps([1]) + pickle.dumps({"b": 2})), "it", SMALL)
    assert (read_pickle(source), read_pickle(source), source.read(1)) == ([1], {"b": 2}, b"")


def test_a_fold_keeps_less_and_the_memory_is_given_back() -> None:
    """A thousand curves pass through a memory that would hold but a few, one curve in two places
    counts in both; without it they do not.
    """
    data = pickle.dumps([{"curve": [float(x) for x in range(100)]} for _ in range(1000)])
    limits = Limits(memory=2**20)
    assert read(data, limits, fold=lambda _key, value: value[-1]) == [{"curve": 99.0}] * 1000
    with pytest.raises(DataError, match="bytes of memory"):
        read(data, limits)
    curve = [1.0, 2.0]
    assert (
        read(pickle.dumps([{"curve": curve}, {"curve": curve}]), fold=lambda _key, value: value[-1])
        == [{"curve": 2.0}] * 2
    )


class Bomb:
    """What an attacker would pickle: it names any function and its arguments."""

    def __init__(self, function: Any, *parts: Any) -> None:
        self.call = function, parts

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_that_a_pickle_names_is_run(protocol: int, tmp_path: Path) -> None:
    """Neither a shell, nor `eval`, nor a file, nor an attribute; a file that each would leave
    behind is the witness.
    """
    import os

    witness = tmp_path / "witness"
    bombs = [
        Bomb(os.system, f"touch {witness}"),
        Bomb(eval, f"open({str(witness)!r}, 'w')"),
        Bomb(exec, f"open({str(witness)!r}, 'w')"),
        Bomb(open, str(witness), "w"),
        Bomb(getattr, "", "join"),
        Bomb(__import__, "antigravity"),
    ]
    for bomb in bombs:
        data = pickle.dumps([bomb], protocol)
        with pytest.raises(DataError, match="not on the list"):
            read(data)
        assert not witness.exists()
    pickle.loads(pickle.dumps(bombs[0], protocol))  # the witness can be left behind  # noqa: S301
    assert witness.exists()


HOSTILE = {
    "a global of another kind": (b"cos\nsystem\n.", "on the list"),
    "a path through an allowed module": (
        b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93.",
        "on the list",
    ),
    "a module below an allowed one": (
        b"\x80\x04" + text("torch") + text("hub.load") + b"\x93.",
        "on the list",
    ),
    "a name with a blank": (
        b"\x80\x04" + text("collections OrderedDict") + text("") + b"\x93.",
        "on the list",
    ),
    "a name that is a number": (b"K\x01K\x02\x93.", "used as a name"),
    "a name that is a list": (b"]]\x93.", "used as a name"),
    "an old instance": (b"(S'touch x'\nios\nsystem\n.", "not understood"),
    "an old instance of text": (b"(V touch x\nios\nsystem\n.", "on the list"),
    "an object of a global": (b"(cos\nsystem\nVtouch x\no.", "on the list"),
    "a call of a text": (text("print") + b")R.", "str is called"),
    "a call of a list": (b"])R.", "list is called"),
    "a call of a holder": (b"cargparse\nNamespace\n)R)R.", "StubObject is called"),
    "a call of a name that is only named": (b"cbuiltins\nlist\n)R.", "list is called"),
    "arguments that are a list": (b"ccollections\nOrderedDict\n]R.", "OrderedDict is called"),
    "keyword arguments": (
        b"ccollections\nOrderedDict\n)}" + text("a") + b"K\x01s\x92.",
        "keyword arguments",
    ),
    "a new object of a number": (b"K\x01)\x81.", "int is called"),
    "state for a global": (
        b"ccollections\nOrderedDict\n}" + text("__call__") + b"K\x01sb.",
        "Named is filled",
    ),
    "state for a list": (b"]}b.", "list is filled"),
    "state for a text": (text("a") + b"}b.", "str is filled"),
    "state for a plain dictionary": (b"}}b.", "dict is filled"),
    "an extension": (b"\x82\x01.", "not understood"),
    "a larger extension": (b"\x84\x01\x00\x00\x00.", "not understood"),
    "a persistent name": (b"P1\n.", "not understood"),
    "a persistent name on the stack": (text("storage") + b"Q.", "no storage of torch"),
    "a buffer from outside": (b"\x97.", "not understood"),
    "a default made of a call": (b"ccollections\ndefaultdict\n(cos\nsystem\ntR.", "on the list"),
    "an ordered dictionary made of pairs": (
        b"ccollections\nOrderedDict\n(]tR.",
        "made of something",
    ),
    "an array of objects": (
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(VO8\nI00\nI01\ntRB\x08\0\0\0AAAAAAAAtR.",
        "kind of number",
    ),
    "bytes in another coding": (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "no Latin text"),
    "a set of lists": (b"cbuiltins\nset\n(]]atR.", "no list of keys"),
    "an empty stack": (b"0.", "stack is empty"),
    "below a mark": (b"]K\x01(a.", "stack is empty"),
    "no mark": (b"]e.", "mark is missing"),
    "an odd number of items": (b"}(K\x01u.", "no value"),
    "an empty place of the memo": (b"h\x05.", "place 5 of the memo"),
    "a far place of the memo": (b"]r\xff\xff\xff\x7f.", "place 2147483647 of the memo"),
    "a place before the first": (b"]p-1\n.", "place -1 of the memo"),
    "a list as a key": (b"}]K\x01s.", "used as a key"),
    "a nested tuple as a key": (b"}K\x01\x85\x85K\x01s.", "used as a key"),
    "a holder as a key": (b"}cargparse\nNamespace\n)RK\x01s.", "used as a key"),
    "a list in a set": (b"\x8f(]\x90.", "used as a key"),
    "an integer whose hash can be chosen": (
        b"}\x8a\x09" + (2**61 - 1).to_bytes(9, "little") + b"K\x01s.",
        "used as a key",
    ),
    "an integer of a megabit": (
        b"\x8b" + struct.pack("<i", 2**15) + b"\x01" * 2**15 + b".",
        "bits",
    ),
    "a decimal without end": (b"L" + b"9" * 70000 + b"\n.", "no end"),
    "a decimal of many digits": (b"L" + b"9" * 5000 + b"L\n.", "digits"),
    "a string of a claimed size": (b"\x8d" + struct.pack("<Q", 2**62) + b"a.", "is claimed"),
    "bytes of a claimed size": (b"B" + struct.pack("<I", 2**31) + b"a.", "is claimed"),
    "text that is cut": (b"X" + struct.pack("<I", 100) + b"a", "is claimed"),
    "text that is no text": (b"X\x02\0\0\0\xff\xff.", "codec"),
    "a list in itself": (b"]2a.", "in itself"),
    "a dictionary in itself": (b"}q\0" + text("a") + b"h\0s.", "in itself"),
    "a list that grows after it was put away": (b"]q\0]q\1h\0ah\0K\x01a.", "cycle"),
    "a cycle of two": (b"]q\0]q\1h\0a0h\0h\1a.", "cycle"),
    "state that is its own holder": (b"cargparse\nNamespace\n)Rq\0h\0b.", "in itself"),
    "an unknown instruction": (b"\xff.", "not understood"),
    "an empty file": (b"", "cut short"),
    "no end": (b"K\x01", "cut short"),
}


@pytest.mark.parametrize(("data", "said"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_may_not_be_is_refused(data: bytes, said: str) -> None:
    """A DataError that names the file, the place and the reason."""
    with pytest.raises(DataError, match=f"^it cannot be read at byte .*{said}") as caught:
        read(data)
    assert "docs/benchmark.md" in caught.value.hint


BOMBS = {
    "lists in lists": (b"]" * 2000 + b"a" * 1999 + b".", "nested deeper"),
    "tuples in tuples": (b")" + b"\x85" * 2000 + b".", "nested deeper"),
    "a list around what is remembered": (b"]q\0" + b"]h\0aq\0" * 2000 + b".", "nested deeper"),
    "dictionaries in dictionaries": (b"}" + b"q\0}K\x01h\0s" * 2000 + b".", "nested deeper"),
    "states in states": (b"N" + b"q\0cargparse\nNamespace\n)Rh\0b" * 2000 + b".", "nested deeper"),
    "marks": (b"(" * 5000 + b".", "nested deeper"),
    "a stack without end": (b"N" * 5000 + b".", "wait on the stack"),
    "instructions without end": (b"N0" * 40000 + b".", "more than 65536 instructions"),
    "lists without end": (
        b"]q\0" + b"(" + b"]" * 2 + b"e" + b"(]]]]]]]]e" * 6000 + b".",
        "bytes of memory",
    ),
    "bytes made again and again": (
        b"c_codecs\nencode\nq\0(X"
        + struct.pack("<I", 60000)
        + b"a" * 60000
        + b"Vlatin1\ntq\1("
        + b"h\0h\1R" * 200
        + b"l.",
        "bytes of memory",
    ),
    "more than may be unpacked": (
        (b"B" + struct.pack("<I", 60000) + b"\0" * 60000 + b"0") * 20,
        "unpacks to more",
    ),
}


@pytest.mark.parametrize(("data", "said"), BOMBS.values(), ids=BOMBS.keys())
def test_every_limit_holds(data: bytes, said: str) -> None:
    """Nesting, stack, instructions, memory and bytes end where they should, and quickly."""
    with pytest.raises(DataError, match=said):
        read(data)


def test_shared_values_are_no_bomb() -> None:
    """Ten doublings of one list are a graph, read as one; as a key they are refused, because a hash
    would follow every path.
    """
    doubled = b"]q\0" + b"](h\0h\0eq\0" * 10
    found = read(doubled + b".")
    for _ in range(10):
        assert found[0] is found[1]
        found = found[0]
    with pytest.raises(DataError, match="used as a key"):
        read(b"}" + b")" + b"q\0h\0\x86" * 10 + b"K\x01s.")


def test_storages_of_torch_are_named_only_where_they_may_be() -> None:
    """A persistent name is refused outside torch's files, and any other than a storage's inside."""
    name = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ."
    )
    assert read(name, storages=True) == StubObject("torch storage", ())
    for data, storages in (
        (name, False),
        (b"(" + text("module") + b"tQ.", True),
        (text("storage") + b"Q.", True),
    ):
        with pytest.raises(DataError):
            read(data, storages=storages)


seeds = [
    pickle.dumps({"a": [1, 2.5, ("b", 3)], "c": {"d": b"e"}}, 2),
    pickle.dumps([OrderedDict(a=np.float64(1.0)), {1, 2}, np.arange(3.0)], 4),
    pickle.dumps({"x": np.int64(3), "y": [np.arange(2)]}, 0),
    b"cargparse\nNamespace\n)R}" + text("a") + b"K\x01sb.",
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(seeds),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), min_size=1, max_size=4),
    st.booleans(),
)
def test_damaged_pickles_are_read_or_refused(
    data: bytes, edits: list[tuple[int, bytes]], storages: bool
) -> None:
    """Whatever is put in their place, bytes give a value or a DataError."""
    for at, put in edits:
        data = data[: at % len(data)] + put + data[at % len(data) + len(put) // 2 :]
    with suppress(DataError):
        read(data, storages=storages)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(list(unpickled._STEPS))
        | st.sampled_from(seeds).map(lambda seed: seed[:-1])
        | st.binary(max_size=3),
        max_size=30,
    )
)
def test_instructions_in_any_order_are_read_or_refused(parts: list[bytes]) -> None:
    """Whole instructions, pieces of pickles and noise in any order give a value or a DataError."""
    with suppress(DataError):
        read(b"".join(parts) + b".")


def test_the_reader_has_no_means_to_run_anything() -> None:
    """It imports neither pickle nor importlib, and nowhere gets an attribute, a module or code by
    name; no stand-in has behaviour.
    """
    for module in (unpickled, stand_ins, streams):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        assert imported.isdisjoint(
            {"pickle", "_pickle", "importlib", "os", "sys", "subprocess", "builtins", "torch"}
        )
        called = {
            node.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert called.isdisjoint(
            {
                "getattr",
                "setattr",
                "eval",
                "exec",
                "compile",
                "open",
                "__import__",
                "globals",
                "vars",
                "type.__call__",
            }
        )
    made_here = {make.__module__ for make in stand_ins.GLOBALS.values() if make is not None}
    assert made_here == {stand_ins.__name__}
    assert not {name for name in vars(StubObject) if name.startswith("__")} & {
        "__call__",
        "__setstate__",
        "__reduce__",
        "__getattr__",
    }
