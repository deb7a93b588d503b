"""The verdict: one paragraph for somebody who will read nothing else."""

from collections.abc import Mapping, Sequence

from splitaudit.config import RunConfig
from splitaudit.evaluation.result import AttackResult, Check, CleanResult


def write_verdict(
    config: RunConfig, clean: CleanResult, attacks: Mapping[str, AttackResult], checks: Mapping[str, Check]
) -> str:
    """What the figures say, in words, and what they do not say."""
    model = "one client's model, whose input layers are its own," if config.diverse else "the model"
    sentences = [f"Left alone, {model} classifies {clean.accuracy:.1f}% of {clean.n} test images correctly."]
    if not checks["model-learned"].passed:
        return sentences[0] + " That is no better than guessing, so nothing can be said about its robustness."
    noise, ceiling, white_box = attacks.get("noise"), attacks.get("sladv-true-input"), attacks.get("pgd")
    size = _size(config, attacks)
    server = [attacks[name] for name in ("aligned", "sladv") if name in attacks]
    if server:
        sentences += _servers(config, server, noise, ceiling, checks, size)
    else:
        if noise is not None:
            sentences.append(f"Random noise of {size} costs {_drop(noise)}.")
        if ceiling is not None:
            sentences.append(f"A server that came to know the clients' input layers would cost {_drop(ceiling)}.")
    if white_box is not None:
        sentences.append(f"Somebody holding the whole model would cost {_drop(white_box)}.")
    failed = [check.name for check in checks.values() if not check.passed and not check.name.endswith("-beats-noise")]
    if failed:
        sentences.append(f"Before you rely on this, see what failed under Checks: {', '.join(failed)}.")
    return " ".join(sentences)


def _servers(
    config: RunConfig,
    servers: Sequence[AttackResult],
    noise: AttackResult | None,
    ceiling: AttackResult | None,
    checks: Mapping[str, Check],
    size: str,
) -> list[str]:
    """What the stronger of the server's attacks does, and what is to be said of the other."""
    strongest, *others = sorted(servers, key=lambda attack: -attack.accuracy_drop)
    unseen = "data, labels nor" if config.training.topology == "u_shaped" else "data nor"
    hijacked = config.adversary.kind == "hijack"
    how = {
        "aligned": "by aligning shadow layers to the activations it has seen",
        "sladv": "through the shadow layers of its hijacking" if hijacked else "by the published attack",
    }
    sentences = [
        f"Its server, knowing neither {unseen} the clients' layers, lowers that by {_drop(strongest)} "
        f"{how[strongest.name]}, with perturbations of {size}"
        + (f", where random noise of that size costs {_drop(noise)}." if noise is not None else ".")
    ]
    if ceiling is not None and ceiling.accuracy_drop > 0:
        share = 100 * strongest.accuracy_drop / ceiling.accuracy_drop
        much = "as much as" if share >= 100 else f"{share:.0f}% of"
        sentences.append(f"That is {much} what knowing the clients' input layers would bring it: {_drop(ceiling)}.")
    if strongest.name == "aligned" and config.adversary.passive:
        sentences.append("It returned honest gradients all the while: no client could have noticed.")
    for attack in (strongest, *others):
        check = checks.get(f"{attack.name}-beats-noise")
        if check is not None and not check.passed:
            sentences.append(
                f"{_named(attack, config)} FAILED here: it does not beat noise. That is no evidence of safety; it "
                "shows only that this attack's shadow layers are poor."
            )
        elif attack is not strongest:
            sentences.append(f"{_named(attack, config)} alone costs {_drop(attack)}.")
    return sentences


def _named(attack: AttackResult, config: RunConfig) -> str:
    if attack.name == "aligned":
        return "The attack through aligned shadow layers"
    hijacked = config.adversary.kind == "hijack"
    return "The attack through the hijacker's shadow layers" if hijacked else "The published attack"


def _size(config: RunConfig, attacks: Mapping[str, AttackResult]) -> str:
    if config.attack.norm == "l2":
        unit = "" if config.attack.eps_unit == "pixels" else " of standardised images"
        return f"L2 norm at most {config.attack.eps:.3g}{unit}"
    return f"at most {255 * next(iter(attacks.values())).eps_pixels:.3g}/255 per pixel" if attacks else "no size"


def _drop(attack: AttackResult) -> str:
    return f"{attack.accuracy_drop:.1f} points".replace("-", "\N{MINUS SIGN}")
