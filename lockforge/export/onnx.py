"""model.onnx: the same network for any runtime, dead edges dropped, nothing of this machine in it,
compared before it is believed.

Input `pixels` f32 (batch, c, h, w), normalised as preprocessing.json says; output `logits` f32
(batch, k). The batch axis is free.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import find_spec

import onnx
import torch
from torch import Tensor

from lockforge.errors import OutcomeError
from lockforge.evidence.parity import Parity, compare, probe_inputs
from lockforge.models.networks import load, prune_dead
from lockforge.models.read_onnx import Runtime
from lockforge.recipe import ExportRecipe
from lockforge.records import AnyArchitecture

NOT_CHECKED = "not checked: onnxruntime is not installed (pip install 'lockforge[cpu]')"


def to_onnx(
    architecture: AnyArchitecture, tensors: dict[str, Tensor], recipe: ExportRecipe
) -> bytes:
    """The network as an ONNX file, checked by onnx's own checker.

    Every node's metadata is cleared: the exporter leaves stack traces with absolute paths there.

    Raises: OutcomeError: the network does what ONNX cannot say.
    """
    network = prune_dead(load(architecture, tensors)).eval()
    example = torch.zeros(2, *architecture.shape)
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=recipe.opset,
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
    except (
        torch.onnx.OnnxExporterError
    ) as error:  # only a network that is made elsewhere does what cannot be traced
        told = (str(error).splitlines() or [""])[0]
        raise OutcomeError(
            f"{architecture} cannot be written as ONNX: {told}", hint="set export.onnx: false"
        ) from error
    if program is None:
        raise OutcomeError(
            "torch.onnx gave no program", hint="set export.onnx: false and report this network"
        )
    return cleaned(program.model_proto.SerializeToString())


def cleaned(data: bytes) -> bytes:
    """An ONNX file without what its maker wrote about where it ran, checked by onnx's own checker,
    in one spelling.
    """
    model = onnx.load_model_from_string(data)
    _forget(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def facts_of(data: bytes) -> dict[str, str]:
    """What a runtime has to know to run an ONNX file: operator set and intermediate
    representation.
    """
    model = onnx.load_model_from_string(data)
    opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    return {"ONNX opset": str(opset), "ONNX IR version": str(model.ir_version)}


def parity_of(
    architecture: AnyArchitecture,
    tensors: dict[str, Tensor],
    data: bytes,
    recipe: ExportRecipe,
    seed: int,
) -> str:
    """One line that says how far ONNX and torch are apart on seeded inputs, all at once and one
    alone.

    Raises: OutcomeError: further than `evidence.parity` allows.
    """
    if find_spec("onnxruntime") is None:
        return NOT_CHECKED
    inputs = probe_inputs(seed, recipe.parity_samples, architecture.shape)
    network = load(architecture, tensors).eval()
    with torch.inference_mode():
        ours = network(torch.from_numpy(inputs)).numpy()
    runtime = Runtime(data, "model.onnx")
    for batch in (inputs[:1], inputs):
        found: Parity = compare(ours[: len(batch)], runtime.run(batch))
        if not found.same:
            raise OutcomeError(
                f"the ONNX file answers differently: {found}",
                hint="try another export.opset, or export.onnx: false",
            )
    return str(found)


def _forget(model: onnx.ModelProto) -> None:
    """Clear what the exporter wrote about where it ran."""
    for graph in (model.graph, *model.functions):
        _forget_in(graph.node)
        _forget_in(graph.value_info)
        graph.doc_string = ""
        del graph.metadata_props[:]
    for values in (model.graph.input, model.graph.output, model.graph.initializer):
        _forget_in(values)
    del model.metadata_props[:]
    model.doc_string = ""


def _forget_in(parts: Iterable[onnx.NodeProto | onnx.ValueInfoProto | onnx.TensorProto]) -> None:
    """The same for nodes, with the graphs that their attributes hold, values and tensors."""
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
        for attribute in part.attribute if isinstance(part, onnx.NodeProto) else ():
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                graph.doc_string = ""
                _forget_in(graph.node)
                _forget_in(graph.value_info)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter warns about its own future, and logs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
