"""Where a traced model can be cut: after an operation from which on one tensor and nothing else is needed."""

import operator
from bisect import bisect_right
from difflib import get_close_matches
from operator import attrgetter

from torch import fx

from splitaudit.errors import ModelError
from splitaudit.models.tracing import Trace

_METHODS_WITHOUT_TENSOR = {"size", "dim", "ndimension", "numel", "nelement", "stride", "item", "tolist"}
_ATTRIBUTES_WITHOUT_TENSOR = {"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"}


class Boundaries:
    """The boundaries between the operations of a trace: one after each operation, named by it.

    A name is that of a module ("layer1.0": after the last operation inside it) or of an operation ("flatten",
    "layer1_0_relu_1": the name of its fx node). Where both exist, the operation's comes first, so that each
    operation has a name, also of modules that are called several times.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        nodes = list(trace.graph.nodes)
        self._position = {node: position for position, node in enumerate(nodes)}
        # Parameters used directly are read by whichever part uses them: they never cross.
        self._values = [node for node in nodes if node.op not in {"get_attr", "output"}]
        self.operations = self._values[1:]
        self._last_use = {
            value: max((self._position[user] for user in value.users), default=-1) for value in self._values
        }
        self._by_name = {value.name: value for value in self._values}
        self._end_of_module = {
            path: node for node in self.operations for path, _ in node.meta.get("nn_module_stack", {}).values()
        }
        self._tensor_uses = self._find_tensor_uses()

    def position(self, node: fx.Node) -> int:
        """The node's place in the order of execution."""
        return self._position[node]

    def find(self, name: str) -> fx.Node:
        """The operation that `name` means. Raises ModelError with the nearest legal names if it has none."""
        node: fx.Node | None = self._by_name.get(name, self._end_of_module.get(name))
        if node is None:
            near = get_close_matches(name, [self.name_of(legal) for legal in self.legal()], n=3, cutoff=0.4)
            hint = f" Nearest: {', '.join(map(repr, near))}." if near else ""
            raise ModelError(f"The model has no layer {name!r}.{hint} `splitaudit cuts` lists all legal cuts.")
        return node

    def name_of(self, node: fx.Node) -> str:
        """The path of the outermost module that ends with this operation, else the operation's own name."""
        for path, _ in node.meta.get("nn_module_stack", {}).values():
            if self._end_of_module[path] is node and self._by_name.get(path, node) is node:
                return str(path)
        return node.name

    def crossing(self, node: fx.Node) -> list[fx.Node]:
        """The values known after `node` that are still needed, in order."""
        here = self._position[node]
        return [value for value in self._values if self._position[value] <= here < self._last_use[value]]

    def obstacle(self, node: fx.Node) -> str | None:
        """Why the model cannot be cut after `node`; None if it can."""
        values = self.crossing(node)
        if values == [self._trace.images]:
            return "no operation would come before it"
        if values == [self._trace.result]:
            return "no operation would come after it"
        names = ", ".join(repr(self.name_of(value)) for value in values)
        if len(values) != 1:
            return f"{len(values)} values would cross there ({names}), not one tensor"
        if not _is_tensor(values[0]):
            return f"what would cross there ({names}) is not a tensor"
        here = self._position[node]
        shared = [name for name, uses in self._tensor_uses.items() if min(uses) <= here < max(uses)]
        if shared:
            return f"the parameter or buffer {shared[0]!r} is used both before and after it"
        return None

    def legal(self) -> list[fx.Node]:
        """The operations after which the model can be cut, in order."""
        return [node for node in self.operations if self.obstacle(node) is None]

    def find_legal(self, name: str, setting: str) -> fx.Node:
        """As `find`; raises ModelError with the nearest legal cuts if the model cannot be cut there."""
        node = self.find(name)
        obstacle = self.obstacle(node)
        if obstacle is not None:
            here, legal = self._position[node], self.legal()
            before = [other for other in legal if self._position[other] < here]
            after = [other for other in legal if self._position[other] > here]
            nearest = [f"{self.name_of(other)!r} before it" for other in before[-1:]]
            nearest += [f"{self.name_of(other)!r} after it" for other in after[:1]]
            raise ModelError(
                f"{setting}={name!r} is not a legal cut: {obstacle}. "
                f"Nearest legal cuts: {', '.join(nearest) or 'none'}. `splitaudit cuts` lists all."
            )
        return node

    def parameters_until(self) -> dict[fx.Node, int]:
        """For each operation, how many parameter elements it and the operations before it use."""
        sizes = dict(self._trace.replica.named_parameters())
        firsts = sorted((min(uses), sizes[name].numel()) for name, uses in self._tensor_uses.items() if name in sizes)
        return {node: sum(size for first, size in firsts if first <= self._position[node]) for node in self.operations}

    def depth_until(self) -> dict[fx.Node, int]:
        """For each operation, how many operations with parameters there are until it, itself included."""
        names = {name for name, _ in self._trace.replica.named_parameters()}
        uses = sorted(
            {position for name, positions in self._tensor_uses.items() if name in names for position in positions}
        )
        return {node: bisect_right(uses, self._position[node]) for node in self.operations}

    def _find_tensor_uses(self) -> dict[str, list[int]]:
        """The positions at which each parameter and buffer is used, by its (first) name."""
        replica = self._trace.replica
        names = {id(tensor): name for name, tensor in (*replica.named_parameters(), *replica.named_buffers())}
        uses: dict[str, list[int]] = {}
        for node in self._position:
            if node.op == "call_module":
                module = attrgetter(str(node.target))(replica)
                tensors, positions = [*module.parameters(), *module.buffers()], [self._position[node]]
            elif node.op == "get_attr":
                tensors = [attrgetter(str(node.target))(replica)]
                positions = [self._position[user] for user in node.users]
            else:
                continue
            for tensor in tensors:
                if id(tensor) in names:
                    uses.setdefault(names[id(tensor)], []).extend(positions)
        return {name: positions for name, positions in uses.items() if positions}


def _is_tensor(value: fx.Node) -> bool:
    """Whether a value is one tensor, as far as the trace tells."""
    # An integer index would pick one sample of a batch; so what is only ever indexed by integers is a tuple.
    indexed = [user.target is operator.getitem and isinstance(user.args[1], int) for user in value.users]
    is_tuple = bool(indexed) and all(indexed)
    return not (is_tuple or _is_size(value))


def _is_size(value: fx.Node) -> bool:
    """Whether a value is a tensor's size, type or the like, or a number computed from such."""
    if value.op == "call_method":
        return value.target in _METHODS_WITHOUT_TENSOR
    if value.target is getattr:
        return value.args[1] in _ATTRIBUTES_WITHOUT_TENSOR
    calculates = getattr(value.target, "__module__", None) in {"_operator", "math", "builtins"}
    return calculates and all(map(_is_size, value.all_input_nodes))
