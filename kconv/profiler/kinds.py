"""What is known of each kind of layer and operation, in one table.

A layer of a class that is not here is looked into: its `call` is traced, and what it
calls is counted. An operation that is not here is not counted, and says so. A layer may
also tell its own: a method `profile_macs(call)` that returns an int, and a method
`profile_fields(call)` that returns `kconv.profiler.receptive_field.Fields`; `call` is a
`kconv.profiler.calls.Call`.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras

from kconv.profiler import convolutions, macs, rules


class Kind(NamedTuple):
    """What is known of a kind.

    Attributes:
        macs: Function from a `Call` to an int, or None where that is not known.
        fields: Function from a `Call` to `Fields`.
        convolutions: Function from a `Call` to a tuple of `Convolution`, or None.
    """

    macs: Callable
    fields: Callable
    convolutions: Callable | None = None


def _convolution(find):
    return Kind(macs.convolution(find), rules.convolution(find), find)


_RANKS = ("1D", "2D", "3D")

_LAYERS = {
    Kind(macs.none, rules.keep): (
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Identity", "Masking"),
        *("BatchNormalization", "Dropout", "AlphaDropout", "GaussianDropout"),
        *("GaussianNoise", "ActivityRegularization", "Rescaling", "Normalization"),
        *("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"),
        *(f"SpatialDropout{rank}" for rank in _RANKS),
        *("RandomBrightness", "RandomContrast", "RandomHue", "RandomSaturation"),
        # In inference these leave pixels where they are.
        *("RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
        *("RandomShear", "RandomPerspective"),
        *("ChannelShuffle", "LocalResponseNormalization"),
        *("RandomGrayscale", "RandomColorDegeneration", "Solarization"),
    ),
    Kind(macs.none, rules.normalization): (
        *("LayerNormalization", "RMSNormalization", "UnitNormalization", "Softmax"),
    ),
    Kind(macs.none, rules.group_normalization): ("GroupNormalization",),
    Kind(macs.none, rules.concatenate): ("Concatenate",),
    Kind(macs.none, rules.pooling): (
        *(f"MaxPooling{rank}" for rank in _RANKS),
        *(f"AveragePooling{rank}" for rank in _RANKS),
    ),
    Kind(macs.none, rules.adaptive_pooling): (
        *(f"AdaptiveMaxPooling{rank}" for rank in _RANKS),
        *(f"AdaptiveAveragePooling{rank}" for rank in _RANKS),
    ),
    Kind(macs.none, rules.global_pooling): (
        *(f"GlobalMaxPooling{rank}" for rank in _RANKS),
        *(f"GlobalAveragePooling{rank}" for rank in _RANKS),
    ),
    Kind(macs.none, rules.padding): [f"ZeroPadding{rank}" for rank in _RANKS],
    Kind(macs.none, rules.cropping): [f"Cropping{rank}" for rank in _RANKS],
    Kind(macs.none, rules.upsampling): [f"UpSampling{rank}" for rank in _RANKS],
    Kind(macs.none, rules.everywhere): ("Flatten",),
    Kind(macs.none, rules.reshape): ("Reshape",),
    Kind(macs.none, rules.permute): ("Permute",),
    Kind(macs.none, rules.repeat_vector): ("RepeatVector",),
    Kind(macs.none, rules.embedding): ("Embedding",),
    Kind(macs.none, rules.unknown): (
        *("Resizing", "CenterCrop", "RandomCrop", "CategoryEncoding"),
        *("Discretization",),
    ),
    Kind(macs.dense, rules.dense): ("Dense",),
    Kind(macs.einsum_dense, rules.einsum_dense): ("EinsumDense",),
    Kind(macs.dot, rules.dot): ("Dot",),
    Kind(macs.recurrent, rules.recurrent): ("SimpleRNN", "LSTM", "GRU", "RNN"),
    Kind(macs.conv_lstm, rules.conv_lstm): [f"ConvLSTM{rank}" for rank in _RANKS],
    _convolution(convolutions.of_conv): [f"Conv{rank}" for rank in _RANKS],
    Kind(
        macs.deformable,
        rules.deformable(convolutions.of_conv),
        convolutions.of_offset_branch,
    ): ("DeformableConv2D",),
    _convolution(convolutions.of_transpose): [
        f"Conv{rank}Transpose" for rank in _RANKS
    ],
    _convolution(convolutions.of_depthwise): [
        f"DepthwiseConv{rank}" for rank in _RANKS
    ],
    _convolution(convolutions.of_separable): [
        f"SeparableConv{rank}" for rank in _RANKS
    ],
}

# Keras's operations have no public classes: these are their names, in camel case.
_OPERATIONS = {
    Kind(macs.none, rules.keep): (
        *("Abs", "Absolute", "Add", "Average", "Cast", "Ceil", "Celu", "Clip"),
        *("ConvertToTensor", "Copy", "Cos", "Divide", "DivideNoNan", "Elu", "Equal"),
        *("Erf", "Exp", "Expm1", "Floor", "FloorDivide", "Gelu", "Greater"),
        *("GreaterEqual", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh"),
        *("Identity", "Isfinite", "Isnan", "LeakyRelu", "Less", "LessEqual", "Log"),
        *("Log1p", "LogSigmoid", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum"),
        *("Minimum", "Mod", "Multiply", "Negative", "NotEqual", "OnesLike", "Power"),
        *("Reciprocal", "Relu", "Relu6", "Round", "Rsqrt", "SaturateCast", "Select"),
        *("Selu", "Sigmoid", "Sign", "Silu", "Sin", "Sinh", "SoftShrink", "Softplus"),
        *("Softsign", "Sqrt", "Square", "Squareplus", "StopGradient", "Subtract"),
        *("Tan", "TanhShrink", "Tanh", "Threshold", "TrueDivide", "Where"),
        *("ZerosLike", "BatchNorm", "Tril", "Triu", "BroadcastTo"),
    ),
    Kind(macs.none, rules.normalization): (
        *("Softmax", "LogSoftmax", "Sparsemax", "Normalize", "LayerNorm", "RMSNorm"),
        *("Cumsum", "Cumprod", "Glu"),
    ),
    Kind(macs.none, rules.concatenate): ("Concatenate",),
    Kind(macs.none, rules.reduction): (
        *("Mean", "Sum", "Max", "Min", "Amax", "Amin", "Prod", "Var", "Std", "Any"),
        *("All", "Argmax", "Argmin", "Logsumexp"),
    ),
    Kind(macs.none, rules.pooling): ("MaxPool", "AveragePool"),
    Kind(macs.none, rules.pad_operation): ("Pad",),
    Kind(macs.none, rules.reshape): ("Reshape", "ExpandDims", "Squeeze", "Ravel"),
    Kind(macs.none, rules.transpose): ("Transpose",),
    Kind(macs.none, rules.swapaxes): ("Swapaxes",),
    Kind(macs.none, rules.repeat): ("Repeat",),
    Kind(macs.none, rules.stack): ("Stack",),
    Kind(macs.none, rules.get_item): ("GetItem",),
    Kind(macs.none, rules.split): ("Split",),
    Kind(macs.none, rules.unknown): (
        *("Take", "TakeAlongAxis", "Slice", "SliceUpdate", "Flip"),
        *("Roll", "Tile", "Unstack", "Resize"),
        *("Moveaxis", "ArraySplit", "Sort", "Argsort", "TopK", "OneHot", "MultiHot"),
        *("CropImages", "PadImages", "DepthToSpace", "SpaceToDepth", "Rot90"),
        *("AdaptiveMaxPool", "AdaptiveAveragePool", "Scatter", "ScatterUpdate"),
        *("Diagonal", "Meshgrid", "ExtractPatches", "Unfold", "Fold", "Append"),
        *("Hstack", "Vstack"),
    ),
    Kind(macs.matmul, rules.matmul): ("Matmul",),
    Kind(macs.dot_operation, rules.everywhere): ("Dot", "Inner", "Vdot"),
    Kind(macs.tensordot, rules.everywhere): ("Tensordot",),
    Kind(macs.einsum, rules.einsum): ("Einsum",),
    Kind(macs.dot_product_attention, rules.dot_product_attention): (
        "DotProductAttention",
    ),
    _convolution(convolutions.of_conv_operation): ("Conv",),
    _convolution(convolutions.of_depthwise_operation): ("DepthwiseConv",),
    _convolution(convolutions.of_separable_operation): ("SeparableConv",),
    _convolution(convolutions.of_transpose_operation): ("ConvTranspose",),
    Kind(
        macs.convolution(convolutions.of_conv_operation),
        rules.deformable(convolutions.of_conv_operation, first=2),
    ): ("DeformConv",),
}

UNKNOWN = Kind(lambda call: None, rules.unknown)

_by_operation = {name: kind for kind, names in _OPERATIONS.items() for name in names}


@functools.cache
def _by_layer():
    """Classes of layers; some are not in every version of Keras."""
    from kconv import layers

    found = {}
    for kind, names in _LAYERS.items():
        for name in names:
            for room in (keras.layers, layers):
                if hasattr(room, name):
                    found[getattr(room, name)] = kind
    return found


def find(operation):
    """Returns the `Kind` of a layer or an operation, or None.

    A subclass whose `call` is neither Keras's nor kconv's has none: what it computes is
    not known.
    """
    if hasattr(operation, "profile_macs"):
        return Kind(
            operation.profile_macs,
            getattr(operation, "profile_fields", rules.unknown),
        )
    if not isinstance(operation, keras.Layer):
        ours = is_ours(type(operation))
        return _by_operation.get(type(operation).__name__) if ours else None
    if not is_ours(type(operation).call):
        return None
    table = _by_layer()
    return next((table[one] for one in type(operation).__mro__ if one in table), None)


def is_ours(something):
    """Whether a class or a function is Keras's or kconv's."""
    return something.__module__.partition(".")[0] in ("keras", "kconv")
