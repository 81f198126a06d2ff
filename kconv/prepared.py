"""Filters in the form that kconv's kernels read, made once for many calls."""

import tensorflow as tf


class PreparedFilter:
    """A kernel together with what `kconv.ops.prepare_filter` made of it.

    `kconv.ops.conv` takes it in the place of a kernel.

    Attributes:
        kernel: A tensor, the kernel.
        prepared: A tensor of bytes, or None where nothing has a use for one. It
            belongs to this process: do not save it.
        groups: Int, the groups that it was prepared for.
    """

    def __init__(self, kernel, prepared=None, groups=1):
        self.kernel = kernel
        self.prepared = prepared
        self.groups = groups

    @property
    def shape(self):
        """Shape of the kernel."""
        return self.kernel.shape

    @property
    def dtype(self):
        """Dtype of the kernel."""
        return self.kernel.dtype

    def __repr__(self):
        """Tells the kernel, and whether something was prepared."""
        return (
            f"<PreparedFilter shape={tuple(self.shape)}, dtype={self.dtype.name}, "
            f"groups={self.groups}, is_prepared={self.prepared is not None}>"
        )


class Slot:
    """A place in a layer for the prepared form of its kernel.

    A graph that was traced with it reads a variable. So it sees at once that the form
    is replaced, or gone: kconv's op takes an empty vector for none. The bytes are of no
    use on another machine, so no weights and checkpoints hold the variable, and in a
    SavedModel it is empty.
    """

    def __init__(self):
        self._variable = None
        self._is_filled = False

    def __bool__(self):
        """Whether there is a prepared form."""
        return self._is_filled

    def fill(self, prepared):
        """Keeps the bytes of a `PreparedFilter`, or none if they are None."""
        if prepared is None:
            self.clear()
            return
        if self._variable is None:
            self._variable = tf.Variable(prepared, trainable=False, shape=(None,))
            # Files hold an empty one.
            self._variable._serialize_to_tensors = lambda: {
                "VARIABLE_VALUE": tf.zeros((0,), tf.uint8)
            }
        else:
            self._variable.assign(prepared)
        self._is_filled = True

    def clear(self):
        """Gives the memory back."""
        self._is_filled = False
        if self._variable is not None:
            self._variable.assign(tf.zeros((0,), tf.uint8))

    @property
    def trackables(self):
        """What a SavedModel must hold of this: name -> object of TensorFlow's."""
        return {} if self._variable is None else {"prepared": self._variable}

    def around(self, kernel, groups):
        """Returns a `PreparedFilter` of the kernel, or it alone if this is empty."""
        return PreparedFilter(kernel, self._variable, groups) if self else kernel
