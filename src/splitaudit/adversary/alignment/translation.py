"""Fitting behind non-linear layers: as one learns a language without a dictionary, by translating back and forth.

The server has images without the clients' activations, and activations without their images. A decoder turns recorded
activations into pictures, and the shadow layers learn to turn each picture back into the activations that it came from;
meanwhile they turn the server's images into activations, and the decoder learns to turn those back into the images. The
first dictionary is the `linear_inverse`. Source: unsupervised machine translation (Lample et al., ICLR and EMNLP 2018),
whose three principles these are: initialisation, a model of the language (here, of patches), back-translation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.objective import Batch, Objective
from splitaudit.learning.state import State, join, load_optimizer_state, optimizer_state, part
from splitaudit.models.shadows import decoder_body
from splitaudit.randomness import derive_generator, isolated_global_rng

INTRODUCED = 100
"""Steps in which the linear inverse translates; from then on, the decoder does."""
TRANSLATED = 64
"""Recorded samples of a step, and images that the decoder learns from."""
LEARNING_RATE = 0.002


def translation(evidence: Evidence) -> Objective:
    """Mean square error of recorded activations, in their deviations, after translation to pictures and back.

    Zero for activations that are not maps: a picture has nowhere to lie.
    """
    if evidence.activations.dim() != 4:
        return Objective(lambda batch: 0 * batch.features[0].sum())
    translator = _Translator(evidence)
    return Objective(translator.loss, translator.pictures, translator.state, translator.load_state)


class _Translator:
    """The decoder, which is learned on the way."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._runtime = evidence.runtime
        self._standardized = evidence.references[0].standardized
        self._normalize = evidence.normalize
        with isolated_global_rng(evidence.runtime.seed, "decoder"):
            decoder = decoder_body(tuple(evidence.activations.shape[1:]), tuple(evidence.images.shape[1:]))
        self._decoder = evidence.runtime.place(decoder)
        self._optimizer = torch.optim.Adam([{"params": list(decoder.parameters())}], lr=LEARNING_RATE, fused=True)

    @torch.no_grad()
    def pictures(self, step: int) -> Tensor:
        """The pixels (N, colours, H, W) of what some recorded activations show."""
        if step < INTRODUCED:
            coarse = self._evidence.inverse(self._standardized(self._recorded(step)))
            size = tuple(self._evidence.images.shape[2:])
            shown = F.interpolate(coarse, size, mode="bilinear", align_corners=False)
        else:
            shown = self._decode(self._decoder.eval(), self._recorded(step))
        return (shown * self._normalize.std + self._normalize.mean).clamp(0, 1)

    def loss(self, batch: Batch) -> Tensor:
        """Teach the decoder, and give what the shadow layers are taught by."""
        recorded = self._recorded(batch.step)
        self._teach(batch)
        return (self._standardized(batch.translated) - self._standardized(recorded)).square().mean()

    def _recorded(self, step: int) -> Tensor:
        """Of this step, (TRANSLATED, C, H, W)."""
        activations = self._evidence.activations
        generator = derive_generator(self._runtime.seed, "translation", step)
        return activations[torch.randint(len(activations), (TRANSLATED,), generator=generator).to(activations.device)]

    def _teach(self, batch: Batch) -> None:
        """A step of the decoder: images back from what the shadow makes of them."""
        images = self._normalize(self._runtime.pixels(batch.images[:TRANSLATED]))
        rebuilt = self._decode(self._decoder.train(), batch.features[0][:TRANSLATED].detach())
        self._optimizer.zero_grad()
        (rebuilt - images).square().mean().backward()
        self._optimizer.step()

    def _decode(self, decoder: nn.Module, activations: Tensor) -> Tensor:
        with self._runtime.autocast():
            pictures: Tensor = decoder(self._standardized(activations))
        return pictures.float()

    def state(self) -> State:
        """The decoder, and its optimizer's."""
        return join(decoder=self._decoder.state_dict(), optimizer=optimizer_state(self._optimizer))

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._decoder.load_state_dict(part(state, "decoder"))
        load_optimizer_state(self._optimizer, part(state, "optimizer"))
