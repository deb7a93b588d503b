"""Beginning a training that several audits may share, in its folder: the one asked for, and those beside it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from splitaudit.config import RunConfig, RuntimeConfig
from splitaudit.errors import SplitAuditError
from splitaudit.experiments.parts import Parts, build
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.experiments.training import Kept, resume


def begin(config: RunConfig, folder: RunFolder, reporter: Reporter) -> Parts:
    """Build what a resolved config describes, and make the folder its training's unless it is.

    Raises RunError if it is another's, and SplitAuditError as `build` does; then the folder is as it was.
    """
    folder.check_training(config)
    parts = build(config, reporter.say)
    check_content(config, folder, parts)
    if not folder.digests.exists():
        folder.take(config, parts.digests)
    return parts


def check_content(config: RunConfig, folder: RunFolder, parts: Parts) -> None:
    """Raise RunError if the training was begun with other images, of those that it needs, or another model."""
    besides = () if config.adversary.trains_shadow else ("attacker's images",)
    folder.check_content(parts.digests, besides=besides)


@contextmanager
def onlooking(
    beside: Sequence[tuple[RunConfig, Path]], runtime: RuntimeConfig, reporter: Reporter
) -> Iterator[list[Kept]]:
    """The sessions of these configs, where their folders left them, and the folders, locked; computed with `runtime`.

    Those that are done are left out; so are those that cannot begin: why, they tell when their turn comes.
    """
    with ExitStack() as locks:
        kept: list[Kept] = []
        for config, path in beside:
            folder = RunFolder(path)
            if folder.model.exists():
                continue
            try:
                parts = begin(config.model_copy(update={"runtime": runtime}), folder, reporter)
                locks.enter_context(folder.locked())
                resume(parts.session, folder, reporter)
            except SplitAuditError as error:
                reporter.say(f"Left out of this training: {error}")
            else:
                kept.append((parts.session, folder))
        yield kept
