"""Receptive fields, kind by kind.

Each function takes a `Call` and returns the `Fields` of its outputs, or a list with
those of each.
"""

import math

from kconv.profiler import macs
from kconv.profiler import receptive_field as rf
from kconv.spec import plain, same_pads


def keep(call):
    """Of what computes each place from the same place of its operands."""
    rank = len(call.output_shape)
    found = []
    for shape, fields in call.operands:
        moved = rank - len(shape)
        if moved < 0:
            found.append(fields.shuffle(shape))
            continue
        # What is broadcast is the same everywhere.
        ones = [n for n, size in enumerate(shape) if size == 1]
        ones = [n for n in ones if call.output_shape[n + moved] != 1]
        fields = fields.collapse(shape, ones)
        found.append(fields.place([n + moved for n in range(len(shape))]))
    return rf.union(found)


def everywhere(call):
    """Of what reads all of its operands for each element."""
    return rf.union(fields.collapse_all(shape) for shape, fields in call.operands)


def unknown(call):
    """Of what moves pixels in a way that is not known here."""
    return rf.union(fields.shuffle(shape) for shape, fields in call.operands)


def convolution(find):
    """Returns the function for a kind whose convolutions `find` finds."""

    def fields(call):
        found = call.operands[0][1]
        for one in find(call):
            found = found.collapse(one.input_shape, [one.channel_axis])
            found = found.along(_seen_by(one), one.axes)
        return found

    return fields


def deformable(find, first=1):
    """Returns the function for a convolution that reads where offsets move it.

    It is that of offsets of zero, and what the offsets see.

    Args:
        find: As of `convolution`.
        first: Int, the operand that the offsets are, if they are one.
    """
    regular = convolution(find)

    def fields(call):
        (one,) = find(call)
        moving = [operand for operand in call.operands[first:] if len(operand[0]) == 4]
        moved = (seen.collapse(shape, [one.channel_axis]) for shape, seen in moving)
        return rf.union([regular(call), *moved])

    return fields


def _seen_by(convolution):
    spec, axes = convolution.spec, convolution.axes
    function = rf.transposed if convolution.is_transposed else rf.window

    def seen(axis, place):
        n = axes.index(place)
        return function(
            axis,
            convolution.kernel_shape[n],
            spec.strides[n],
            spec.dilation_rate[n],
            convolution.pads[n][0],
        )

    return seen


def dense(call):
    """Of `Dense`: all of the last axis."""
    shape, fields = call.operands[0]
    return fields.collapse(shape, [len(shape) - 1])


def einsum_dense(call):
    """Of `EinsumDense`."""
    shape, fields = call.operands[0]
    operands = [(shape, fields), (tuple(call.operation.kernel.shape), rf.Fields())]
    return _of_equation(call.operation.equation, operands)


def einsum(call):
    """Of `keras.ops.einsum`."""
    return _of_equation(call.operation.subscripts, call.operands)


def _of_equation(equation, operands):
    letters, result = macs.letters_of(equation, [shape for shape, _ in operands])
    found = []
    for (shape, fields), mine in zip(operands, letters, strict=True):
        summed = [n for n, letter in enumerate(mine) if letter not in result]
        places = [result.find(letter) for letter in mine]
        found.append(fields.collapse(shape, summed).place(places))
    return rf.union(found)


def matmul(call):
    """Of `keras.ops.matmul`."""
    (first, left), (second, right) = call.operands[:2]
    if len(first) < 2 or len(second) < 2:
        return everywhere(call)
    rank = len(call.output_shape)
    left = left.collapse(first, [len(first) - 1])
    right = right.collapse(second, [len(second) - 2])
    return rf.union(
        fields.place([n + rank - len(shape) for n in range(len(shape))])
        for shape, fields in ((first, left), (second, right))
    )


def dot_product_attention(call):
    """Of `keras.ops.dot_product_attention`: all keys and values, one query."""
    (shape, query), *others = call.operands[:3]
    query = query.collapse(shape, [3])
    return rf.union([query, *(one.collapse(s, [1, 3]) for s, one in others)])


def embedding(call):
    """Of `Embedding`: the places of the tokens."""
    return call.operands[0][1]


def recurrent(call):
    """Of what reads all steps."""
    shape, fields = call.operands[0]
    return fields.collapse(shape, [1])


def conv_lstm(call):
    """Of `ConvLSTM1D` to `ConvLSTM3D`: what each step sees grows without end."""
    shape, fields = call.operands[0]
    return fields.collapse(shape, range(1, len(shape)))


def pooling(call):
    """Of `MaxPooling1D` and its kin."""
    operation = call.operation
    shape, fields = call.operands[0]
    dims = len(shape) - 2
    first = 1 if (operation.data_format or "channels_last") == "channels_last" else 2
    sizes = _each(operation.pool_size, dims)
    strides = sizes if operation.strides is None else _each(operation.strides, dims)

    def seen(axis, place):
        n = place - first
        before = 0
        if operation.padding == "same":
            before, _ = same_pads(shape[place], sizes[n], strides[n], 1)
        return rf.window(axis, sizes[n], strides[n], 1, before)

    return fields.along(seen, range(first, first + dims))


