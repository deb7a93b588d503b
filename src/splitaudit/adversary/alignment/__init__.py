"""What a server makes of its recording after the training: shadow layers aligned to the activations it has seen."""

from splitaudit.adversary.alignment.align import Aligned, Candidate, align
from splitaudit.adversary.alignment.shadow import restored_shadow

__all__ = ["Aligned", "Candidate", "align", "restored_shadow"]
