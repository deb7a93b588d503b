"""The model that a config describes, for the images that its owners hold."""

from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.data import AuditData, pixel_statistics
from splitaudit.models import SplitModel, build_split_model
from splitaudit.models.user import import_user_module


def build_model_for(held: Tensor, config: RunConfig, data: AuditData, seed: int) -> SplitModel:
    """The split model, its normalisation that of the training images `held` (int64 indices); raises ModelError."""
    if config.model.module is not None:
        # From here on it is found by its name, whatever the current folder.
        import_user_module(config.model.module, config.model.root)
    mean, std = pixel_statistics(data.train.images[held])
    return build_split_model(
        config.model,
        num_classes=len(data.train.classes),
        image_shape=data.train.shape,
        mean=mean,
        std=std,
        seed=seed,
    )