def adaptive_pooling(call):
    """Of `AdaptiveMaxPooling2D` and its kin: windows whose sizes differ."""
    shape, fields = call.operands[0]
    if math.prod(call.output_shape) == shape[0] * _channels(call, shape):
        return global_pooling(call)
    return fields.shuffle(shape)


def _channels(call, shape):
    return shape[-1 if call.operation.data_format == "channels_last" else 1]


def global_pooling(call):
    """Of `GlobalAveragePooling2D` and its kin: a window of all places."""
    shape, fields = call.operands[0]
    first = 1 if call.operation.data_format == "channels_last" else 2
    return fields.collapse(shape, range(first, first + len(shape) - 2))


def padding(call):
    """Of `ZeroPadding2D` and its kin."""
    pairs = _pairs(call.operation.padding, len(call.shapes[0]) - 2)
    return _shifted(call, [before for before, _ in pairs])


def cropping(call):
    """Of `Cropping2D` and its kin."""
    pairs = _pairs(call.operation.cropping, len(call.shapes[0]) - 2)
    return _shifted(call, [-before for before, _ in pairs])


def _shifted(call, befores):
    shape, fields = call.operands[0]
    last = getattr(call.operation, "data_format", "channels_last") == "channels_last"
    first = 1 if last else 2

    def seen(axis, place):
        return rf.window(axis, 1, 1, 1, befores[place - first])

    return fields.along(seen, range(first, len(shape) - 1 if last else len(shape)))


def pad_operation(call):
    """Of `keras.ops.pad`, which may also mirror."""
    shape, fields = call.operands[0]
    width = plain(call.operation.pad_width)
    if isinstance(width, int):
        width = ((width, width),)
    elif isinstance(width[0], int):
        width = (width,)
    width = width * len(shape) if len(width) == 1 else width

    def seen(axis, place):
        return rf.window(axis, 1, 1, 1, width[place][0])

    return fields.along(seen, range(len(shape)))


def upsampling(call):
    """Of `UpSampling1D` to `UpSampling3D`."""
    layer, (shape, fields) = call.operation, call.operands[0]
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    first, dims = 1 if last else 2, len(shape) - 2
    reach = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos3": 3, "lanczos5": 5}
    reach = reach[getattr(layer, "interpolation", "nearest")]
    sizes = _each(layer.size, dims)

    def seen(axis, place):
        return rf.enlarged(axis, sizes[place - first], reach)

    return fields.along(seen, range(first, first + dims))


def repeat_vector(call):
    """Of `RepeatVector`: a new axis ahead of the last."""
    shape, fields = call.operands[0]
    return fields.place([0, 2]) if len(shape) == 2 else fields.shuffle(shape)


def permute(call):
    """Of the layer `Permute`."""
    shape, fields = call.operands[0]
    return _transposed(fields, shape, (0, *call.operation.dims))


def transpose(call):
    """Of `keras.ops.transpose`."""
    shape, fields = call.operands[0]
    axes = getattr(call.operation, "axes", None) or range(len(shape))[::-1]
    return _transposed(fields, shape, [axis % len(shape) for axis in axes])


def swapaxes(call):
    """Of `keras.ops.swapaxes`."""
    shape, fields = call.operands[0]
    axes = list(range(len(shape)))
    first, second = call.operation.axis1, call.operation.axis2
    axes[first], axes[second] = axes[second], axes[first]
    return _transposed(fields, shape, axes)


def _transposed(fields, shape, axes):
    del shape
    return fields.place({axis: n for n, axis in enumerate(axes)})


def reshape(call):
    """Of `Reshape`: places are followed through axes that stay whole."""
    shape, fields = call.operands[0]
    places, merged = {}, {}
    for group, target in _groups(shape, call.output_shape):
        real = [n for n in group if shape[n] != 1]
        found = [n for n in target if call.output_shape[n] != 1]
        if len(real) == len(found) == 1:
            places[real[0]] = found[0]
        else:
            # Of a merged axis all can be read, of one that was split nobody knows.
            whole = found[0] if len(found) == 1 else None
            merged.update(dict.fromkeys(real, whole))
    ones = [n for n, size in enumerate(shape) if size == 1]
    fields = fields.collapse(shape, ones)

    def changed(path):
        for n, place in enumerate(path.places):
            if place in merged:
                field = path.axes[n]
                if n not in path.moved:
                    field = rf.everything(field, shape[place])
                path = path.change(n, field, merged[place], moved=True)
            elif place is not None:
                path = path.change(n, path.axes[n], places[place], n in path.moved)
        return path

    return fields.map(changed)


