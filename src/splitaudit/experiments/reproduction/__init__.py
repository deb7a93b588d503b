"""The paper's tables, trained and attacked anew: its values, the plan, the claims, and the comparison."""
