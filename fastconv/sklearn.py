"""scikit-learn estimators: a network with ``fit``, ``predict`` and ``score``.

They stand in pipelines and searches like every other estimator, take tables (n, features) as well
as images (n, H, W, C), and are pickled with their network as the bytes of a model file. The network
itself is ``model_``: it exports, saves and is looked at as always. scikit-learn is the extra
``sklearn``.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastconv import applications, arguments, backend, losses, optimizers, saving, shapes
from fastconv.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from fastconv.model import Model, Sequential

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.model_selection import train_test_split
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "the estimators need scikit-learn 1.6 or newer: pip install 'fastconv[sklearn]'"
    ) from error

__all__ = ["ConvClassifier", "ConvRegressor", "EXPECTED_FAILED_CHECKS", "small"]

# for sklearn.utils.estimator_checks.check_estimator, with the reason
EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "training draws mini-batches: a sample of weight 2 is not seen at the same steps as the "
        "same sample twice"
    ),
}


def small(
    input_shape: Any,
    classes: int,
    *,
    classifier_activation: str | None = "softmax",
    filters: int = 16,
    units: int = 64,
) -> Sequential:
    """Two 3×3 convolutions, pooled where the image is large enough, and two dense layers.

    Parameters
    ----------
    input_shape : (int, int, int)
        Height, width, channels; any size.
    classes : int
        Outputs.
    classifier_activation : str or None
        Of the last layer; None for regression.
    filters : int
        Of the first convolution; the second has twice as many.
    units : int
        Of the first dense layer.
    """
    height, width, _ = input_shape
    stack: list[Any] = [Input(input_shape)]
    for number, count in ((1, filters), (2, 2 * filters)):
        stack.append(Conv2D(count, 3, padding="same", activation="relu", name=f"conv{number}"))
        if min(height, width) >= 4:
            stack.append(MaxPooling2D(2, name=f"pool{number}"))
            height, width = height // 2, width // 2
    stack += [Flatten(name="flatten"), Dense(units, activation="relu", name="dense")]
    stack.append(Dense(classes, activation=classifier_activation, name="outputs"))
    return Sequential(stack, "small")


BUILT_IN: dict[str, Callable[..., Model]] = {
    "small": small,
    "lenet5": applications.LeNet5,
    "mnist": applications.MNISTNet,
    "cifar-vgg": applications.CifarVGG,
    "resnet20": applications.ResNet20,
}


class _ConvEstimator(BaseEstimator):
    """What classifier and regressor share: how a network is made, trained, asked and kept."""

    _loss = ""  # where none is named
    _activation: str | None = None  # of a built-in network's last layer
    _metrics: tuple[str, ...] = ()

    def __init__(
        self,
        model: Any = "small",
        *,
        model_options: Mapping[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        optimizer: Any = "adam",
        learning_rate: Any = None,
        loss: Any = "auto",
        epochs: int = 20,
        batch_size: int = 32,
        validation_fraction: float = 0.0,
        callbacks: Any = None,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.model = model
        self.model_options = model_options
        self.image_shape = image_shape
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    # -- training -----------------------------------------------------------------------------

    def _begin(self, outputs: int) -> None:
        """A new network for the images that were seen, with fresh weights."""
        self._random = check_random_state(self.random_state)
        with self._seeded():
            model = self._build(outputs)
            model.compile(
                self._fresh_optimizer(), self._loss_used(), metrics=list(self._metrics) or None
            )
        self.model_ = model
        self.history_: dict[str, list[float]] = {}

    def _build(self, outputs: int) -> Model:
        options = dict(self.model_options or {})
        if isinstance(self.model, str):
            name = self.model.replace("_", "-")
            make = BUILT_IN[shapes.choice(name, BUILT_IN, "network")]
            options = {"classifier_activation": self._activation, **options}
        elif callable(self.model) and not isinstance(self.model, Model):
            make = self.model
        else:
            raise ValueError(
                "model is a function (image_shape, outputs) → model, or one of "
                f"{', '.join(BUILT_IN)}, not {self.model!r}: every fit begins with a new network"
            )
        try:
            model = make(self.image_shape_, outputs, **options)
        except ValueError as error:
            if not isinstance(self.model, str):
                raise
            shape = "×".join(map(str, self.image_shape_))
            row = self.image_shape is None and self.image_shape_[0] == 1
            hint = "; image_shape tells how the features stand in an image" if row else ""
            raise ValueError(
                f"the network {self.model!r} cannot take images of {shape}: {error}{hint}"
            ) from error
        if not isinstance(model, Model):
            raise ValueError(f"the function {make!r} returns {type(model).__name__}, not a model")
        if len(model.outputs) != 1 or model.outputs[0].sample_shape != (outputs,):
            found = [shapes.shape_text(tensor.sample_shape) for tensor in model.outputs]
            raise ValueError(
                f"the network {model.name} gives {' and '.join(found)} for an image; "
                f"{outputs} numbers are needed"
            )
        return model

    def _fresh_optimizer(self) -> Any:
        optimizer = optimizers.get(copy.deepcopy(self.optimizer))
        if self.learning_rate is not None:
            rate = self.learning_rate
            optimizer = optimizers.get(
                {"name": optimizer.name, **optimizer.get_config(), "learning_rate": rate}
            )
        return optimizer

    def _loss_used(self) -> losses.Loss:
        return losses.get(self._loss if self.loss == "auto" else self.loss)

    def _train(self, x: np.ndarray, y: np.ndarray, weights: Any, epochs: int, held: float) -> None:
        """Train the network that is there, keeping a share of the samples for validation."""
        images = self._images(x)
        validation: tuple[Any, ...] | None = None
        if not 0 <= held < 1:
            raise ValueError(f"validation_fraction is at least 0 and below 1, not {held!r}")
        if weights is not None:
            weights = _check_sample_weight(weights, images)
        if held:
            index = np.arange(len(y))
            index, kept = train_test_split(
                index, test_size=held, random_state=self._seed(), stratify=self._strata(y)
            )
            validation = (images[kept], y[kept])
            if weights is not None:
                validation, weights = (*validation, weights[kept]), weights[index]
            images, y = images[index], y[index]
        with self._seeded():
            history = self.model_.fit(
                images, y, sample_weight=weights, epochs=epochs, batch_size=self.batch_size,
                validation_data=validation, verbose=self.verbose,
                callbacks=copy.deepcopy(self.callbacks),  # each fit has its own
            )  # fmt: skip
        for name, values in history.history.items():
            self.history_.setdefault(name, []).extend(values)

    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        """What the validation samples are drawn by."""
        return None

    def _seed(self) -> int:
        return int(self._random.randint(np.iinfo(np.int32).max))

    def _seeded(self) -> Any:
        """Everything random within follows ``random_state``; the process' generator stays."""
        return backend.seeded(backend.next_seed() if self.random_state is None else self._seed())

    # -- data ---------------------------------------------------------------------------------

    def _validated(self, x: Any, *y: Any, first: bool = False, **options: Any) -> Any:
        """X as a table (n, features), and y; what is not fit for an estimator is refused."""
        x = x if hasattr(x, "shape") else np.asarray(x)
        given = tuple(x.shape)
        if first:
            self.image_shape_ = self._shape(given)
        if len(given) > 2:  # images: their pixels are the features
            if not first and given[1:] not in (self.image_shape_, self.image_shape_[:-1]):
                raise ValueError(
                    f"X holds images of {shapes.shape_text(given[1:])}, the network takes "
                    f"{shapes.shape_text(self.image_shape_)}"
                )
            x = np.asarray(x).reshape(given[0], -1)
        return validate_data(self, x, *y, reset=first, **options)

    def _shape(self, given: tuple[int, ...]) -> tuple[int, ...]:
        """One image's (H, W, C), from the parameter or from X."""
        found: tuple[int, ...]
        if len(given) in (3, 4):
            found = given[1:] if len(given) == 4 else (*given[1:], 1)
        elif len(given) == 2:
            found = (1, given[1], 1)  # a row of pixels
        elif len(given) < 2:
            return ()  # validate_data says what is wrong
        else:
            raise ValueError(
                f"X holds rows (n, features) or images (n, H, W) or (n, H, W, C), not {given}"
            )
        if self.image_shape is None:
            return found
        told = tuple(shapes.integer(size, "image_shape") for size in self.image_shape)
        told = (*told, 1) if len(told) == 2 else told
        if len(told) != 3:
            raise ValueError(f"image_shape is (height, width, channels), not {self.image_shape!r}")
        if (told != found) if len(given) > 2 else (math.prod(told) != given[1]):
            raise ValueError(
                f"image_shape {told} does not fit X of shape {given}: {math.prod(told)} numbers "
                f"an image, not {math.prod(given[1:])}"
            )
        return told

    def _images(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), *self.image_shape_)

    def _outputs(self, x: Any) -> np.ndarray:
        """What the network makes of X."""
        check_is_fitted(self, "model_")
        y = self.model_.predict(self._images(self._validated(x)))
        assert isinstance(y, np.ndarray)
        return y

    # -- copies -------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "model_" in state:
            state["model_"] = saving.to_bytes(state["model_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "model_" in state:
            classes = {"Sequential": Sequential, "Model": Model}
            state["model_"] = saving.from_bytes(state["model_"], classes)
        super().__setstate__(state)


class ConvClassifier(ClassifierMixin, _ConvEstimator):
    """A network that tells classes apart, as a scikit-learn estimator.

    Parameters
    ----------
    model : str or callable
        "small" (see `small`); "lenet5", "mnist", "cifar-vgg" or "resnet20" (see
        `fastconv.applications`); or a function that takes one image's shape and the number of
        classes and returns a new network, which ends in as many probabilities. It is compiled by
        ``fit``.
    model_options : dict, optional
        Further arguments of that function: ``{"include_preprocessing": True}`` for images of bytes.
    image_shape : (height, width, channels), optional
        How the features of a table (n, features) stand in an image. By default a row of pixels;
        X may also be images (n, H, W, C) or (n, H, W).
    optimizer : str, dict or Optimizer
    learning_rate : float, optional
        The optimizer's, where its own is not wanted; easily searched over.
    loss : str or Loss
        "auto" is the cross-entropy of class numbers. One with ``from_logits=True`` goes with a
        network that ends in logits.
    epochs, batch_size : int
    validation_fraction : float
        This share of the samples, of each class, is kept for validation: for
        ``callbacks=[EarlyStopping(...)]``.
    callbacks : list of Callback, optional
        Every fit has copies of its own.
    random_state : int, RandomState or None
        Of weights, order and dropout. None: they follow `fastconv.set_random_seed`.
    verbose : 0, 1, 2 or "auto"
        As in `Model.fit`.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted: those of ``y``, of any type.
    model_ : Model
        The trained network: ``model_.export("net.onnx")``.
    history_ : dict of str to list of float
        Loss and metrics of each epoch.
    image_shape_ : tuple of int
    n_features_in_ : int
        Numbers of an image.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> x, y = load_digits(return_X_y=True)
    >>> net = ConvClassifier(image_shape=(8, 8, 1), epochs=5, random_state=0)
    >>> cross_val_score(net, x / 16, y, cv=3)  # doctest: +SKIP
    array([0.95, 0.97, 0.96])
    """

    _loss = "sparse_categorical_crossentropy"
    _activation = "softmax"
    _metrics = ("accuracy",)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ConvClassifier":
        """Train a new network.

        Parameters
        ----------
        X : array (n, features), (n, H, W) or (n, H, W, C)
        y : array (n,)
            Labels of any type.
        sample_weight : array (n,), optional
        """
        X, y = self._validated(X, y, first=True)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self._begin(len(self.classes_))
        self._train(X, numbers, sample_weight, self.epochs, self.validation_fraction)
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> "ConvClassifier":
        """One epoch more on these samples; the first call needs all classes.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array, optional
            All labels that will come.
        """
        first = not hasattr(self, "model_")
        X, y = self._validated(X, y, first=first)
        check_classification_targets(y)
        if first:
            if classes is None:
                raise ValueError("classes must be given to the first call of partial_fit")
            self.classes_ = np.unique(classes)
        elif classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
            raise ValueError(f"classes are {self.classes_} since the first call, not {classes}")
        if len(unknown := np.setdiff1d(y, self.classes_)):
            raise ValueError(f"y holds {unknown[0]}, which is none of the classes")
        if first:
            self._begin(len(self.classes_))
        self._train(X, np.searchsorted(self.classes_, y), sample_weight, 1, 0.0)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes), in the order of ``classes_``."""
        y = self._outputs(X)
        if getattr(self._loss_used(), "from_logits", False):
            y = np.exp(y - y.max(axis=1, keepdims=True))
            y /= y.sum(axis=1, keepdims=True)
        return y

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each sample, (n,)."""
        best = self._outputs(X).argmax(axis=1)
        return self.classes_[best]

    def _strata(self, y: np.ndarray) -> np.ndarray:
        return y


class ConvRegressor(RegressorMixin, _ConvEstimator):
    """A network that estimates numbers, one or several per image, as a scikit-learn estimator.

    Parameters
    ----------
    model, model_options, image_shape, optimizer, learning_rate, epochs, batch_size, callbacks
        As in `ConvClassifier`; the network ends in as many linear outputs as there are targets.
    loss : str or Loss
        "auto" is the mean squared error.
    validation_fraction : float
        This share of the samples is kept for validation.
    random_state, verbose
        As in `ConvClassifier`.

    Attributes
    ----------
    model_ : Model
    history_ : dict of str to list of float
    image_shape_ : tuple of int
    n_features_in_, n_outputs_ : int
    """

    _loss = "mean_squared_error"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ConvRegressor":
        """Train a new network.

        Parameters
        ----------
        X : array (n, features), (n, H, W) or (n, H, W, C)
        y : array (n,) or (n, targets)
            Targets of about unit size are learned fastest: see scikit-learn's
            ``TransformedTargetRegressor``.
        sample_weight : array (n,), optional
        """
        X, y = self._targets(X, y, first=True)
        self._begin(self.n_outputs_)
        self._train(X, y, sample_weight, self.epochs, self.validation_fraction)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ConvRegressor":
        """One epoch more on these samples; arguments as in `fit`."""
        first = not hasattr(self, "model_")
        X, y = self._targets(X, y, first)
        if first:
            self._begin(self.n_outputs_)
        self._train(X, y, sample_weight, 1, 0.0)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The targets of each sample, in the form of ``y``: (n,) or (n, targets)."""
        y = self._outputs(X).astype(np.float64)
        return y if self._table else y[:, 0]

    def _targets(self, X: Any, y: Any, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """X, and y as a table."""
        X, y = self._validated(X, y, first=first, multi_output=True, y_numeric=True)
        table = y.reshape(len(y), -1)
        if first:
            self._table, self.n_outputs_ = y.ndim > 1, table.shape[1]
        elif table.shape[1] != self.n_outputs_:
            raise ValueError(f"y has {table.shape[1]} targets, {self.n_outputs_} before")
        return X, table

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


arguments.explain(globals())
