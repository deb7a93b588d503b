"""Images: where they come from, who holds which, and how a batch is augmented."""

from splitaudit.data.audit import AuditData, load_attacker_images, load_audit_data
from splitaudit.data.augment import crop_and_flip
from splitaudit.data.images import ImageSet, pixel_statistics
from splitaudit.data.partition import Partition, attacker_subset, partition_clients
from splitaudit.data.sources import load_images

__all__ = [
    "AuditData",
    "ImageSet",
    "Partition",
    "attacker_subset",
    "crop_and_flip",
    "load_attacker_images",
    "load_audit_data",
    "load_images",
    "partition_clients",
    "pixel_statistics",
]
