"""The model that a config describes, for the images that its owners hold."""

from collections.abc import Callable

from torch import Tensor

from splitaudit.config import RunConfig
from splitaudit.data import AuditData, pixel_statistics
from splitaudit.models import SplitModel, build_split_model
from splitaudit.models.user import import_user_module


def build_model_for(held: Tensor, config: RunConfig, data: AuditData, seed: int) -> SplitModel:
    """The split model, its normalisation that of the training images `held` (int64 indices); raises ModelError."""
    return model_builder(held, config, data)(seed)


def model_builder(held: Tensor, config: RunConfig, data: AuditData) -> Callable[[int], SplitModel]:
    """What builds such a model from a seed; it holds on to no images."""
    if config.model.module is not None:
        # From here on it is found by its name, whatever the current folder.
        import_user_module(config.model.module, config.model.root)
    mean, std = pixel_statistics(data.train.images[held])
    classes, shape = len(data.train.classes), data.train.shape

    def build(seed: int) -> SplitModel:
        return build_split_model(config.model, num_classes=classes, image_shape=shape, mean=mean, std=std, seed=seed)

    return build
