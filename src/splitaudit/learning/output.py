"""The end of a split step: the output layers, the loss, and the gradient that goes back."""

from torch import Tensor
from torch.nn import functional as F

from splitaudit.learning.layers import TrainedLayers


def output_gradient(output: TrainedLayers, o2: Tensor, labels: Tensor, iteration: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `F3(o2)` over the batch (a detached scalar), and dL/do2; accumulates the gradients of `F3`.

    Done by the client in U-shaped split learning, by the server in vanilla split learning.
    """
    o2 = o2.detach().requires_grad_()
    loss = F.cross_entropy(output.forward(o2, iteration).float(), labels)
    loss.backward()
    assert o2.grad is not None
    return loss.detach(), o2.grad