def _groups(shape, target):
    """Pairs of lists of axes whose elements are the same."""
    i = j = 0
    while i < len(shape) or j < len(target):
        left, right = [i] if i < len(shape) else [], [j] if j < len(target) else []
        a = math.prod(shape[n] for n in left)
        b = math.prod(target[n] for n in right)
        while a != b and i + len(left) <= len(shape) and j + len(right) <= len(target):
            if a < b:
                n = i + len(left)
                if n == len(shape):
                    break
                left.append(n)
                a *= shape[n]
            else:
                n = j + len(right)
                if n == len(target):
                    break
                right.append(n)
                b *= target[n]
        yield left, right
        i, j = i + len(left), j + len(right)


def concatenate(call):
    """Of `Concatenate`, along the channels; along space the places move."""
    rank = len(call.output_shape)
    axis = call.operation.axis % rank
    found, first = [], 0
    for shape, fields in call.operands:

        def seen(field, place, first=first):
            del place
            return rf.window(field, 1, 1, 1, first)

        found.append(fields.along(seen, [axis]))
        first += shape[axis]
    return rf.union(found)


def normalization(call):
    """Of what normalizes along axes: each place, and all of the statistics."""
    shape, fields = call.operands[0]
    axes = _axes(getattr(call.operation, "axis", -1), len(shape))
    return rf.union([fields, fields.collapse(shape, axes)])


def group_normalization(call):
    """Of `GroupNormalization`: all places, for the mean and the variance."""
    shape, fields = call.operands[0]
    return rf.union([fields, fields.collapse(shape, range(1, len(shape)))])


def reduction(call):
    """Of `keras.ops.mean` and others that put one value in the place of an axis."""
    shape, fields = call.operands[0]
    axes = _axes(call.operation.axis, len(shape))
    fields = fields.collapse(shape, axes)
    if getattr(call.operation, "keepdims", False):
        return fields
    left = [n for n in range(len(shape)) if n not in axes]
    return fields.place({axis: n for n, axis in enumerate(left)})


def dot(call):
    """Of the layer `Dot`."""
    axes = call.operation.axes
    axes = [axes] * 2 if isinstance(axes, int) else axes
    found, before = [], 1
    for (shape, fields), axis in zip(call.operands, axes, strict=True):
        axis = axis % len(shape)
        left = [n for n in range(1, len(shape)) if n != axis]
        places = {0: 0, **{axis: n + before for n, axis in enumerate(left)}}
        found.append(fields.collapse(shape, [axis]).place(places))
        before += len(left)
    return rf.union(found)


def repeat(call):
    """Of `keras.ops.repeat`."""
    shape, fields = call.operands[0]
    axis, repeats = call.operation.axis, plain(call.operation.repeats)
    if axis is None or not isinstance(repeats, int):
        return fields.shuffle(shape)

    def seen(field, place):
        del place
        return rf.enlarged(field, repeats)

    return fields.along(seen, [axis % len(shape)])


def stack(call):
    """Of `keras.ops.stack`: a new axis."""
    rank = len(call.output_shape)
    new = call.operation.axis % rank
    places = [n + (n >= new) for n in range(rank - 1)]
    return rf.union(fields.place(places) for _, fields in call.operands)


def split(call):
    """Of `keras.ops.split`: each output begins where the one before it ends."""
    shape, fields = call.operands[0]
    axis, first, found = call.operation.axis % len(shape), 0, []
    for output in call.output_shapes:
        found.append(fields.along(_from(first, 1), [axis]))
        first += output[axis]
    return found


def get_item(call):
    """Of `x[...]` with numbers, steps and new axes."""
    shape, fields = call.operands[0]
    key = call.arguments[1]
    key = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in key:
        n = key.index(Ellipsis)
        hidden = len(shape) - sum(one is not None for one in key) + 1
        key[n : n + 1] = [slice(None)] * hidden
    key += [slice(None)] * (len(shape) - sum(one is not None for one in key))
    places, axis, out = {}, 0, 0
    for one in key:
        if one is None:
            out += 1
            continue
        if isinstance(one, slice):
            first, _, step = one.indices(shape[axis])
            if step < 1:
                return fields.shuffle(shape)
            fields = fields.along(_from(first, step), [axis])
            places[axis] = out
            out += 1
        else:
            fields = fields.along(_from(int(one) % shape[axis], 1), [axis])
            fields = fields.collapse([1] * len(shape), [axis])
        axis += 1
    return fields.place(places)


def _from(first, step):
    def seen(field, place):
        del place
        return rf.window(field, 1, step, 1, -first)

    return seen


def _axes(axes, rank):
    if axes is None:
        return list(range(rank))
    return [axis % rank for axis in ([axes] if isinstance(axes, int) else axes)]


def _each(value, dims):
    value = plain(value)
    return value if isinstance(value, tuple) else (value,) * dims


def _pairs(value, dims):
    value = plain(value)
    if isinstance(value, int):
        return ((value, value),) * dims
    if dims == 1 and isinstance(value[0], int):
        return (value,)
    return tuple((one, one) if isinstance(one, int) else one for one in value)
