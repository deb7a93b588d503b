"""A small trained model as its clients and its server hold it."""

from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import FineTuningConfig
from splitaudit.defenses.view import DeliveredView
from splitaudit.experiments.delivered_view import delivered_view
from splitaudit.experiments.parts import Parts
from tests.conftest import small_config

PLAIN = TrainingConfig(augment="none", momentum=0.0)


def view_of(parts: Parts, settings: FineTuningConfig) -> DeliveredView:
    """What its clients hold; attacked with a budget that ends this model's accuracy."""
    config = small_config("attack.eps=0.2")
    return delivered_view(config, parts.model, parts.data, settings, parts.runtime)
