"""Run an ONNX file by onnx's reference evaluator: ``_reference.py FILE INPUTS.npz OUTPUTS.npz``.

Arrays are named ``<batch number>/<tensor>``; the outputs' names are printed as JSON.
"""

import json
import sys
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator


def main(path: str, source: str, target: str) -> None:
    evaluator = ReferenceEvaluator(path)
    feeds: dict[str, dict[str, np.ndarray]] = {}
    with np.load(source) as arrays:
        for key in arrays.files:
            batch, name = key.split("/", 1)
            feeds.setdefault(batch, {})[name] = arrays[key]
    found: dict[str, Any] = {}
    for batch, feed in feeds.items():
        outputs = evaluator.run(None, feed)
        for name, value in zip(evaluator.output_names, outputs, strict=True):
            found[f"{batch}/{name}"] = value
    np.savez(target, **found)
    print(json.dumps(list(evaluator.output_names)))


if __name__ == "__main__":
    main(*sys.argv[1:])
