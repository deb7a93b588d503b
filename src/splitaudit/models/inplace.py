"""Finding operations that would overwrite the tensor a part of a split model receives.

What crosses a cut belongs to the one who sent it: it may be recorded, compared, or be the leaf of an autograd
graph, so a part must not write into it, although the whole model may (`nn.ReLU(inplace=True)` right after the
cut).
"""

from collections.abc import Iterable
from operator import attrgetter

from torch import fx, nn
from torchvision.ops import StochasticDepth

_MODULES_THAT_MAY_RETURN_THEIR_INPUT = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.modules.dropout._DropoutNd,
    StochasticDepth,
)
_OPERATIONS_THAT_MAY_RETURN_A_VIEW = {
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel"),
    *("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "adjoint", "diagonal"),
    *("expand", "expand_as", "narrow", "select", "unfold", "chunk", "split", "unbind", "tensor_split"),
    *("getitem", "getattr", "contiguous", "to", "float", "double", "type", "type_as", "cpu", "cuda"),
    *("detach", "dropout", "dropout1d", "dropout2d", "alpha_dropout", "stochastic_depth"),
}


def overwrites(value: fx.Node, operations: Iterable[fx.Node], model: nn.Module) -> bool:
    """Whether one of `operations` (in order, of a trace of `model`) writes into the tensor `value`."""
    same_memory = {value}
    for node in operations:
        if same_memory.isdisjoint(node.all_input_nodes):
            continue
        if _is_inplace(node, model):
            return True
        if _may_return_a_view(node, model):
            same_memory.add(node)
    return False


def _is_inplace(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(attrgetter(str(node.target))(model), "inplace", False))
    name = _name(node)
    writing_name = name.endswith("_") and not name.endswith("__")
    # `F.relu(x, True)`: a bare True is taken for `inplace`, at worst for one copy in vain.
    return writing_name or node.kwargs.get("inplace", False) is True or any(arg is True for arg in node.args)


def _may_return_a_view(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(attrgetter(str(node.target))(model), _MODULES_THAT_MAY_RETURN_THEIR_INPUT)
    return _name(node) in _OPERATIONS_THAT_MAY_RETURN_A_VIEW


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
