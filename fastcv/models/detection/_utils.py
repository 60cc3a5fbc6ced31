"""The path of ``torchvision.models.detection._utils``."""

from fastcv.models.detection.matching import BoxCoder, Matcher
from fastcv.models.detection.sampler import BalancedSampler as BalancedPositiveNegativeSampler
from fastcv.ops.box_coding import encode_boxes

__all__ = ["BalancedPositiveNegativeSampler", "BoxCoder", "Matcher", "encode_boxes"]
