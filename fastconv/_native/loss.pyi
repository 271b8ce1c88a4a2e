"""Losses with their gradients, and the hits that accuracies count."""

from fastconv._native.split import SplitStep

SCRATCH: int

class SparseCrossEntropy(SplitStep):
    def __init__(
        self,
        rows_per_sample: int,
        classes: int,
        from_logits: bool,
        p: int,
        p_stride: int,
        labels: int,
        loss: int,
        scratch: int,
        weight: int = -1,
        dx: int = -1,
        dx_stride: int | None = None,
        fused: bool = False,
        scale: float = 1.0,
        ignore: int | None = None,
    ) -> None: ...

class CategoricalCrossEntropy(SplitStep):
    def __init__(
        self,
        rows_per_sample: int,
        classes: int,
        from_logits: bool,
        p: int,
        p_stride: int,
        targets: int,
        loss: int,
        scratch: int,
        weight: int = -1,
        dx: int = -1,
        dx_stride: int | None = None,
        fused: bool = False,
        scale: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None: ...

class MeanSquaredError(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        y: int,
        y_stride: int,
        targets: int,
        loss: int,
        scratch: int,
        weight: int = -1,
        dx: int = -1,
        dx_stride: int | None = None,
        scale: float = 1.0,
    ) -> None: ...

class BinaryCrossEntropy(SplitStep):
    def __init__(
        self,
        pixels: int,
        channels: int,
        from_logits: bool,
        p: int,
        p_stride: int,
        targets: int,
        loss: int,
        scratch: int,
        weight: int = -1,
        dx: int = -1,
        dx_stride: int | None = None,
        fused: bool = False,
        scale: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None: ...

class SparseAccuracy(SplitStep):
    def __init__(
        self,
        rows_per_sample: int,
        classes: int,
        y: int,
        y_stride: int,
        targets: int,
        total: int,
    ) -> None: ...

class CategoricalAccuracy(SplitStep):
    def __init__(
        self,
        rows_per_sample: int,
        classes: int,
        y: int,
        y_stride: int,
        targets: int,
        total: int,
    ) -> None: ...

class BinaryAccuracy(SplitStep):
    def __init__(
        self,
        rows_per_sample: int,
        classes: int,
        y: int,
        y_stride: int,
        targets: int,
        total: int,
        threshold: float = 0.5,
    ) -> None: ...
