"""What zeros and whole filters save: bytes of the same weights dense, gzipped and in the compact
form; a network without half its filters.

Weights are random, nine tenths of each convolution and linear layer set to zero by magnitude: sizes
depend on the zeros alone. Latency is onnxruntime's, of one image and of 64 at once.
"""

import gzip

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lockforge.export.onnx import parity_of, to_onnx
from lockforge.models.networks import NamedNetwork, build, flops, parameters, state
from lockforge.models.read_onnx import Runtime
from lockforge.models.sparse import from_bytes, sizes, to_bytes
from lockforge.models.structured import choose_filters, remove_filters, silence_filters
from lockforge.randomness import numpy_generator, torch_generator
from lockforge.recipe import ExportRecipe
from lockforge.records import NamedArchitecture
from tests.benchmarks.line import arguments, by_turns, write_line

NETWORKS = ("resnet18-cifar", "vgg11_bn-cifar")
SPARSITY, SHARE = 0.9, 0.5
RECIPE = ExportRecipe(parity_samples=4)


def thinned(network: NamedNetwork) -> dict[str, Tensor]:
    """The tensors with the smallest of each layer's weights set to zero."""
    tensors = state(network)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = tensors[f"{name}.weight"]
            weight.view(-1)[
                weight.abs().flatten().argsort()[: round(SPARSITY * weight.numel())]
            ] = 0
    return tensors


def main() -> None:
    """Sizes of the sparse weights, then both networks through onnxruntime; print the line."""
    given = arguments(__doc__, repeats=15, ways=NETWORKS)
    x = numpy_generator(0, "benchmark", "compress").standard_normal(
        (64, 3, 32, 32), dtype="float32"
    )
    figures: dict[str, object] = {"sparsity": SPARSITY, "filters_removed": SHARE}
    for name in (name for name in NETWORKS if name not in given.without):
        network = build(
            NamedArchitecture(name=name, classes=10, shape=(3, 32, 32)),
            torch_generator(0, "benchmark", name),
        ).eval()
        sparse = thinned(network)
        packed = to_bytes(sparse)
        back = from_bytes(packed)
        assert all(torch.equal(back[key], tensor) for key, tensor in sparse.items())
        dense, compact = sizes(sparse)
        figures |= {
            f"{name}_dense": dense,
            f"{name}_gzip": len(gzip.compress(save(sparse))),
            f"{name}_compact": compact,
        }
        figures[f"{name}_compact_gzip"] = len(gzip.compress(packed))
        seconds = by_turns(
            {"pack_s": lambda s=sparse: to_bytes(s), "unpack_s": lambda p=packed: from_bytes(p)},
            3,
            given.device,
        )

        chosen = choose_filters(network, SHARE)
        small = remove_filters(network, chosen)
        with torch.inference_mode():
            images = torch.from_numpy(x[:8])
            torch.testing.assert_close(
                small(images), silence_filters(network, chosen)(images), rtol=1e-4, atol=1e-5
            )
        ways = {}
        for what, one in (("whole", network), ("half", small)):
            data = to_onnx(one.architecture, state(one), RECIPE)
            parity_of(one.architecture, state(one), data, RECIPE, 0)
            figures |= {
                f"{name}_{what}_parameters": parameters(one.architecture),
                f"{name}_{what}_operations": flops(one.architecture),
            }
            figures[f"{name}_{what}_onnx"] = len(data)
            runtime = Runtime(data, "model.onnx")
            ways |= {f"{what}_{n}_s": lambda r=runtime, n=n: r.run(x[:n]) for n in (1, 64)}
        seconds |= by_turns(ways, given.repeats, given.device)
        figures |= {f"{name}_{way}": value for way, value in seconds.items()}
    write_line("compress", given, figures)


if __name__ == "__main__":
    main()
