"""The networks that `train` and `bench` know by name: those of `fastconv.applications`."""

from typing import Any, NamedTuple

from fastconv import shapes


class Network(NamedTuple):
    """How a named network is made, and what it is usually trained with."""

    function: str  # of fastconv.applications
    size: tuple[int, int]
    channels: int
    batch: int

    def make(self, shape: tuple[int, ...] | None = None, classes: int = 10, **options: Any) -> Any:
        """The network with fresh weights; by default for its usual images and ten classes."""
        from fastconv import applications

        function = getattr(applications, self.function)
        return function(shape or (*self.size, self.channels), classes, **options)


NETWORKS = {
    "lenet5": Network("LeNet5", (28, 28), 1, 64),
    "mnist": Network("MNISTNet", (28, 28), 1, 128),
    "cifar-vgg": Network("CifarVGG", (32, 32), 3, 64),
    "resnet20": Network("ResNet20", (32, 32), 3, 128),
}


def named(name: str) -> Network:
    """The network of this name; a ValueError with the nearest ones where there is none."""
    return NETWORKS[shapes.choice(name.replace("_", "-"), NETWORKS, "network")]
