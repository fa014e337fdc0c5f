"""Read a pickle without running it. A locked door: only the importers of tables and tests open it.

A pickle is a program for a small stack machine whose instructions may call anything that can be
imported. This machine knows the same instructions and imports nothing: a global is looked up in
`GLOBALS`, and what stands there is a function of this file that makes plain values or a
`StubObject`. Every other name is refused before anything is made of it. State is only ever kept on
a `StubObject`, never set as attributes. Bounded: bytes, instructions, the estimated memory, the
stack, nesting, the size of one string, what may be a key of a dictionary (no deep tuples, whose
hash takes exponential time, no huge integers, whose hashes can be made to collide).

Differs from pickle: a container may not be changed once it lies in another, so that cycles are
refused and nesting is known; memo places are taken in order, as every pickler does; `fold` may keep
less than the file holds, because learning curves of a whole benchmark do not fit in ordinary
memory.
"""

import pickletools
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any

from lockforge.benchmark.tables._stand_ins import (
    GLOBALS,
    NESTING,
    STATES,
    Named,
    Ordered,
    StubObject,
    fit_for_key,
    size_of,
)
from lockforge.benchmark.tables._streams import HINT, Source
from lockforge.errors import DataError

Fold = Callable[
    [str, Any], Any
]  # (key, list or dict) as it enters a dictionary -> the same, or what to keep in its stead

_CONTAINER, _ITEM, _PLACE = 64, 100, 16  # bytes of memory, by estimate
_SHORT = 64  # texts up to here are kept once
_INTEGER = 512  # bits


def read_pickle(source: Source, *, fold: Fold | None = None, storages: bool = False) -> Any:
    """One pickle, up to its end mark; what follows is left in the source.

    Args: fold: keeps less than there is. storages: whether torch's persistent names of storages may
        occur.
    Returns: None, numbers, text, bytes, lists, tuples, sets, dictionaries, numpy arrays in a
        `StubObject`, other `StubObject` and `Named`.
    Raises: DataError: damaged, cut short, beyond a limit, or it names what is not on the list.

    >>> import io, pickle
    >>> from lockforge.benchmark.tables._streams import Limits
    >>> read_pickle(Source(io.BytesIO(pickle.dumps({"a": [1, 2.5]})), "example", Limits()))
    {'a': [1, 2.5]}
    >>> try:
    ...     read_pickle(Source(io.BytesIO(pickle.dumps(print)), "example", Limits()))
    ... except DataError as error:
    ...     print(error.message)
    example cannot be read at byte 31: it names 'builtins print', which is not on the list of what
    may occur
    """
    machine = _Machine(source, fold, storages=storages)
    try:
        return machine.run()
    except (
        ValueError,
        struct.error,
        EOFError,
        OSError,
    ) as error:  # text that is no text, numbers that are none, a stream that ends
        raise DataError(
            f"{source.name} cannot be read at byte {source.taken}: {str(error)[:200]}", hint=HINT
        ) from error


