"""Training state as one flat dictionary of named tensors, which is what a checkpoint holds."""

import torch
from torch import Tensor

State = dict[str, Tensor]


def join(**parts: State) -> State:
    """One state of several: the key `k` of the part `p` becomes `p/k`."""
    return {f"{name}/{key}": tensor for name, part in parts.items() for key, tensor in part.items()}


def part(state: State, name: str) -> State:
    """The part `name` of a joined state."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in state.items() if key.startswith(f"{name}/")}


def storable(state: State) -> State:
    """Detached, contiguous and on the CPU, and none sharing memory with another, as safetensors wants them.

    In a state dict they may: a module that a model holds under two names stands there twice, and so do tied weights.
    """
    found: State = {}
    memory = set()
    for name, tensor in state.items():
        own = tensor.detach().cpu().contiguous()
        if own.untyped_storage().data_ptr() in memory:
            own = own.clone()
        memory.add(own.untyped_storage().data_ptr())
        found[name] = own
    return found


def number(*values: float) -> Tensor:
    """One or more numbers, exact."""
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """The tensors an optimizer keeps for each parameter, as `<parameter's position>/<what>`."""
    return {
        f"{position}/{what}": tensor
        for position, parameter in enumerate(_parameters(optimizer))
        for what, tensor in optimizer.state.get(parameter, {}).items()
        if tensor is not None
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Take over what `optimizer_state` gave; tensors get the memory layout of their parameter."""
    optimizer.state.clear()
    for position, parameter in enumerate(_parameters(optimizer)):
        for what, tensor in part(state, str(position)).items():
            like = parameter if tensor.shape == parameter.shape else tensor.to(parameter.device)
            optimizer.state[parameter][what] = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
