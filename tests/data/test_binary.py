"""IDX and CIFAR's binary batches: the same images as an .npz of them, and every fault named."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from lockforge.data._raw_images import TEST, TRAIN, UNDECIDED
from lockforge.data.images import check_place, read_images
from lockforge.errors import DataError
from lockforge.recipe import DataRecipe


def idx(path: Path, array: np.ndarray, *, packed: bool = False, spoil: bytes = b"") -> Path:
    """Write an IDX file; `spoil` is put at its end."""
    data = (
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        + array.astype(np.uint8).tobytes()
        + spoil
    )
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.fixture
def mnist(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Twelve training and six test images of 5 x 4 pixels, three classes; the test files are
    packed.
    """
    root = tmp_path / "mnist"
    root.mkdir()
    for name, count, packed in (("train", 12, False), ("t10k", 6, True)):
        ending = ".gz" if packed else ""
        idx(
            root / f"{name}-images-idx3-ubyte{ending}",
            rng.integers(256, size=(count, 5, 4)),
            packed=packed,
        )
        idx(root / f"{name}-labels-idx1-ubyte{ending}", np.arange(count) % 3, packed=packed)
    return root


@pytest.fixture
def cifar(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Two training batches and a test batch of six images each."""
    root = tmp_path / "cifar"
    root.mkdir()
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        labels, pixels = np.arange(6)[:, None] % 3, rng.integers(256, size=(6, 3072))
        (root / f"{name}.bin").write_bytes(
            np.concatenate([labels, pixels], 1).astype(np.uint8).tobytes()
        )
    (root / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    return root


def test_idx_files_are_read_with_their_splits(mnist: Path) -> None:
    """Packed and not; train from train, test from t10k."""
    found = read_images(str(mnist), DataRecipe())
    assert found.images.shape == (18, 1, 5, 4)
    assert np.bincount(found.split).tolist() == [12, 0, 6]
    assert found.classes == ("0", "1", "2")
    assert sorted(found.labels.tolist()) == sorted([*(np.arange(12) % 3), *(np.arange(6) % 3)])
    raw = (mnist / "train-images-idx3-ubyte").read_bytes()[16:]
    assert found.images[found.split == TRAIN].tobytes() == raw


def test_one_idx_file_is_a_place_too(mnist: Path) -> None:
    """Its labels are found beside it; the dotted spelling is known."""
    for path in list(mnist.iterdir()):
        path.rename(mnist / path.name.replace("-idx", ".idx").replace("t10k", "some"))
    found = read_images(str(mnist / "some-images.idx3-ubyte.gz"), DataRecipe())
    assert (found.split == UNDECIDED).all()
    assert len(found) == 6


def test_cifar_batches_are_read_with_their_names(cifar: Path) -> None:
    """Planes of red, green and blue become images."""
    found = read_images(str(cifar), DataRecipe())
    assert found.images.shape == (18, 3, 32, 32)
    assert found.classes == ("airplane", "automobile", "bird")
    assert np.bincount(found.split).tolist() == [12, 0, 6]
    record = np.frombuffer((cifar / "test_batch.bin").read_bytes(), np.uint8)[:3073]
    assert np.array_equal(found.images[found.split == TEST][0].ravel(), record[1:])


def test_cifar_100_has_fine_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    """The second of the two bytes before the pixels; classes without images are left out."""
    for name in ("train", "test"):
        rows = np.concatenate(
            [np.full((8, 1), 7), np.arange(8)[:, None] % 2 + 97, rng.integers(256, size=(8, 3072))],
            1,
        )
        (tmp_path / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
    assert read_images(str(tmp_path), DataRecipe()).classes == ("97", "98")


def test_the_pickled_version_is_refused_and_not_opened(tmp_path: Path) -> None:
    """With the way to the binary one."""
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": []}))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match=r"can run code(.|\n)*binary version"):
        read_images(str(tmp_path), DataRecipe())


def test_an_archive_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Unpack it."""
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="unpack it"):
        check_place(str(tmp_path / "cifar-10-binary.tar.gz"))


def test_every_fault_of_idx_files_is_listed_at_once(mnist: Path, rng: np.random.Generator) -> None:
    """Cut short, not packed, other kind, lying header, no labels, labels of another number."""
    cut = mnist / "train-images-idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:-3])
    (mnist / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    idx(mnist / "a-images-idx3-ubyte", rng.integers(9, size=(3, 2, 2)))
    idx(mnist / "b-images-idx3-ubyte", rng.integers(9, size=(3, 2, 2)))
    idx(mnist / "b-labels-idx1-ubyte", np.arange(4))
    (mnist / "c-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 13, 3, 1, 1, 1) + b"....")
    idx(mnist / "c-labels-idx1-ubyte", np.arange(1))
    idx(
        mnist / "d-images-idx3-ubyte.gz",
        rng.integers(9, size=(3, 2, 2)),
        packed=True,
        spoil=b"more",
    )
    idx(mnist / "d-labels-idx1-ubyte", np.arange(3))
    with pytest.raises(DataError) as caught:
        read_images(str(mnist), DataRecipe())
    told = "\n".join(caught.value.faults)
    for part in (
        "train-images-idx3-ubyte: the header says",
        "t10k-images",
        "a-images-idx3-ubyte: no labels",
        "3 images",
        "c-images",
        "more bytes",
    ):
        assert part in told
    assert len(caught.value.faults) == 6


def test_a_header_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """Neither for images nor for an image."""
    for name, shape in (("a", (2**31, 28, 28)), ("b", (1, 2**31, 2**31)), ("c", (60000, 28, 28))):
        data = struct.pack(">HBB3I", 0, 8, 3, *shape) + b"0" * 100
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(data))
        idx(tmp_path / f"{name}-labels-idx1-ubyte", np.arange(3))
    with pytest.raises(DataError, match=r"3 fault") as caught:
        read_images(str(tmp_path), DataRecipe())
    assert "it ends after 100 of 47040000 bytes" in caught.value.faults[2]


def test_broken_cifar_batches_are_listed(cifar: Path) -> None:
    """Not a whole number of records, and a label beyond the named classes."""
    batch = cifar / "data_batch_1.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_1\.bin: 18437 bytes are no whole number"):
        read_images(str(cifar), DataRecipe())
    batch.write_bytes(b"\x09" + bytes(3072))
    with pytest.raises(DataError, match="labels up to 9, but there are 3"):
        read_images(str(cifar), DataRecipe())
