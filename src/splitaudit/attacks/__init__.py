"""Crafting adversarial examples: one loop (`craft`), into which objectives, gradient rules, starts and budgets plug.

`RECIPES` names combinations of them.
"""

from splitaudit.attacks.budget import Budget
from splitaudit.attacks.craft import craft
from splitaudit.attacks.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Budget", "Recipe", "craft"]
