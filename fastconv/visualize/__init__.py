"""Pictures of a network: how it was trained, what it has learned, what it looks at, where it errs.

Every picture is a function that returns a matplotlib ``Figure`` of its own: ``.savefig("a.png")``
writes it, a notebook shows it. Nothing here opens a window or touches pyplot's state. matplotlib is
the extra ``viz``. Functions that end in ``_map``, and `confusion_counts` and `maximized_inputs`,
give the numbers that are drawn.
"""

from fastconv.visualize._confusion import confusion_counts, confusion_matrix
from fastconv.visualize._errors import wrong_predictions
from fastconv.visualize._excitation import maximize_activation, maximized_inputs
from fastconv.visualize._features import feature_maps
from fastconv.visualize._filters import filters
from fastconv.visualize._grad_cam import grad_cam, grad_cam_map
from fastconv.visualize._history import history
from fastconv.visualize._occlusion import occlusion, occlusion_map
from fastconv.visualize._saliency import saliency, saliency_map

__all__ = [
    "confusion_counts", "confusion_matrix", "feature_maps", "filters", "grad_cam", "grad_cam_map",
    "history", "maximize_activation", "maximized_inputs", "occlusion", "occlusion_map", "saliency",
    "saliency_map", "wrong_predictions",
]  # fmt: skip
