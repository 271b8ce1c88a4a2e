"""The networks in PyTorch, as `fastconv_networks.py` has them. They end in logits: the softmax is
part of the loss in training, and is applied outside at inference."""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import nn

DROPOUT = 0.5


def scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def lenet5(size: int = 28, width: float = 1, dropout: bool = True) -> nn.Module:
    c1, c3, c5, f6 = (scaled(n, width) for n in (6, 16, 120, 84))
    side = (size // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(1, c1, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(c1, c3, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(side * side * c3, c5), nn.Tanh(), nn.Linear(c5, f6), nn.Tanh(),
        nn.Linear(f6, 10),
    )  # fmt: skip


def mnist(size: int = 28, width: float = 1, dropout: bool = True) -> nn.Module:
    c1, c2, units = (scaled(n, width) for n in (32, 64, 128))
    side = (size - 4) // 2
    return nn.Sequential(
        nn.Conv2d(1, c1, 3), nn.ReLU(inplace=True), nn.Conv2d(c1, c2, 3), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Dropout(0.25 * dropout), nn.Flatten(),
        nn.Linear(side * side * c2, units), nn.ReLU(inplace=True), nn.Dropout(DROPOUT * dropout),
        nn.Linear(units, 10),
    )  # fmt: skip


def norm(channels: int) -> nn.Module:
    """With Keras' epsilon and moving average; PyTorch's momentum is the weight of the new value."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def cifar_vgg(size: int = 32, width: float = 1, dropout: bool = True) -> nn.Module:
    stack, channels = [], 3
    for filters in (scaled(n, width) for n in (32, 64, 128)):
        for _ in range(2):
            conv = nn.Conv2d(channels, filters, 3, padding=1, bias=False)
            stack += [conv, norm(filters), nn.ReLU(inplace=True)]
            channels = filters
        stack.append(nn.MaxPool2d(2))
    units = scaled(128, width)
    return nn.Sequential(
        *stack, nn.Flatten(), nn.Linear((size // 8) ** 2 * channels, units),
        nn.ReLU(inplace=True), nn.Linear(units, 10),
    )  # fmt: skip


def conv_norm(channels: int, filters: int, kernel: int = 3, stride: int = 1) -> nn.Module:
    pad = (kernel - 1) // 2
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, stride, pad, bias=False), norm(filters)
    )


class Block(nn.Module):
    """A residual block: ``relu(body(x) + skip(x))``."""

    def __init__(self, body: nn.Module, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = channels == filters and stride == 1
        self.skip = nn.Identity() if same else conv_norm(channels, filters, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.skip(x))


def basic_block(channels: int, filters: int, stride: int) -> Block:
    body = nn.Sequential(
        conv_norm(channels, filters, 3, stride), nn.ReLU(inplace=True), conv_norm(filters, filters)
    )
    return Block(body, channels, filters, stride)


def bottleneck(channels: int, filters: int, stride: int) -> Block:
    body = nn.Sequential(
        conv_norm(channels, filters, 1), nn.ReLU(inplace=True),
        conv_norm(filters, filters, 3, stride), nn.ReLU(inplace=True),
        conv_norm(filters, 4 * filters, 1),
    )  # fmt: skip
    return Block(body, channels, 4 * filters, stride)


def resnet20(size: int = 32, width: float = 1, dropout: bool = True) -> nn.Module:
    channels = scaled(16, width)
    stack = [conv_norm(3, channels), nn.ReLU(inplace=True)]
    for filters, first in ((16, 1), (32, 2), (64, 2)):
        for stride in (first, 1, 1):
            stack.append(basic_block(channels, scaled(filters, width), stride))
            channels = scaled(filters, width)
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def imagenet_resnet(
    block: Callable[..., Block], growth: int, depths: tuple[int, ...], width: float
) -> nn.Module:
    channels = scaled(64, width)
    stack = [conv_norm(3, channels, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        filters = scaled(64 << stage, width)
        for number in range(depth):
            stack.append(block(channels, filters, 2 if stage and number == 0 else 1))
            channels = growth * filters
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def resnet18(size: int = 224, width: float = 1, dropout: bool = True) -> nn.Module:
    return imagenet_resnet(basic_block, 1, (2, 2, 2, 2), width)


def resnet50(size: int = 224, width: float = 1, dropout: bool = True) -> nn.Module:
    return imagenet_resnet(bottleneck, 4, (3, 4, 6, 3), width)


def vgg16(size: int = 224, width: float = 1, dropout: bool = True) -> nn.Module:
    stack, channels = [], 3
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            stack.append(nn.Conv2d(channels, scaled(filters, width), 3, padding=1))
            stack.append(nn.ReLU(inplace=True))
            channels = scaled(filters, width)
        stack.append(nn.MaxPool2d(2))
    stack.append(nn.Flatten())
    features, units = (size // 32) ** 2 * channels, scaled(4096, width)
    for _ in range(2):
        stack += [nn.Linear(features, units), nn.ReLU(inplace=True), nn.Dropout(DROPOUT * dropout)]
        features = units
    return nn.Sequential(*stack, nn.Linear(units, 1000))


def alexnet(size: int = 224, width: float = 1, dropout: bool = True) -> nn.Module:
    c1, c2, c3, c4, units = (scaled(n, width) for n in (64, 192, 384, 256, 4096))
    side = (size + 4 - 11) // 4 + 1
    for _ in range(3):
        side = (side - 3) // 2 + 1
    return nn.Sequential(
        nn.Conv2d(3, c1, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(c4, c4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Dropout(DROPOUT * dropout), nn.Linear(side * side * c4, units), nn.ReLU(inplace=True),
        nn.Dropout(DROPOUT * dropout), nn.Linear(units, units), nn.ReLU(inplace=True),
        nn.Linear(units, 1000),
    )  # fmt: skip


MOBILENET = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet(size: int = 224, width: float = 1, dropout: bool = True) -> nn.Module:
    channels = scaled(32, width)
    stack = [conv_norm(3, channels, 3, 2), nn.ReLU(inplace=True)]
    for filters, stride in MOBILENET:
        stack += [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
            norm(channels), nn.ReLU(inplace=True),
            conv_norm(channels, scaled(filters, width), 1), nn.ReLU(inplace=True),
        ]  # fmt: skip
        channels = scaled(filters, width)
    return nn.Sequential(*stack, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class UNet(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            self.pair(channels, filters)
            for channels, filters in zip([1, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, 2) for c, f in up)
        self.join = nn.ModuleList(self.pair(2 * f, f) for _, f in up)
        self.head = nn.Conv2d(widths[0], 2, 1)

    @staticmethod
    def pair(channels: int, filters: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in self.down[:-1]:
            skips.append(down(x))
            x = self.pool(skips[-1])
        x = self.down[-1](x)
        for up, join, skip in zip(self.up, self.join, reversed(skips), strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


def unet(size: int = 128, width: float = 1, dropout: bool = True) -> nn.Module:
    return UNet([scaled(32 << level, width) for level in range(5)])


# -- what is in a module --------------------------------------------------------------------------

WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def trace(
    model: nn.Module, shape: tuple[int, int, int]
) -> list[tuple[nn.Module, torch.Size, torch.Size]]:
    """The leaves in the order in which they run on one sample (H, W, C), with their input's and
    their output's shape."""
    found: list[tuple[nn.Module, torch.Size, torch.Size]] = []
    leaves = [m for m in model.modules() if not list(m.children())]
    hooks = [
        leaf.register_forward_hook(lambda m, x, y: found.append((m, x[0].shape, y.shape)))
        for leaf in leaves
    ]
    training = model.training
    with torch.inference_mode():
        model.eval()(torch.zeros(1, shape[2], *shape[:2]))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return found


