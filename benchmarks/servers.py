"""What servers that return honest gradients can do: drop through the published and the aligned shadow, as shares of
the drop through the true input layers, over training seeds, for sources and numbers of the server's images, and depths.

    python -m benchmarks.servers --out runs/passive --set data.root=FOLDER [--seeds 3] [--images 4096] [CONFIG]
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t

from benchmarks.judge import Judge
from benchmarks.passive import SOURCES, Passive, common_options, each_trained, load_passive
from splitaudit.experiments.alignment import obtain_aligned
from splitaudit.experiments.progress import Reporter


@dataclass(frozen=True)
class Row:
    """One seed, depth, source and number of images: drops in points; the alignment's shape, score and seconds."""

    model: str
    seed: int
    depth: str
    source: str
    images: int
    accuracy: float
    published: float | None
    """At depth1, of the number of images it learned from in the training."""
    aligned: float
    true_input: float
    untrained: float
    noise: float
    chosen: str
    score: float
    explained: float | None
    candidates: dict[str, float]
    """Scores by shape."""
    cosine: float
    vjp_cosine: float
    seconds: float
    training_seconds: float


def measure(passive: Passive, judge: Judge, folder: Path) -> Row:
    """Align as the config says, and attack."""
    config, parts = passive.config, passive.parts
    assert parts.adversary is not None
    shadow, found = obtain_aligned(
        config, parts.adversary, parts.model, parts.data, folder / config.model.input_end, parts.runtime, Reporter()
    )
    likeness = judge.likeness(shadow)
    scores = {candidate.shape: candidate.score for candidate in found.candidates}
    return Row(
        model=str(config.model.name),
        seed=config.runtime.seed,
        depth=config.model.input_end,
        source=config.attacker.source,
        images=config.attacker.images,
        accuracy=judge.accuracy,
        published=None if passive.published is None else judge.published(passive.published),
        aligned=judge.aligned(shadow),
        true_input=judge.drop("sladv-true-input"),
        untrained=judge.drop("sladv-untrained"),
        noise=judge.drop("noise"),
        chosen=found.chosen,
        score=scores[found.chosen],
        explained=found.explained,
        candidates=scores,
        cosine=likeness.cosine,
        vjp_cosine=likeness.vjp_cosine,
        seconds=found.seconds,
        training_seconds=passive.training_seconds,
    )


def spread(values: Sequence[float]) -> str:
    """Mean, with the 95% interval over seeds (Student's t)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:5.1f}"
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return f"{mean:5.1f} ({mean - half:.1f} to {mean + half:.1f})"


def table(rows: Sequence[Row]) -> str:
    """Over the seeds: the drops through the true input layers, and through shadows as shares of them, in per cent."""
    lines = [f"{'depth':<8}{'source':<15}{'images':>7}  {'true input':<22}{'published, %':<24}{'aligned, %':<24}noise"]
    for key in dict.fromkeys((row.depth, row.source, row.images) for row in rows):
        found = [row for row in rows if (row.depth, row.source, row.images) == key]
        published = [100 * row.published / row.true_input for row in found if row.published is not None]
        lines.append(
            f"{key[0]:<8}{key[1]:<15}{key[2]:>7}  {spread([row.true_input for row in found]):<22}"
            f"{spread(published) if published else '':<24}"
            f"{spread([100 * row.aligned / row.true_input for row in found]):<24}{spread([row.noise for row in found])}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write its rows as JSON."""
    parser = common_options(__doc__, "attacker.images")
    parser.add_argument("--depths", nargs="+", default=["depth1"])
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    parser.add_argument("--images", type=int, nargs="+", default=[4096])
    parser.add_argument("--judged", type=int, default=1000, help="test images that are attacked")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    rows: list[Row] = []
    for config, folder in each_trained(options):
        for depth in options.depths:
            for source in options.sources:
                for images in options.images:
                    passive = load_passive(config, depth, source, images, folder)
                    rows.append(measure(passive, Judge(passive, options.judged), folder.path))
                    print(json.dumps(vars(rows[-1])), flush=True)
                    options.json.write_text(json.dumps([vars(row) for row in rows], indent=2))
    print(table(rows))


if __name__ == "__main__":
    main()
