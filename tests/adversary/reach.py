"""What can be had from an object: the threat model is that no path leads from the server to the clients."""

from collections import deque
from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

from torch import Tensor

from splitaudit.experiments.parts import Parts
from splitaudit.runtime import Runtime


def reachable(root: object) -> Iterator[object]:
    """Everything that can be had from an object through attributes and containers, without going through code."""
    seen: dict[int, object] = {}
    stack = [root]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, type | ModuleType | FunctionType | BuiltinFunctionType | str | int):
            continue
        seen[id(item)] = item
        yield item
        if isinstance(item, MethodType):
            stack.append(item.__self__)
        elif isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset | deque):
            stack += item
        stack += getattr(item, "__dict__", {}).values()
        stack += [getattr(item, slot) for slot in getattr(type(item), "__slots__", ()) if hasattr(item, slot)]
        if isinstance(item, Tensor) and item.grad_fn is not None:
            stack += [function for function, _ in item.grad_fn.next_functions]


def assert_nothing_of_the_clients(roots: object, parts: Parts) -> None:
    """Neither what F1 and F3 hold, nor the clients' images and labels, nor the seed they could be computed from."""
    secrets = [tensor for layers in (parts.model.F1, parts.model.F3) for tensor in layers.state_dict().values()]
    secrets += [parts.data.train.images, parts.data.test.images, parts.data.train.labels, parts.data.test.labels]
    assert_none_of(secrets, roots)
    assert parts.runtime.seed not in {item.seed for item in reachable(roots) if isinstance(item, Runtime)}


def assert_none_of(secrets: Sequence[Tensor], roots: object) -> None:
    """No tensor that can be had shares memory with one of these."""
    storages = {tensor.untyped_storage().data_ptr() for tensor in secrets}
    reached = [item for item in reachable(roots) if isinstance(item, Tensor)]
    assert reached, "the walk is blind"
    assert not [item.shape for item in reached if item.untyped_storage().data_ptr() in storages]
