"""Rewrites of a described graph that span several layers."""

import numpy as np

from fastconv.node import OnnxGraph, OnnxNode

# operator → the axis of its weight that counts the output channels
_FOLDS_INTO = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}


def fold_batch_norm(graph: OnnxGraph) -> None:
    """Take every batch normalization that follows a convolution or dense layer into its weights.

    ``gamma · (W ∗ x + b − mean) / √(variance + ε) + beta`` is again a convolution, with the weights
    ``W · s`` and the bias ``(b − mean) · s + beta``, ``s = gamma / √(variance + ε)``. Done in
    float64 and rounded once. Where something else reads the convolution's output too, it stays.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    for norm in [node for node in graph.nodes if node.op == "BatchNormalization"]:
        before = graph.producer(norm.inputs[0])
        if before is None or before.op not in _FOLDS_INTO:
            continue
        if norm.inputs[0] in outputs or len(graph.readers(norm.inputs[0])) > 1:
            continue
        _fold(graph, before, norm)
    used = {name for node in graph.nodes for name in node.inputs}
    graph.initializers = {k: v for k, v in graph.initializers.items() if k in used}


def _fold(graph: OnnxGraph, before: OnnxNode, norm: OnnxNode) -> None:
    numbers = graph.initializers
    gamma, beta, mean, variance = (numbers[name].astype(np.float64) for name in norm.inputs[1:])
    scale = gamma / np.sqrt(variance + norm.attributes["epsilon"])
    weight = numbers[before.inputs[1]].astype(np.float64)
    bias = numbers[before.inputs[2]] if len(before.inputs) > 2 else np.zeros_like(mean)
    along = [1] * weight.ndim
    along[_FOLDS_INTO[before.op]] = -1
    # new names: a shared layer's own weights may be read at another place
    folded = {
        f"{norm.name}/folded_kernel": weight * scale.reshape(along),
        f"{norm.name}/folded_bias": (bias - mean) * scale + beta,
    }
    for name, value in folded.items():
        numbers[name] = value.astype(np.float32)
    before.inputs = [before.inputs[0], *folded]
    before.outputs = norm.outputs
    graph.nodes.remove(norm)
