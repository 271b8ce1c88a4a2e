"""What a product's sums go through on their way out: bias, batch norm, residual, activation."""

from fastconv._native.activation cimport carried
from fastconv._native.tiles cimport address

from fastconv._native.checks import distinct, extent, stride_of, strided, whole


cdef class Epilogue:
    """y = f((sum + bias − mean) · scale + shift + residual), as `norm.BatchNormForward` has it.

    Parameters
    ----------
    pixels, channels : int
        Of one sample of y.
    y : int
        Slot of the result.
    bias : int
        Slot, (channels,), −1 for none.
    activation : (kind, alpha, beta, gamma), optional
        f as in `activation.ActivationForward`: linear (None), relu or leaky_relu.
    norm : (mean, scale, shift), optional
        Slots, (channels,), the scale as `norm.BatchNormScale` writes it; shift −1: zeros.
    residual, residual_stride : int
        Slot, (n, pixels, channels), and its pixel stride; −1: none.

    Attributes
    ----------
    reads : tuple of Extent
        For the step whose epilogue it is.
    """

    def __init__(self, pixels, channels, y, bias=-1, activation=None, norm=None, residual=-1,
                 residual_stride=None):
        self.f = carried(activation)
        self.bias, self.residual = whole("bias", bias, -1), whole("residual", residual, -1)
        self.mean, self.scale, self.shift = norm or (-1, -1, -1)
        if norm:
            whole("mean", self.mean, 0)
            whole("scale", self.scale, 0)
            whole("shift", self.shift, -1)
        vectors = [slot for slot in (self.bias, self.mean, self.scale, self.shift) if slot >= 0]
        for slot in vectors:
            distinct(vector=slot, y=y)
        self.reads = tuple(extent(slot, 0, channels) for slot in vectors)
        self.residual_stride = channels
        if residual >= 0:
            distinct(residual=residual, y=y)
            self.residual_stride = stride_of("residual_stride", residual_stride, channels)
            self.reads += (strided(residual, pixels, channels, residual_stride),)

    @property
    def plain(self):
        """Whether there is a bias at most."""
        return self.scale < 0 and self.residual < 0 and self.f.kind == 0

    cdef fc_epilogue bound(self, Context *c) noexcept nogil:
        """With the addresses of a run."""
        cdef fc_epilogue e
        e.bias, e.mean = address(c, self.bias), address(c, self.mean)
        e.scale, e.shift = address(c, self.scale), address(c, self.shift)
        e.residual, e.residual_stride = address(c, self.residual), self.residual_stride
        e.moments, e.moments_stride = NULL, 0
        e.f = self.f
        return e
