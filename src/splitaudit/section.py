"""What every section of a config is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen settings; a key that is none of them is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
