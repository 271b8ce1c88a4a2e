"""The handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels, no download.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository: the test part of that set, each pixel the sum of a 4 x 4 block of a bitmap.
"""

import numpy as np
from numpy.typing import NDArray

from .idx import Split


def load_data(test_fraction: float = 0.2, seed: int = 0) -> tuple[Split, Split]:
    """Load the digits, split so that every class has the same share of test images.

    Parameters
    ----------
    test_fraction : float
        Share of the images that is kept for the test, between 0 and 1, both excluded. Each class
        has at least one image on either side.
    seed : int
        Chooses the split and the order of the images; the same seed gives the same arrays.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of uint8 ndarray
        Images of shape (n, 8, 8), 0 = paper to 16 = ink, and labels of shape (n,), 0 to 9.

    Raises
    ------
    ImportError
        scikit-learn is not installed.
    ValueError
        `test_fraction` or `seed` is out of range.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must lie between 0 and 1, got {test_fraction!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "the digits come with scikit-learn, which is not installed: "
            "pip install 'fastconv[sklearn]'"
        ) from None
    bunch = load_digits()
    x, y = bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)
    train, test = _stratified_split(y, test_fraction, seed)
    return (x[train], y[train]), (x[test], y[test])


def _stratified_split(y: NDArray, test_fraction: float, seed: int) -> tuple[NDArray, NDArray]:
    """Return the shuffled indices of the training and of the test samples."""
    # numpy promises the stream of a bit generator for good, that of `Generator.permutation` not.
    order = np.argsort(np.random.PCG64(seed).random_raw(len(y)), kind="stable")
    is_test = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = order[y[order] == label]
        count = min(max(round(test_fraction * len(members)), 1), len(members) - 1)
        is_test[members[:count]] = True
    return order[~is_test[order]], order[is_test[order]]
