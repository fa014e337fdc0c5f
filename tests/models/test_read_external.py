"""Networks that are made elsewhere: by timm (a stand-in here) or by a function of their owner's."""

import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from lockforge.errors import DataError, RecipeError, ResourceError
from lockforge.models import _python_functions as functions
from lockforge.models._read_external import ForeignNetwork, read_foreign
from lockforge.models.networks import build, flops, load, parameters, state
from lockforge.records import NamedArchitecture, origin_of
from tests.models.own_networks import TinyNet, stub_timm

SHAPE = (1, 8, 8)
COUNT = itertools.count()
Give = Callable[[str], str]
MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.mix = nn.GRU(4, 4, batch_first=True)
        self.out = nn.Linear(4, classes)

    def forward(self, x):
        x = torch.relu(self.first(x)).flatten(2).transpose(1, 2)
        return self.out(self.mix(x)[0].mean(1))

def build():
    return Net()
"""


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timm with three networks."""
    monkeypatch.setitem(sys.modules, "timm", stub_timm())


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Give:
    """`give(text)` writes a module, gives its function `build`, and says the name that records
    have.
    """
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(functions, "_given", {})

    def call(text: str) -> str:
        name = f"own_network_{next(COUNT)}"
        (tmp_path / f"{name}.py").write_text(text)
        found = functions.give(f"python:{name}:build")
        monkeypatch.delitem(sys.modules, name)
        return found

    return call


@pytest.mark.usefixtures("timm")
def test_a_network_of_timms_is_a_classifier_like_any_other(tmp_path: Path) -> None:
    """Read from a file, built anew, loaded again: the same logits as timm's own; classes are the
    file's, dropout drops nothing.
    """
    theirs = TinyNet(3, 1).eval()
    save_file(theirs.state_dict(), tmp_path / "w")
    architecture, tensors = read_foreign("timm:tiny_net", tmp_path / "w", SHAPE)
    assert architecture == NamedArchitecture(name="timm:tiny_net", classes=3, shape=SHAPE)
    network = load(architecture, tensors).eval()
    x = torch.rand(5, *SHAPE)
    assert torch.allclose(network(x), theirs(x))
    assert torch.equal(network.train().features(x), network.eval().features(x))
    assert set(state(network)) == {
        "body.stem.weight",
        "body.stem.bias",
        "body.norm.weight",
        "body.norm.bias",
        "head.weight",
        "head.bias",
    }
    assert network.maps(x).shape == (5, 4, 1, 1)
    other = build(architecture.model_copy(update={"classes": 7}), torch.Generator().manual_seed(0))
    assert other(x).shape == (5, 7)


