"""Looking inside a part of a split model: the features after its stages, all in one pass."""

from collections.abc import Sequence

from torch import fx, nn

from splitaudit.models.boundaries import Boundaries
from splitaudit.models.inplace import overwrites
from splitaudit.models.tracing import Trace


class Stages:
    """The stages of a part that `cut` made (`F1`, `F2` or `F3`): the layers after which one tensor alone goes on.

    `names` are theirs, from first to last; the part ends with the last one. They are names of the whole model's layers,
    as `splitaudit cuts` prints them.
    """

    def __init__(self, part: fx.GraphModule) -> None:
        self._part = part
        trace = Trace(part.graph, part, ())
        self._boundaries = Boundaries(trace)
        inner = [node for node in self._boundaries.legal() if self._boundaries.crossing(node) != [trace.result]]
        received = trace.images
        # Not the copy that `cut` may have put there: it is no layer of the model.
        inner = [node for node in inner if not (node.target == "clone" and node.args == (received,))]
        # What crosses the last boundary is the part's result, so nothing but the end follows it.
        self._nodes = [*inner, self._boundaries.operations[-1]]
        self._result = trace.result
        self.names = [self._boundaries.name_of(node) for node in self._nodes]

    def spread(self, count: int) -> list[str]:
        """At most `count` names, as evenly spread over the depth (operations with parameters) as there are stages.

        The end is always one of them.
        """
        depth = self._boundaries.depth_until()
        total = depth[self._nodes[-1]]
        # The last stage of each stretch: it lies behind a block's activation, not within the block.
        stretches = [[node for node in self._nodes if depth[node] <= total * k / count] for k in range(1, count + 1)]
        return list(dict.fromkeys(self._boundaries.name_of(nodes[-1]) for nodes in stretches if nodes))

    def tap(self, names: Sequence[str]) -> fx.GraphModule:
        """The part, returning a tuple: the features (N, ...) after each of the stages `names`.

        It shares modules and parameters with the part. Raises ModelError for a name that is no stage, with the nearest.
        """
        return self._giving([self._value(name) for name in names])

    def tap_norms(self) -> tuple[list[nn.modules.batchnorm._BatchNorm], fx.GraphModule]:
        """The part's BatchNorm layers, and the part, returning a tuple: what each of them receives."""
        modules = dict(self._part.named_modules())
        norms = [
            (modules[str(node.target)], node.all_input_nodes[0])
            for node in self._boundaries.operations
            if node.op == "call_module"
        ]
        found = [
            (norm, value)
            for norm, value in norms
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats
        ]
        return [norm for norm, _ in found], self._giving([value for _, value in found])

    def _giving(self, values: Sequence[fx.Node]) -> fx.GraphModule:
        operations = self._boundaries.operations
        position = {node: index for index, node in enumerate(self._part.graph.nodes)}
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        given: dict[fx.Node, fx.Node] = {}
        for node in self._part.graph.nodes:
            if node.op == "output":
                continue
            copies[node] = given[node] = graph.node_copy(node, copies.__getitem__)
            later = [other for other in operations if position[other] > position[node]]
            if node in values and overwrites(node, later, self._part):
                given[node] = graph.call_method("clone", (copies[node],))
        graph.output(tuple(given[value] for value in values))
        return fx.GraphModule(self._part, graph, class_name="Tapped")

    def _value(self, name: str) -> fx.Node:
        if name == self.names[-1]:
            return self._result
        (value,) = self._boundaries.crossing(self._boundaries.find_legal(name, "stage"))
        return value
