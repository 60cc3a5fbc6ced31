"""The path of ``torchvision.models.detection.rpn``."""

from fastcv.models.detection.anchor_generator import AnchorGenerator
from fastcv.models.detection.region_proposal import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from fastcv.models.detection.transform import ImageList

__all__ = ["AnchorGenerator", "ImageList", "RPNHead", "RegionProposalNetwork", "concat_box_prediction_layers"]
