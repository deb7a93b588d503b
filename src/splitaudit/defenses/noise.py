"""Noise on what is sent: the server sees, and records, blurred activations."""

from dataclasses import replace

import torch

from splitaudit.defenses.during_settings import NoiseConfig
from splitaudit.defenses.member import Member, generator_of
from splitaudit.learning.client import Outgoing


class Noise(Member):
    """Adds Gaussian noise to the activations of every training batch. The delivered model is used without it."""

    name = "noise"

    def __init__(self, config: NoiseConfig) -> None:
        self._share = config.share

    def send(self, batch: Outgoing) -> Outgoing:
        """The batch, its activations with noise of `share` of their standard deviation."""
        o1 = batch.o1
        noise = torch.randn(o1.shape, generator=generator_of(batch, self.name)).to(o1.device)
        return replace(batch, o1=o1 + (self._share * o1.detach().float().std() * noise).to(o1.dtype))