class _Machine:
    """The stack machine of one pickle."""

    def __init__(self, source: Source, fold: Fold | None, *, storages: bool) -> None:
        self.source = source
        self.limits = source.limits
        self.fold = fold
        self.storages = storages
        self.room = source.limits.memory
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.texts: dict[str, str] = {}
        self.depths: dict[int, int] = {}  # by id; 1 where nothing is said
        self.sealed: set[int] = set()  # ids of containers that lie in another
        self.kept: dict[int, Any] = {}  # by the id of what was folded: it may lie in several places
        self.alive: list[Any] = []  # so that no id above comes to mean something else

    def run(self) -> Any:
        """Step until the end mark."""
        source, stack, highest = self.source, self.stack, self.limits.stack
        for _ in range(self.limits.instructions):
            code = source.read(1)
            found = _STEPS.get(code)
            if found is None:
                source.refuse(
                    f"instruction {code!r} is not understood" if code else "it is cut short"
                )
            step, argument = found
            if argument is None:
                step(self)
            else:
                step(self, argument(source))
            if len(stack) > highest:
                source.refuse(f"more than {highest} values wait on the stack")
            if code == b".":
                return self.pop()
        return source.refuse(f"more than {self.limits.instructions} instructions")

    def spend(self, cost: int) -> None:
        """Count memory."""
        self.room -= cost
        if self.room < 0:
            self.source.refuse(f"it needs more than {self.limits.memory} bytes of memory")

    # The stack

    def pop(self) -> Any:
        """Take the last value, but none under the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.source.refuse("the stack is empty")
        return self.stack.pop()

    def top(self) -> Any:
        """The last value, left where it is."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.source.refuse("the stack is empty")
        return self.stack[-1]

    def mark(self) -> None:
        """Remember the height of the stack."""
        if len(self.marks) >= self.limits.depth:
            self.source.refuse(f"nested deeper than {self.limits.depth}")
        self.marks.append(len(self.stack))

    def since_mark(self) -> list[Any]:
        """Take all values since the last mark, and the mark."""
        if not self.marks:
            self.source.refuse("a mark is missing")
        at = self.marks.pop()
        values = self.stack[at:]
        del self.stack[at:]
        return values

    def drop(self) -> None:
        """Forget the last value, or the mark if it was set last."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def push(self, value: Any) -> None:
        """Numbers and constants."""
        self.stack.append(value)

    def push_integer(self, value: int) -> None:
        """Integers, which may not be so long that to print them takes for ever."""
        if value.bit_length() > _INTEGER:
            self.source.refuse(f"an integer of {value.bit_length()} bits")
        self.stack.append(value)

    def push_text(self, value: str) -> None:
        """Text; short text is kept once."""
        if len(value) <= _SHORT:
            known = self.texts.get(value)
            if known is None:
                self.spend(2 * _ITEM)
                self.texts[value] = known = value
            self.stack.append(known)
        else:
            self.push_bytes(value)

    def push_bytes(self, value: bytes | bytearray | str) -> None:
        """Bytes and long text."""
        self.spend(_CONTAINER + 4 * len(value))
        self.stack.append(value)

    # Containers

    def push_new(self, value: Any, parts: Sequence[Any] = ()) -> None:
        """A container that was just made of its parts."""
        self.spend(_CONTAINER + _ITEM * len(parts))
        self.hold(value, parts)
        self.stack.append(value)

    def hold(self, holder: Any, parts: Iterable[Any]) -> None:
        """Parts now lie in a holder: they may not change any more, and the holder is one deeper
        than the deepest.
        """
        deepest = 0
        for part in parts:
            if part is holder:
                self.source.refuse("a container lies in itself")
            if type(part) in NESTING:
                self.sealed.add(id(part))
                self.alive.append(part)
                deepest = max(deepest, self.depths.get(id(part), 1))
        if deepest:
            if deepest >= self.limits.depth:
                self.source.refuse(f"nested deeper than {self.limits.depth}")
            self.alive.append(holder)
            self.depths[id(holder)] = max(self.depths.get(id(holder), 1), deepest + 1)

    def open(self, *kinds: type) -> Any:
        """The last value, which must be a container of a kind and lie in no other yet."""
        target = self.top()
        if type(target) not in kinds:
            self.source.refuse(
                f"a value of kind {type(target).__name__} is filled as if it were of kind "
                f"{kinds[0].__name__}"
            )
        if id(target) in self.sealed:
            self.source.refuse(
                "a container is changed after it was put into another, as only a cycle needs it"
            )
        return target

    def extend(self, parts: list[Any]) -> None:
        """Put values at the end of the list on the stack."""
        target = self.open(list)
        self.hold(target, parts)
        self.spend(_ITEM * len(parts))
        target.extend(parts)

    def append(self) -> None:
        """Put one value at the end of a list."""
        self.extend([self.pop()])

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values into the dictionary on the stack."""
        if len(items) % 2:
            self.source.refuse("a key has no value")
        target = self.open(dict, Ordered)
        keys, values = self.keys(items[0::2]), items[1::2]
        if self.fold is not None:
            values = [self.folded(key, value) for key, value in zip(keys, values, strict=True)]
        self.hold(target, values)
        self.spend(_ITEM * len(keys))
        target.update(zip(keys, values, strict=True))

    def set_item(self) -> None:
        """Put one key and value into a dictionary."""
        value = self.pop()
        self.set_items([self.pop(), value])

    def folded(self, key: Any, value: Any) -> Any:
        """What of a value to keep; the rest is forgotten."""
        if type(key) is not str or self.fold is None or type(value) not in {list, dict, Ordered}:
            return value
        if id(value) in self.kept:
            return self.kept[id(value)]
        kept = self.fold(key, value)
        if kept is not value:
            if kept is not None:
                self.kept[id(value)] = kept
            self.hold(None, [value])
            self.room += _ITEM * len(value)
            value.clear()
        return kept

    def keys(self, values: list[Any]) -> list[Any]:
        """The values, which must be fit to be keys."""
        for value in values:
            if type(value) is not str and not fit_for_key(value):
                self.source.refuse(
                    f"a value of kind {type(value).__name__} is used as a key, and is nested, "
                    "too large or of no kind for one"
                )
        return values

    def add_items(self) -> None:
        """Put values into the set on the stack."""
        parts = self.keys(self.since_mark())
        self.spend(_ITEM * len(parts))
        self.open(set).update(parts)

    def make_dictionary(self) -> None:
        """A dictionary of the keys and values since the mark."""
        items = self.since_mark()
        self.push_new({})
        self.set_items(items)

    def make_tuple(self, count: int) -> None:
        """A tuple of the last values."""
        parts = [self.pop() for _ in range(count)][::-1]
        self.push_new(tuple(parts), parts)

    def push_parts(self, kind: type) -> None:
        """A tuple, list or frozen set of the values since the mark."""
        parts = self.since_mark()
        self.push_new(kind(self.keys(parts) if kind is frozenset else parts), parts)

    # The memo

    def memoize(self) -> None:
        """Remember the last value at the next place."""
        self.room -= _PLACE
        if self.room < 0 or len(self.stack) <= (self.marks[-1] if self.marks else 0):
            self.spend(0)
            self.top()
        self.memo.append(self.stack[-1])

    def remember(self, place: int) -> None:
        """Remember the last value at a place that is taken or next."""
        if place == len(self.memo):
            self.memoize()
        elif 0 <= place < len(self.memo):
            self.memo[place] = self.top()
        else:
            self.source.refuse(f"place {place} of the memo is filled before place {len(self.memo)}")

    def recall(self, place: int) -> None:
        """Push what was remembered."""
        if not 0 <= place < len(self.memo):
            self.source.refuse(f"place {place} of the memo is empty")
        self.stack.append(self.memo[place])

    # Globals

    def name(self, name: str) -> None:
        """Push what stands for a global."""
        if name not in GLOBALS:
            self.source.refuse(
                f"it names {name[:100]!r}, which is not on the list of what may occur"
            )
        self.stack.append(Named(name, GLOBALS[name]))

    def name_from_stack(self) -> None:
        """The same, module and name being on the stack."""
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            self.source.refuse(
                f"values of kind {type(module).__name__} and {type(name).__name__} are used as a "
                "name"
            )
        self.name(f"{module} {name}")

    def make(self, named: Any, parts: Any) -> None:
        """Push what our function for the global makes of the parts."""
        if type(named) is not Named or named.make is None or type(parts) is not tuple:
            what = named.name if type(named) is Named else f"a value of kind {type(named).__name__}"
            self.source.refuse(f"{what} is called in a way that may not be")
        made = named.make(parts)
        self.spend(size_of(made))
        self.push_new(made, parts if type(made) is StubObject else ())

    def reduce(self) -> None:
        """Call what lies under the last value with it."""
        parts = self.pop()
        self.make(self.pop(), parts)

    def reduce_with_names(self) -> None:
        """The same with keyword arguments, of which there may be none."""
        if self.pop() != {}:
            self.source.refuse("keyword arguments are given")
        self.reduce()

    def make_since_mark(self) -> None:
        """Call the first value since the mark with the others."""
        named, *parts = self.since_mark() or [None]
        self.make(named, tuple(parts))

    def make_named(self, name: str) -> None:
        """Call a global with the values since the mark."""
        self.name(name)
        self.make(self.stack.pop(), tuple(self.since_mark()))

    def build(self) -> None:
        """Give a state to the `StubObject` on the stack."""
        state = self.pop()
        target = self.open(StubObject, Ordered)
        if type(target) is StubObject:
            shape = STATES.get(target.name)
            self.hold(target, [state])
            target.state = state if shape is None else shape(state)
            self.spend(size_of(target.state))

    def persistent(self) -> None:
        """A storage of torch: its numbers lie elsewhere and are not read."""
        name = self.pop()
        if (
            not self.storages
            or type(name) is not tuple
            or not name
            or type(name[0]) is not str
            or name[0] != "storage"
        ):
            self.source.refuse("a persistent name that is no storage of torch")
        self.push_new(StubObject("torch storage", ()))