def multiply_adds(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Of the forward pass of one sample: convolutions and dense layers."""
    total = 0
    for module, x, y in trace(model, shape):
        if isinstance(module, nn.ConvTranspose2d):
            total += module.weight.numel() * prod(x[2:])
        elif isinstance(module, WEIGHTED):
            total += module.weight.numel() * prod(y[2:])
    return total


def set_weights(
    model: nn.Module,
    shape: tuple[int, int, int],
    weight: Callable[[int, tuple[int, ...]], np.ndarray],
) -> None:
    """Weights ``weight(number, shape in fastconv's order of axes)``, and biases of zero."""
    number, flattened = 0, None
    for module, x, _ in trace(model, shape):
        if isinstance(module, nn.Flatten):
            flattened = x[1:]  # (C, H, W)
        if not isinstance(module, WEIGHTED):
            continue
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(_converted(module, number, flattened, weight)))
            if module.bias is not None:
                module.bias.zero_()
        number, flattened = number + 1, None


def _converted(
    module: nn.Module,
    number: int,
    flattened: torch.Size | None,
    weight: Callable[[int, tuple[int, ...]], np.ndarray],
) -> np.ndarray:
    theirs = tuple(module.weight.shape)
    if isinstance(module, nn.Linear):
        units, features = theirs
        values = weight(number, (features, units))
        if flattened is not None:  # fastconv flattens (H, W, C), PyTorch (C, H, W)
            channels, *spatial = flattened
            values = np.moveaxis(values.reshape(*spatial, channels, units), 2, 0)
        return values.reshape(features, units).T
    # (KH, KW, IC, OC), (KH, KW, OC, IC) transposed, (KH, KW, C, 1) depthwise: axes 2, 3, 1, 0
    # of PyTorch's (OC, IC, …), (IC, OC, …) and (C, 1, …)
    depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
    order = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    values = weight(number, tuple(theirs[axis] for axis in order))
    return values.transpose(np.argsort(order))
