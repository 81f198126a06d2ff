"""Filters in the form that kconv's kernels read, made once for many calls."""

import typing

import keras
import tensorflow as tf


class Prepared(typing.NamedTuple):
    """What was prepared, and of what.

    kconv's op uses the form only for a filter that shares its buffer with the source.
    TensorFlow writes to no buffer that something else refers to, so that this is so
    until the filter changes, by whatever means.
    """

    form: typing.Any
    source: typing.Any


class PreparedFilter:
    """A kernel together with what `kconv.ops.prepare_filter` made of it.

    `kconv.ops.conv` takes it in the place of a kernel.

    Attributes:
        kernel: A tensor, the kernel.
        prepared: A tensor of bytes, or None where nothing has a use for one. It
            belongs to this process: do not save it.
        groups: Int, the groups that it was prepared for.
        source: A tensor, what `prepared` was made of: by default `kernel`, as it is
            now. Where `kernel` no longer shares the memory of it, because it was
            changed, it is used alone.
    """

    def __init__(self, kernel, prepared=None, groups=1, source=None):
        if prepared is not None and source is None:
            source = tf.convert_to_tensor(kernel)
        self.kernel = kernel
        self.prepared = prepared
        self.groups = groups
        self.source = source

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
        dtype = keras.backend.standardize_dtype(self.dtype)
        return (
            f"<PreparedFilter shape={tuple(self.shape)}, dtype={dtype}, "
            f"groups={self.groups}, is_prepared={self.prepared is not None}>"
        )


class Slot:
    """A place in a layer for the prepared form of its kernel, and for its source.

    A graph that was traced with it reads variables. So it sees at once that the form
    is replaced, or gone: kconv's op takes an empty vector for none. The source shares
    the memory of the kernel until that changes. The bytes are of no use on another
    machine, so no weights and checkpoints hold the variables, and in a SavedModel they
    are empty.
    """

    def __init__(self):
        self._variables = None  # a `Prepared`
        self._is_filled = False

    def __bool__(self):
        """Whether there is a prepared form."""
        return self._is_filled

    def fill(self, kernel):
        """Keeps what a `PreparedFilter` holds beside its kernel, or nothing."""
        if kernel.prepared is None:
            self.clear()
            return
        if self._variables is None or self._variables.source.dtype != kernel.dtype:
            self.clear()
            self._variables = Prepared(_variable(tf.uint8), _variable(kernel.dtype))
        self._variables.form.assign(kernel.prepared)
        # No copy: both variables refer to one buffer.
        self._variables.source.assign(kernel.source)
        self._is_filled = True

    def clear(self):
        """Gives the memory back."""
        self._is_filled = False
        for variable in self._variables or ():
            variable.assign(tf.zeros((0,), variable.dtype))

    @property
    def trackables(self):
        """What a SavedModel must hold of this: name -> object of TensorFlow's."""
        if self._variables is None:
            return {}
        form, source = self._variables
        return {"prepared": form, "prepared_source": source}

    def around(self, kernel, groups):
        """Returns a `PreparedFilter` of the kernel, or it alone if there is none."""
        if not self:
            return kernel
        form, source = self._variables
        # Another dtype, as of a policy that was set since, is another kernel.
        if keras.backend.standardize_dtype(kernel.dtype) != source.dtype.name:
            return kernel
        return PreparedFilter(kernel, form, groups, source)


def _variable(dtype):
    empty = tf.zeros((0,), dtype)
    variable = tf.Variable(empty, trainable=False, shape=tf.TensorShape(None))
    # Files hold an empty one.
    variable._serialize_to_tensors = lambda: {"VARIABLE_VALUE": empty}
    return variable
