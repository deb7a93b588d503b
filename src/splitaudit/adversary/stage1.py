"""What a tampering adversary is: one that leaves shadow input layers."""

from typing import Protocol

from torch import nn

from splitaudit.learning.server import Adversary


class Stage1(Adversary, Protocol):
    """An adversary that trains, or has, shadow input layers, whatever it returns to the clients."""

    @property
    def shadow(self) -> nn.Module:
        """The shadow input layers as they are now."""
