"""What a graph of TensorFlow tells of operations that no layer of Keras made."""

import math

import tensorflow as tf

from kconv.profiler import macs, rules
from kconv.profiler import receptive_field as rf

# Operations without products of matrices, and where each place comes from the same.
_ELEMENTWISE = {
    *("Abs", "Add", "AddN", "AddV2", "BiasAdd", "Cast", "Elu", "Equal", "Erf", "Exp"),
    *("Floor", "Greater", "GreaterEqual", "Identity", "IdentityN", "LeakyRelu", "Less"),
    *("LessEqual", "Log", "Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum"),
    *("Minimum", "Mul", "Neg", "NotEqual", "Pow", "RealDiv", "Reciprocal", "Relu"),
    *("Relu6", "Round", "Rsqrt", "SelectV2", "Selu", "Sigmoid", "Sign", "Softplus"),
    *("Sqrt", "Square", "SquaredDifference", "StopGradient", "Sub", "Tanh", "Maximum"),
    *("FloorMod", "FloorDiv", "DivNoNan", "PreventGradient", "EnsureShape"),
}
_WITHOUT_PRODUCTS = _ELEMENTWISE | {
    *("All", "Any", "ArgMax", "ArgMin", "Assert", "AssignVariableOp", "AvgPool"),
    *("AvgPool3D", "BatchToSpaceND", "BroadcastTo", "ConcatV2", "Const", "Cumsum"),
    *("DepthToSpace", "ExpandDims", "Fill", "FusedBatchNormV3", "GatherNd", "GatherV2"),
    *("LogSoftmax", "Max", "MaxPool", "MaxPool3D", "Mean", "Min", "MirrorPad", "NoOp"),
    *("OneHot", "OnesLike", "Pack", "Pad", "PadV2", "Placeholder", "Prod", "Range"),
    *("Rank", "ReadVariableOp", "Reshape", "ResizeBilinear", "ReverseV2", "ResizeArea"),
    *("ResizeNearestNeighbor", "ResourceGather", "Roll", "ScatterNd", "Shape", "Size"),
    *("Slice", "Softmax", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV"),
    *("Squeeze", "StridedSlice", "Sum", "Tile", "TopKV2", "Transpose", "Unpack"),
    *("ZerosLike", "RandomUniform", "RandomStandardNormal", "StatelessRandomUniformV2"),
    *("StatelessRandomNormalV2", "BroadcastGradientArgs", "InvertPermutation"),
    *("StatelessRandomGetKeyCounter", "Where", "ResizeBicubic"),
}
_BY_FILTER = {"Conv2D", "Conv3D", "Conv", "Kconv>Conv"}


def key(tensor):
    """What tells a tensor of a graph from others, however it was come by."""
    graph = getattr(tensor, "graph", None) if _in_graph(tensor) else None
    return id(tensor) if graph is None else (id(graph), tensor.name)


def _in_graph(tensor):
    return tf.is_tensor(tensor) and hasattr(tensor, "op")


class Graph:
    """The operations of a graph while layers add to it.

    Args:
        tensors: List of tensors in it.

    Attributes:
        read: List of keys of the tensors with a row that its results are made of.
    """

    def __init__(self, tensors):
        self.read = []
        self._graph = tensors[0].graph
        self._explained = set(range(self.position()))

    def position(self):
        """How many operations there are by now."""
        return len(self._graph.get_operations())

    def explained(self, start):
        """Says that a layer tells of all operations since a position."""
        self._explained.update(range(start, self.position()))

    def macs(self):
        """Multiply-accumulates of operations that no layer tells of.

        Returns:
            An int, and a list of the types of operations that it leaves out.
        """
        total, left = 0, {}
        for n, operation in enumerate(self._graph.get_operations()):
            if n in self._explained or operation.type in _WITHOUT_PRODUCTS:
                continue
            found = _macs(operation)
            if found is None:
                left[operation.type] = True
            else:
                total += found
        return total, list(left)

    def sources(self, tensor, known):
        """Tensors that are known and that a tensor is computed from."""
        return list(self._walk(tensor, known)[0].values())

    def fields(self, tensor, known):
        """`Fields` of a tensor that is computed from known ones.

        Args:
            tensor: A tensor.
            known: Function from a tensor to its `Fields` or None.

        Returns:
            `Fields`.
        """
        sources, is_elementwise = self._walk(tensor, known)
        operands = [(tuple(one.shape), known(one)) for one in sources.values()]
        if not operands:
            return rf.Fields()
        rule = rules.keep if is_elementwise else rules.unknown
        return rule(_Reading(operands, tuple(tensor.shape)))

    def _walk(self, tensor, known):
        found, seen, waiting, is_elementwise = {}, set(), [tensor], True
        while waiting:
            one = waiting.pop()
            if key(one) in seen:
                continue
            seen.add(key(one))
            if known(one) is not None:
                found[key(one)] = one
            elif _in_graph(one):
                if one.op.inputs and one.op.type != "ReadVariableOp":
                    is_elementwise &= one.op.type in _ELEMENTWISE
                waiting.extend(one.op.inputs)
        return found, is_elementwise


class _Reading:
    """As much of a `Call` as a rule needs."""

    def __init__(self, operands, output_shape):
        self.operands, self.output_shape = operands, output_shape


def _macs(operation):
    """Multiply-accumulates of an operation, or None where that is not known."""
    shapes = [tuple(one.shape) for one in operation.inputs]
    try:
        output = tuple(operation.outputs[0].shape)
        if operation.type == "MatMul":
            return (
                math.prod(output)
                * shapes[0][0 if operation.get_attr("transpose_a") else 1]
            )
        if operation.type in ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
            axis = -2 if operation.get_attr("adj_x") else -1
            return math.prod(output) * shapes[0][axis]
        if operation.type in _BY_FILTER:
            return math.prod(output) * math.prod(shapes[1][:-1])
        if operation.type == "DepthwiseConv2dNative":
            return math.prod(output) * math.prod(shapes[1][:-2])
        if operation.type == "Einsum":
            equation = operation.get_attr("equation").decode()
            return macs.of_equation(equation, *shapes)
    except (TypeError, ValueError, IndexError):
        pass
    return None
