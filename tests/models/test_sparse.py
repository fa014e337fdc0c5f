"""The compact form: the same bits back, never much larger, small where zeros are, and nothing
believed that the bytes do not bear out.
"""

import contextlib
import json
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from lockforge.errors import IntegrityError
from lockforge.models.sparse import KEY, Packed, from_bytes, pack, sizes, to_bytes, unpack

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.uint32,
    torch.float8_e4m3fn,
    torch.bool,
)


def bits(tensor: Tensor) -> bytes:
    """All bytes of a tensor."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether names, shapes, dtypes and every bit agree."""
    return one.keys() == other.keys() and all(
        (one[name].shape, one[name].dtype, bits(one[name]))
        == (other[name].shape, other[name].dtype, bits(other[name]))
        for name in one
    )


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors of any shape, dtype and share of zeros, their other values being any bits: NaN,
    infinities and -0.0 among them.
    """
    found = {}
    for name in draw(
        st.lists(
            st.sampled_from(["a", "b.weight", "a/mask", "a/values", "ü"]), unique=True, max_size=4
        )
    ):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 70), max_size=3))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        filled = rng.random(shape) < draw(st.sampled_from([0, 0.002, 0.03, 0.2, 1]))
        raw = (
            rng.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8)
            if dtype != torch.bool
            else np.ones((*shape, 1), np.uint8)
        )
        found[name] = (
            torch.from_numpy((raw * filled[..., None]).reshape(-1)).view(dtype).reshape(shape)
        )
    return found


@settings(max_examples=80, deadline=None)
@given(state_dicts())
@example({"a": torch.zeros(60, 60), "a/mask": torch.ones(3)})
@example({"a": torch.full((50, 50), -0.0)})
def test_what_was_packed_comes_back_bit_for_bit(tensors: dict[str, Tensor]) -> None:
    """In memory and through a file; and the compact file is at most its metadata key larger than
    the dense one.
    """
    packed = pack(tensors)
    assert same(unpack(*packed), tensors)
    assert same(from_bytes(to_bytes(tensors)), tensors)
    dense, sparse = sizes(tensors)
    assert dense == len(save(tensors))
    assert sparse == len(to_bytes(tensors)) <= dense + 64


def test_minus_zero_is_a_value_and_zero_is_none() -> None:
    """Of 10,000 zeros one is -0.0: one value is kept, and it is still negative afterwards."""
    tensor = torch.zeros(100, 100)
    tensor[3, 4] = -0.0
    packed = pack({"w": tensor})
    assert packed.tensors["w/values"].shape == (1,)
    assert unpack(*packed)["w"].signbit().nonzero().tolist() == [[3, 4]]


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.95, 0.99])
def test_the_size_is_what_the_format_implies(sparsity: float, generator: torch.Generator) -> None:
    """Of n values k are not zero: 4 k bytes, and n / 8 for a mask or k + zeros / 256 at most for
    gaps; the header is under 400.
    """
    n = 200 * 500
    tensor = torch.randn(200, 500, generator=generator)
    tensor.view(-1)[torch.randperm(n, generator=generator)[: round(n * sparsity)]] = 0
    k = n - round(n * sparsity)
    assert set(pack({"w": tensor}).tensors) == {
        "w/values",
        "w/mask" if sparsity < 0.875 else "w/gaps",
    }
    assert (
        4 * k + min(n / 8, k)
        <= sizes({"w": tensor}).sparse
        <= 4 * k + min(n / 8, k + (n - k) / 255) + 400
    )


@pytest.mark.parametrize("zeros", [0, 1, 254, 255, 256, 510, 511, 2000])
def test_long_runs_of_zeros_are_counted_exactly(zeros: int) -> None:
    """Runs around multiples of 255, before, between and behind values."""
    run, one = torch.zeros(zeros), torch.ones(1)
    tensor = torch.cat([run, one, run, one, run, torch.zeros(1000)])
    assert torch.equal(unpack(*pack({"w": tensor}))["w"], tensor)


def forms() -> dict[str, Packed]:
    """A tensor of 2,000 values in each of the two forms."""
    dense = torch.zeros(40, 50)
    dense[::3] = 1
    thin = torch.zeros(40, 50)
    thin[::9, ::9] = 1
    return {"mask": pack({"w": dense}), "gaps": pack({"w": thin})}


def changed(form: str, shape: object = None, **parts: Tensor | None) -> Packed:
    """A sound form with another shape, other parts, or without some."""
    tensors, metadata = forms()[form]
    tensors |= {f"w/{name}": part for name, part in parts.items() if part is not None}
    tensors = {
        name: part
        for name, part in tensors.items()
        if parts.get(name.removeprefix("w/"), part) is not None
    }
    return Packed(tensors, metadata if shape is None else {KEY: json.dumps({"w": shape})})


FAULTS = {
    "short mask": (
        changed("mask", mask=torch.zeros(249, dtype=torch.uint8)),
        "a mask of 249 bytes for a shape",
    ),
    "long mask": (changed("mask", shape=[41, 50]), "needs 257"),
    "mask behind the end": (
        changed("mask", shape=[1993], mask=torch.full((250,), 255, dtype=torch.uint8)),
        "goes on behind",
    ),
    "too few values": (changed("mask", values=torch.ones(699)), "699 values where 700 are marked"),
    "too many values": (changed("gaps", values=torch.ones(31)), "31 values where 30 are marked"),
    "two axes": (changed("mask", values=torch.ones(700, 1)), "must have one axis"),
    "another dtype": (changed("gaps", gaps=torch.zeros(30)), "8 bits"),
    "no values": (changed("mask", values=None), "where values and one of mask and gaps are needed"),
    "both forms": (changed("mask", gaps=torch.zeros(700, dtype=torch.uint8)), "values, mask, gaps"),
    "short gaps": (changed("gaps", gaps=torch.zeros(1, dtype=torch.uint8)), "gaps that end at 1"),
    "huge mask": (changed("mask", shape=[2**40, 2**10]), "a mask of 250 bytes for a shape"),
    "huge gaps": (changed("gaps", shape=[2**62, 2**62]), "gaps that end at"),
    "negative": (changed("mask", shape=[-40, -50]), "no shapes"),
    "empty": (changed("gaps", shape=[0, 2**62]), "no shapes"),
    "many axes": (changed("mask", shape=[1] * 10**4), "no shapes"),
    "words": (changed("mask", shape=["40", True]), "no shapes"),
    "there twice": (
        Packed({**forms()["mask"].tensors, "w": torch.zeros(1)}, forms()["mask"].metadata),
        "there twice",
    ),
    "no table": (Packed({}, {KEY: "[1, 2]"}), "no table"),
    "no JSON": (Packed({}, {KEY: "{"}), "cannot be read"),
    "no key": (Packed({}, {}), "not in the metadata"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_contradiction_is_an_integrity_error_before_memory_is_taken(name: str) -> None:
    """Each fault is named, and less than a megabyte is used to find it, whatever size is
    claimed.
    """
    packed, words = FAULTS[name]
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError) as caught:
            unpack(*packed)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)


def test_every_fault_is_listed() -> None:
    """Two tensors, two faults, one error."""
    shapes = {KEY: json.dumps({"a": [10], "b": [10]})}
    with pytest.raises(IntegrityError) as caught:
        unpack({"a/values": torch.ones(1)}, shapes)
    assert len(caught.value.faults) == 2


WHOLE = to_bytes({"w": unpack(*forms()["gaps"])["w"], "m": unpack(*forms()["mask"])["w"]})


@settings(max_examples=120, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_a_damaged_file_is_an_integrity_error_or_other_tensors(
    place: int, byte: int, end: int
) -> None:
    """One byte changed, or the end cut off: never another exception, and a cut file is never taken
    for whole.
    """
    with contextlib.suppress(IntegrityError):
        from_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
    if end < len(WHOLE):
        with pytest.raises(IntegrityError):
            from_bytes(WHOLE[:end])


def test_another_file_is_told_apart() -> None:
    """A plain safetensors file, one that claims a large header, and no safetensors file at all."""
    for data in (
        save({"w": torch.ones(3)}),
        struct.pack("<Q", 2**60) + b"{}",
        b"",
        b"words, not numbers",
    ):
        with pytest.raises(IntegrityError):
            from_bytes(data)
