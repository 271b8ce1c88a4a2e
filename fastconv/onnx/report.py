"""What an export made, and how it was proved."""

from collections import Counter
from dataclasses import dataclass, field

from fastconv.files import size_text
from fastconv.tables import Printed


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How far the file's outputs lie from the trainer's. Errors are shares of the output's scale.

    Attributes
    ----------
    runtime, runtime_version : str
        Who ran the file: ``onnxruntime``, or ``onnx.reference`` where that is not installed.
    batch_sizes : tuple of int
    scale : float
        The largest output of the trainer (of the output with the largest error).
    largest_error : float
        Largest difference between the file and the trainer in float32.
    float32_error : float
        Largest difference between the trainer in float32 and in float64.
    winograd_error : float
        Largest difference between the trainer with Winograd's convolutions, as it predicts, and
        with direct ones, with which the file is compared; 0 where it uses none.
    float16_error : float
        What rounding to float16 costs, measured for the weights, reckoned for the values between
        operators; 0 for a file in float32.
    tolerance : float
        What ``largest_error`` had to stay below: 1e-5, or four times the larger of
        ``float32_error`` and ``float16_error``.
    """

    runtime: str
    runtime_version: str
    batch_sizes: tuple[int, ...]
    scale: float
    largest_error: float
    float32_error: float
    winograd_error: float
    float16_error: float
    tolerance: float


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportReport(Printed, Proof):
    """An exported file, and the proof that it stood.

    Attributes
    ----------
    path : str
    opset, ir_version, size_bytes, nodes, parameters : int
        ``parameters`` counts the numbers in the file's initializers of float type.
    dtype : str
        Of weights and arithmetic: "float32" or "float16". Inputs and outputs are float32.
    operators : Counter
        How often each operator is used.
    inputs, outputs : dict
        Name → shape in the file; strings are symbolic sizes.
    """

    path: str
    opset: int
    ir_version: int
    size_bytes: int
    nodes: int
    parameters: int
    dtype: str = "float32"
    operators: Counter[str] = field(default_factory=Counter)
    inputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[int | str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        operators = ", ".join(
            f"{count} {op}" if count > 1 else op for op, count in self.operators.most_common()
        )
        batches = ", ".join(map(str, self.batch_sizes))
        rows = [
            ("file", f"{self.path} ({size_text(self.size_bytes)}, {self.parameters:,} parameters)"),
            ("format", f"ONNX opset {self.opset}, IR {self.ir_version}, {self.dtype}"),
            *(("input", f"{name} {_shape(shape)}") for name, shape in self.inputs.items()),
            *(("output", f"{name} {_shape(shape)}") for name, shape in self.outputs.items()),
            ("operators", f"{self.nodes}: {operators}"),
            ("proved by", f"{self.runtime} {self.runtime_version}, batches of {batches}"),
            ("largest error", f"{self.largest_error:.2g} of the output's scale "
                              f"{self.scale:.3g} (tolerance {self.tolerance:.2g})"),
            ("float32 itself", f"{self.float32_error:.2g} away from float64"),
            *([("float16 itself", f"{self.float16_error:.2g}, by rounding weights and values")]
              if self.float16_error else []),
            *([("with Winograd", f"{self.winograd_error:.2g} away from direct convolutions")]
              if self.winograd_error else []),
        ]  # fmt: skip
        return "\n".join(f"{key:<15} {value}" for key, value in rows)


def _shape(shape: tuple[int | str, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
