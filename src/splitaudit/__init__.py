"""Train a model by split learning, and measure how well it withstands the server it was trained with."""

__version__ = "0.1.0"
