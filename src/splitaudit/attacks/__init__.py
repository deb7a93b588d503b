"""Crafting adversarial examples: one loop (`craft`), into which objectives, gradient rules, starts and budgets plug."""

from splitaudit.attacks.budget import Budget
from splitaudit.attacks.craft import craft

__all__ = ["Budget", "craft"]
