"""What to fit shadow layers by, and whether the server can tell: shapes and objectives, at cuts behind a ReLU.

Every shape is fitted with every objective to the recording of `benchmarks.passive`, and then attacked with. The table
gives the server's own evidence (the held-out score, and how well a network tells the activations apart) beside the
drop, which only an audit can measure; the rank correlation between them says how well a server can choose. With
`--held-out`, training images that nobody holds take the place of test images: to choose by.

    python -m benchmarks.alignment --out runs/passive --set data.root=FOLDER [--depths depth2 depth3] [--sources ...]
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import spearmanr
from torch import fx

from benchmarks.judge import Judge, nobodys
from benchmarks.passive import Passive, common_options, each_cut
from benchmarks.two_sample import told_apart
from splitaudit.adversary import own_runtime
from splitaudit.adversary.alignment.align import STRETCH
from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.fitting import Fit

OBJECTIVES: Mapping[str, Mapping[str, float]] = {
    "moments": {"moments": 1.0},
    "batch_norm": {"batch_norm": 1.0},
    "mmd": {"mmd": 1.0},
    "discriminator": {"discriminator": 1.0},
    "neighbours": {"neighbours": 1.0},
    "moments+neighbours": {"moments": 1.0, "neighbours": 1.0},
    "moments+mmd": {"moments": 1.0, "mmd": 1.0},
    "moments+discriminator": {"moments": 1.0, "discriminator": 1.0},
    "translation": {"translation": 1.0},
    "moments+translation": {"moments": 0.1, "translation": 1.0},
    "moments+translation+discriminator": {"moments": 0.1, "translation": 1.0, "discriminator": 0.1},
}


@dataclass(frozen=True)
class Row:
    """One fit: its settings, the server's evidence, and what it was worth."""

    seed: int
    depth: str
    source: str
    shape: str
    objectives: str
    steps: int
    score: float
    true_score: float
    """Of the clients' own layers: an oracle. What scores no worse, the server cannot tell from them."""
    told_apart: float
    """From the recording, by a network; see `benchmarks.two_sample`."""
    true_told_apart: float
    seconds: float
    drop: float
    true_input: float
    noise: float
    cosine: float
    vjp_cosine: float


def fit_all(passive: Passive, judge: Judge, shapes: list[str], objectives: list[str], steps: int) -> list[Row]:
    """One row for each shape and objective."""
    config, parts = passive.config.alignment, passive.parts
    assert isinstance(parts.model.F2, fx.GraphModule), "`cut` made the server layers"
    assert parts.adversary is not None
    own, images = own_runtime(parts.runtime), parts.data.attacker.images
    evidence = Evidence(parts.adversary.recording, parts.model.F2, images, config, own)
    true_input, noise = judge.drop("sladv-true-input"), judge.drop("noise")
    true_score, true_told_apart = evidence.score(parts.model.F1), told_apart(parts.model.F1, evidence)
    rows = []
    for shape in shapes:
        for name in objectives:
            settings = config.model_copy(update={"objectives": OBJECTIVES[name]})
            fit = Fit(shape, settings, evidence, None)
            for done in range(STRETCH, steps + STRETCH, STRETCH):
                fit.advance_to(min(steps, done))
                if fit.settled:
                    break
            likeness = judge.likeness(fit.shadow)
            rows.append(
                Row(
                    seed=passive.config.runtime.seed,
                    depth=passive.config.model.input_end,
                    source=passive.config.attacker.source,
                    shape=shape,
                    objectives=name,
                    steps=max(fit.scores),
                    score=fit.score,
                    true_score=true_score,
                    told_apart=told_apart(fit.shadow, evidence),
                    true_told_apart=true_told_apart,
                    seconds=fit.seconds,
                    drop=judge.aligned(fit.shadow),
                    true_input=true_input,
                    noise=noise,
                    cosine=likeness.cosine,
                    vjp_cosine=likeness.vjp_cosine,
                )
            )
            print(json.dumps(vars(rows[-1])), flush=True)
    return rows


def main() -> None:
    """Print a row a fit, and the rank correlations; write the rows as JSON."""
    parser = common_options(__doc__)
    parser.add_argument("--depths", nargs="+", default=["depth2", "depth3", "depth4"])
    parser.add_argument("--sources", nargs="+", default=["tiny-imagenet"])
    parser.add_argument("--shapes", nargs="+", default=["residual-5x5", "multi", "resnet"])
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--judged", type=int, default=500, help="images that are attacked")
    parser.add_argument("--held-out", action="store_true", help="judge by training images that nobody holds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for passive in each_cut(options):
        held_out = nobodys(passive.parts.data, passive.config, options.judged) if options.held_out else None
        judge = Judge(passive, options.judged, held_out)
        found = fit_all(passive, judge, options.shapes, options.objectives, options.steps)
        rows += found
        if len(found) > 2:
            drops = [row.drop for row in found]
            evidence = {
                "score": [row.score for row in found],
                "telling apart": [row.told_apart for row in found],
                "their product": [row.score * row.told_apart for row in found],
            }
            which = f"{passive.config.model.input_end}, {passive.config.attacker.source}, {len(found)} fits"
            print(f"{which}: rank correlation with drop")
            for name, values in evidence.items():
                told = spearmanr(values, drops)
                print(f"  {name:<15}{told.statistic:6.2f} (p = {told.pvalue:.3f})")
    if options.json is not None:
        options.json.write_text(json.dumps([vars(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