@pytest.mark.usefixtures("timm")
def test_fresh_weights_follow_from_the_generator_alone() -> None:
    """The same seed gives the same network, another gives another in every layer that is drawn; the
    global state is left as it was.
    """
    architecture = NamedArchitecture(name="timm:tiny_net", classes=3, shape=SHAPE)
    before = torch.random.get_rng_state()
    one, again, other = (
        state(build(architecture, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(
        torch.equal(one[name], other[name])
        for name in ("body.stem.weight", "head.weight", "head.bias")
    )


@pytest.mark.usefixtures("timm")
def test_operations_and_parameters_are_counted() -> None:
    """Conv: 4 x 9 x 64; norm: 2 x 4 x 64; ReLU: 4 x 64; mean: 4 x 9 x 9; head: 4 x 3. Parameters:
    40 + 8 + 15.
    """
    architecture = NamedArchitecture(name="timm:tiny_net", classes=3, shape=SHAPE)
    assert flops(architecture) == 2304 + 512 + 256 + 324 + 12
    assert parameters(architecture) == 63


@pytest.mark.usefixtures("timm")
def test_what_is_made_for_one_size_is_made_for_the_sources(tmp_path: Path) -> None:
    """A network that asks for the size of its images gets it."""
    save_file(TinyNet(3, 1).state_dict(), tmp_path / "w")
    assert read_foreign("timm:tiny_vit", tmp_path / "w", SHAPE, classes=3)[0].classes == 3


@pytest.mark.usefixtures("timm")
def test_what_does_not_fit_timms_network_is_listed(tmp_path: Path) -> None:
    """Other classes, a tensor too few, no such network, a last layer that is no linear one."""
    tensors = TinyNet(4, 1).state_dict()
    del tensors["norm.bias"]
    save_file(tensors, tmp_path / "w")
    with pytest.raises(DataError, match="holds other tensors") as caught:
        read_foreign("timm:tiny_net", tmp_path / "w", SHAPE, classes=3)
    assert caught.value.faults == (
        "norm.bias: missing",
        "fc.weight: 4 classes where the source has 3",
    )
    with pytest.raises(RecipeError, match="has no network 'no_net'"):
        read_foreign("timm:no_net", tmp_path / "w", SHAPE)
    with pytest.raises(DataError, match="is Conv2d, not one linear layer"):
        read_foreign("timm:conv_head", tmp_path / "w", SHAPE)


@pytest.mark.parametrize("fault", [ImportError, RuntimeError])
def test_without_timm_the_extra_is_named(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not installed, or installed beside a torchvision that does not fit torch."""
    if fault is ImportError:
        monkeypatch.setitem(sys.modules, "timm", None)
    else:
        monkeypatch.delitem(sys.modules, "timm", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Unfit(), *sys.meta_path])
    with pytest.raises(ResourceError, match="need timm") as caught:
        load(NamedArchitecture(name="timm:tiny_net", classes=3, shape=SHAPE), {})
    assert "lockforge[probes]" in caught.value.hint


class Unfit:
    """What importing timm does where torchvision was built for another torch."""

    def find_spec(self, name: str, *_: object) -> None:
        """Fail as torchvision does."""
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize(
    "name",
    ["timm:hf-hub:a/b", "timm:", "timm:../x", "python:os:system", "python:a:b@", "Resnet18", "a:b"],
)
def test_a_record_names_no_code_and_no_place(name: str) -> None:
    """What timm would fetch from the net or a folder, and functions without a digest, are no
    names.
    """
    with pytest.raises(ValidationError):
        NamedArchitecture(name=name, classes=2, shape=SHAPE)


def test_a_function_that_was_given_makes_the_network(give: Give, tmp_path: Path) -> None:
    """With its own weights or a file's; built anew from a generator, any layer that can be; its
    record tells its code's digest.
    """
    name = give(MODULE)
    architecture, tensors = read_foreign(name, None, SHAPE, classes=3)
    assert origin_of(architecture) == "python"
    network = load(architecture, tensors).eval()
    assert isinstance(network, ForeignNetwork)
    theirs, head = functions.call(name)
    assert head == "out"
    theirs.load_state_dict(
        {
            key.removeprefix("body.").replace("head.", "out."): tensor
            for key, tensor in tensors.items()
        }
    )
    x = torch.rand(4, *SHAPE)
    assert torch.allclose(network(x), theirs.eval()(x), atol=1e-6)
    save_file(
        {key: torch.full_like(tensor, 0.5) for key, tensor in theirs.state_dict().items()},
        tmp_path / "w",
    )
    assert all(
        bool((tensor == 0.5).all())
        for tensor in read_foreign(name, tmp_path / "w", SHAPE, classes=3)[1].values()
    )
    one, again, other = (
        state(build(architecture, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not torch.equal(one["body.mix.weight_ih_l0"], other["body.mix.weight_ih_l0"])
    assert give(MODULE + "\n# another text")[-12:] != name[-12:]


def test_a_function_is_never_called_because_a_file_names_it(
    give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of it alone builds nothing in a process to which it was not given."""
    architecture, tensors = read_foreign(give(MODULE), None, SHAPE, classes=3)
    monkeypatch.setattr(functions, "_given", {})
    with pytest.raises(DataError, match="never called because a file names it"):
        load(architecture, tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("return Net()", "return 3"), "gave int, not a torch.nn.Module"),
        (("return Net()", "return nn.Identity()"), "without a linear layer"),
        (("return Net()", "raise ValueError('no')"), "failed: ValueError: no"),
        (("return Net()", "return Net(4)"), "4 classes where the source has 3"),
        (("nn.Conv2d(1", "nn.Conv2d(3"), "cannot take two images of shape (1, 8, 8)"),
        (("self.mix(x)[0].mean(1))", "self.mix(x)[0].mean(1)).double()"), "with out as its head"),
        (("self.out(self", "-self.out(self"), "answers are not those of this layer"),
        (("self.first(x))", "self.first(x) * torch.rand(()))"), "two passes in train mode differ"),
        (("nn.Linear(4, classes)", "nn.Linear(4, classes, bias=False)"), "no bias"),
        (
            ("self.out =", "self.token = nn.Parameter(torch.zeros(4)); self.out ="),
            "no reset_parameters()",
        ),
        (
            ("nn.GRU(4, 4", "nn.MultiheadAttention(4, 2"),
            "mix (MultiheadAttention) has weights of its own",
        ),
        (
            ("self.first(x))", "nn.functional.conv2d(x, self.first.weight))"),
            "read where the layer must be called",
        ),
        (("self.out =", "self.twice = self.first; self.out ="), "one parameter is in two places"),
        (("def build", "HEAD = 'none'\n\ndef build"), "without a linear layer named none"),
    ],
)
def test_what_a_function_may_get_wrong_is_said(
    change: tuple[str, str], words: str, give: Give
) -> None:
    """No network, no head, other classes or images, something behind the head, dice, weights that
    cannot be drawn anew or are shared.
    """
    assert change[0] in MODULE
    name = give(MODULE.replace(*change))
    with pytest.raises(DataError) as caught:
        read_foreign(name, None, SHAPE, classes=3)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python:torch", "names no function"),
        ("python:os.path:join:x", "names no function"),
        ("python:nowhere_at_all:build", "cannot be imported: ModuleNotFoundError"),
        ("python:textwrap:no_such", "has no function 'no_such'"),
    ],
)
def test_a_function_that_is_not_there_is_a_fault_of_the_command(text: str, words: str) -> None:
    """Spelling, module, function."""
    with pytest.raises(RecipeError, match=re.escape(words)):
        functions.give(text)


def test_the_head_may_be_named(give: Give) -> None:
    """Where the last linear layer by order is not the last by use, the module says which is."""
    text = MODULE.replace("self.out =", "self.head = nn.Linear(4, classes); self.out =").replace(
        "self.out(", "self.head("
    )
    with pytest.raises(DataError, match="answers are not those of this layer"):
        read_foreign(give(text), None, SHAPE, classes=3)
    assert read_foreign(give(text + "\nHEAD = 'head'\n"), None, SHAPE, classes=3)[0].classes == 3


def test_a_dropout_layer_drops_nothing() -> None:
    """As in all our networks: no draw from the global random state."""
    network = ForeignNetwork(
        NamedArchitecture(name="x", classes=3, shape=SHAPE), TinyNet(3, 1), "fc"
    )
    assert [part.p for part in network.modules() if isinstance(part, nn.Dropout)] == [0.0]
