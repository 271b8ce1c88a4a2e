"""Fashion-MNIST: 70,000 pictures of clothing in the format of MNIST.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747.
"""

from ._files import Published, locate
from .idx import Split, StrPath, load_folder

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MIRRORS = (
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
FILES = {
    "train-images-idx3-ubyte.gz": Published(
        26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": Published(
        29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": Published(
        4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": Published(
        5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}


def load_data(path: StrPath | None = None) -> tuple[Split, Split]:
    """Load Fashion-MNIST, or a data set in its format.

    Parameters
    ----------
    path : str or path-like, optional
        A folder of IDX files (see `idx.load_folder`). Without it: ``$FASTCONV_DATA/fashion-mnist``
        where it exists, then the user's cache, into which what is missing is downloaded and
        checked against its SHA-256.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuples of uint8 ndarray
        Images of shape (n, 28, 28) and labels of shape (n,), indices into `CLASS_NAMES`.
    """
    return load_folder(locate("fashion-mnist", FILES, MIRRORS) if path is None else path)
