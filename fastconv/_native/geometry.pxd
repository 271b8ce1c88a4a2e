"""Where the taps of a convolution read, for the walks that compute it."""

from fastconv._native.tiles cimport TALLEST

cdef enum:
    DEPTH = 2048        # taps × channels summed at a time: a panel of 256 KB stays in the L2 cache
    POINTERS = 4096     # source pointers of a block and chunk
    TAPS = POINTERS // TALLEST  # taps of a chunk
    WALK = 1024         # pixels that a weight gradient walks over at a time
    PIECES = 16         # of a batch, at most,
    COPIES = 1 << 18    # while their copies of dw have no more elements than this

cdef struct Lattice:
    # destination pixels start + j * step, 0 ≤ j < count; tap t reads pixel j * move + shift[t]
    Py_ssize_t[3] count, start, step, move
    Py_ssize_t taps, first      # first: place of tap 0 in a panel
    Py_ssize_t *shift           # [taps][3]
    Py_ssize_t *delta           # [taps]: the shift in elements of the source
    Py_ssize_t[3] low, high     # smallest and largest shift
    Py_ssize_t run              # so many taps in a row read on without a gap

cdef struct Gather:
    Py_ssize_t[3] src, dst      # extents of an image
    Py_ssize_t src_stride, dst_stride
    Py_ssize_t depth, width     # channels of a group, summed over and written
    Py_ssize_t groups, taps     # taps of a panel

cdef struct Rectangle:
    # outputs first..last to which a tap brings a pixel; output o reads input o * stride + shift
    Py_ssize_t[3] first, last
    Py_ssize_t delta            # the shift in elements of x

cdef struct Outer:
    Py_ssize_t[3] out
    Py_ssize_t[4] x_step, dy_step   # elements from sample to sample, plane, row, pixel of y
    Py_ssize_t depth, width, groups, taps
    Py_ssize_t span             # taps that lie side by side in x, pixel after pixel
    Py_ssize_t walk             # pixels of y that are walked at a time
    bint scattered              # a tap's pixels lie far apart

cdef class ConvGeometry:
    cdef readonly tuple in_size, out_size, kernel, strides, dilation, pads
    cdef readonly Py_ssize_t channels, filters, groups, x_stride, y_stride
    cdef readonly Py_ssize_t weight_size, forward_panel_size, backward_panel_size
    cdef Gather forward, backward
    cdef Lattice outputs            # of the forward walk
    cdef Lattice *phases            # of the input gradient
    cdef Py_ssize_t phase_count
    cdef Py_ssize_t *order          # [taps]: the tap at each place of a backward panel
    cdef Outer outer                # of the weight gradient
    cdef Rectangle *seen            # [taps]

    cdef Py_ssize_t pieces(self, Py_ssize_t n) noexcept nogil
