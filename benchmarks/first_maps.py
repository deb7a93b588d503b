"""What the first dictionary of a fit shows of the clients' images: how like them its pictures are, and whether as
negatives.

The clients' images are shrunk to the size of the activations. To compare with them is an oracle; the map itself is made
of what the server has.

    python -m benchmarks.first_maps --out runs/passive --set data.root=FOLDER [--seeds 3] [--depths depth2 depth3]
"""

import json
from pathlib import Path

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from benchmarks.passive import Passive, common_options, each_cut
from splitaudit.adversary import own_runtime
from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.randomness import derive_generator

IMAGES = 512


@torch.no_grad()
def likeness(passive: Passive) -> float:
    """Correlation of the pictures of some of the clients' training images with these images, from -1 to 1."""
    parts = passive.parts
    assert isinstance(parts.model.F2, fx.GraphModule), "`cut` made the server layers"
    assert parts.adversary is not None
    parts.model.whole.eval()
    recording, images = parts.adversary.recording, parts.data.attacker.images
    evidence = Evidence(recording, parts.model.F2, images, passive.config.alignment, own_runtime(parts.runtime))
    held = torch.cat(list(parts.data.partition.clients))
    clients = held[torch.randperm(len(held), generator=derive_generator(parts.runtime.seed, "first maps"))[:IMAGES]]
    pixels = parts.runtime.pixels(parts.data.train.images[clients])
    activations = evidence.imitate(parts.model.F1, pixels).float()
    pictures = evidence.inverse(evidence.references[0].standardized(activations))
    small = F.adaptive_avg_pool2d(evidence.normalize(pixels), pictures.shape[2:])
    return float(F.cosine_similarity(_centred(pictures), _centred(small), dim=0))


def _centred(pictures: Tensor) -> Tensor:
    """All pixels, without the mean of their colour."""
    return (pictures - pictures.mean((0, 2, 3), keepdim=True)).flatten()


def main() -> None:
    """Print a row for each training, cut and source, and write them as JSON."""
    parser = common_options(__doc__)
    parser.add_argument("--depths", nargs="+", default=["depth2"])
    parser.add_argument("--sources", nargs="+", default=["cifar10", "tiny-imagenet", "fashion-mnist"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for passive in each_cut(options):
        config = passive.config
        which = {"seed": config.runtime.seed, "depth": config.model.input_end, "source": config.attacker.source}
        rows.append({**which, "correlation": likeness(passive)})
        print(json.dumps(rows[-1]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