def _pair(source: Source) -> str:
    return f"{source.readline()[:-1].decode('ascii')} {source.readline()[:-1].decode('ascii')}"


_ARGUMENTS: dict[str, Callable[[IO[bytes]], Any] | None] = {
    code.name: code.arg.reader if code.arg else None for code in pickletools.opcodes
}
_QUICK: dict[str, Callable[[Source], Any]] = {  # the instructions that whole files consist of
    "BINFLOAT": lambda source: struct.unpack(">d", source.read(8))[0],
    "BININT1": lambda source: source.number(1),
    "SHORT_BINUNICODE": lambda source: source.text(source.number(1)),
    "BINUNICODE": lambda source: source.text(source.number(4)),
    **{name: lambda source: source.number(1) for name in ("BINPUT", "BINGET")},
    **{name: lambda source: source.number(4) for name in ("LONG_BINPUT", "LONG_BINGET")},
}
_CODES = {code.name: code.code.encode("latin-1") for code in pickletools.opcodes}
_METHODS: dict[Callable[..., None], tuple[str, ...]] = {
    _Machine.push: ("FLOAT", "BINFLOAT"),
    _Machine.push_integer: ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    _Machine.push_text: (
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINSTRING",
        "BINSTRING",
    ),
    _Machine.push_bytes: ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    _Machine.mark: ("MARK",),
    _Machine.drop: ("POP",),
    _Machine.append: ("APPEND",),
    _Machine.set_item: ("SETITEM",),
    _Machine.add_items: ("ADDITEMS",),
    _Machine.make_dictionary: ("DICT",),
    _Machine.memoize: ("MEMOIZE",),
    _Machine.remember: ("PUT", "BINPUT", "LONG_BINPUT"),
    _Machine.recall: ("GET", "BINGET", "LONG_BINGET"),
    _Machine.name_from_stack: ("STACK_GLOBAL",),
    _Machine.reduce: ("REDUCE", "NEWOBJ"),
    _Machine.reduce_with_names: ("NEWOBJ_EX",),
    _Machine.make_since_mark: ("OBJ",),
    _Machine.build: ("BUILD",),
    _Machine.persistent: ("BINPERSID",),
}
_STEPS: dict[bytes, tuple[Callable[..., None], Callable[[Any], Any] | None]] = {
    **{
        _CODES[name]: (step, _QUICK.get(name) or _ARGUMENTS[name])
        for step, names in _METHODS.items()
        for name in names
    },
    _CODES["PROTO"]: (lambda _machine, _protocol: None, _ARGUMENTS["PROTO"]),
    _CODES["FRAME"]: (lambda _machine, _length: None, _ARGUMENTS["FRAME"]),
    _CODES["STOP"]: (lambda _machine: None, None),
    _CODES["NONE"]: (lambda machine: machine.push(None), None),
    _CODES["NEWTRUE"]: (lambda machine: machine.push(True), None),
    _CODES["NEWFALSE"]: (lambda machine: machine.push(False), None),
    _CODES["EMPTY_LIST"]: (lambda machine: machine.push_new([]), None),
    _CODES["EMPTY_DICT"]: (lambda machine: machine.push_new({}), None),
    _CODES["EMPTY_SET"]: (lambda machine: machine.push_new(set()), None),
    _CODES["EMPTY_TUPLE"]: (lambda machine: machine.push(()), None),
    _CODES["TUPLE1"]: (lambda machine: machine.make_tuple(1), None),
    _CODES["TUPLE2"]: (lambda machine: machine.make_tuple(2), None),
    _CODES["TUPLE3"]: (lambda machine: machine.make_tuple(3), None),
    _CODES["TUPLE"]: (lambda machine: machine.push_parts(tuple), None),
    _CODES["LIST"]: (lambda machine: machine.push_parts(list), None),
    _CODES["FROZENSET"]: (lambda machine: machine.push_parts(frozenset), None),
    _CODES["APPENDS"]: (lambda machine: machine.extend(machine.since_mark()), None),
    _CODES["SETITEMS"]: (lambda machine: machine.set_items(machine.since_mark()), None),
    _CODES["POP_MARK"]: (lambda machine: machine.since_mark(), None),
    _CODES["DUP"]: (lambda machine: machine.push(machine.top()), None),
    _CODES["GLOBAL"]: (_Machine.name, _pair),
    _CODES["INST"]: (_Machine.make_named, _pair),
}
