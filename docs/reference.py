"""Writes the pages of the API reference: which public name stands on which page.

conf.py calls :func:`write` before a build. tests/test_docs.py compares the lists with ``__all__`` of the modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Page:
    """One page: a title, a module, and names in groups. Without names it lists ``__all__`` of the module."""

    title: str
    module: str
    about: str
    groups: dict[str, str] = field(default_factory=dict)


PAGES = {
    "fastcv": Page(
        "fastcv", "fastcv", "What is found at the top of the package.",
        {"": "accelerate_torchvision optimize Detections predict_sliced"},
    ),
    "ops": Page(
        "Operators", "fastcv.ops",
        "Functions of tensors. All run on CPU and CUDA, in float16, bfloat16, float32 and float64.",
        {
            "Features of regions": "roi_align multiscale_roi_align roi_align_rotated roi_pool ps_roi_align "
            "ps_roi_pool",
            "Suppression": "nms batched_nms batched_nms_padded soft_nms nms_rotated batched_nms_rotated",
            "Boxes": "box_iou generalized_box_iou distance_box_iou complete_box_iou box_iou_rotated box_area "
            "box_convert clip_boxes_to_image remove_small_boxes masks_to_boxes",
            "Losses": "sigmoid_focal_loss generalized_box_iou_loss distance_box_iou_loss complete_box_iou_loss",
            "Anchors, matching and coding": "anchor_grid decode_anchors encode_boxes decode_boxes match_boxes "
            "decode_yolo decode_yolo_v1",
            "Masks": "paste_masks",
            "Convolution": "conv2d deform_conv2d conv_transpose1d conv_transpose2d conv_transpose3d "
            "conv_transpose_matrix",
            "Pooling and upsampling": "max_pool2d_with_indices max_unpool2d unpool_nearest unpool_bed_of_nails "
            "upsample_bilinear2d",
            "Regularisation": "drop_block2d drop_block3d stochastic_depth",
            "Voxels": "voxelize voxelize_padded voxel_grid_size voxel_ids voxel_occupancy voxel_scatter devoxelize",
            "Point sets": "farthest_point_sample knn ball_query three_nn three_interpolate group_points gather_points",
            "Sparse convolution": "sparse_kernel_map sparse_conv sparse_max_pool sparse_avg_pool sparse_reverse_map "
            "sparse_row_order",
            "The build": "build_info",
        },
    ),
    "nn": Page(
        "Layers", "fastcv.nn", "Where torchvision or torch.nn has the layer, name and arguments are its own.",
        {
            "Features of regions": "RoIAlign MultiScaleRoIAlign LevelMapper RoIAlignRotated RoIPool PSRoIAlign "
            "PSRoIPool",
            "Convolution": "Conv2d DeformConv2d ConvTranspose1d ConvTranspose2d ConvTranspose3d",
            "Pooling and upsampling": "MaxPool2d MaxUnpool2d UnpoolNearest UnpoolBedOfNails UpsampleBilinear2d",
            "Feature pyramids": "FeaturePyramidNetwork ExtraFPNBlock LastLevelMaxPool LastLevelP6P7",
            "Blocks": "ConvNormActivation Conv2dNormActivation Conv3dNormActivation FrozenBatchNorm2d MLP Permute "
            "SqueezeExcitation",
            "Regularisation": "DropBlock2d DropBlock3d StochasticDepth",
        },
    ),
    "sparse": Page(
        "Sparse layers", "fastcv.sparse",
        "In place of ``spconv.pytorch``: ``from fastcv import sparse as spconv``.",
        {
            "Tensors": "SparseConvTensor PointToVoxel gather_features_by_pc_voxel_id",
            "Convolution": "SubMConv1d SubMConv2d SubMConv3d SubMConv4d SparseConv1d SparseConv2d SparseConv3d "
            "SparseConv4d SparseInverseConv1d SparseInverseConv2d SparseInverseConv3d SparseInverseConv4d "
            "SparseConvTranspose1d SparseConvTranspose2d SparseConvTranspose3d SparseConvTranspose4d SparseConvolution "
            "ConvAlgo",
            "Pooling": "SparseMaxPool1d SparseMaxPool2d SparseMaxPool3d SparseMaxPool4d SparseMaxPool SparseAvgPool1d "
            "SparseAvgPool2d SparseAvgPool3d SparseAvgPool SparseGlobalMaxPool SparseGlobalAvgPool",
            "Containers and the rest": "SparseModule SparseSequential SparseReLU SparseBatchNorm SparseSyncBatchNorm "
            "SparseIdentity Identity ToDense RemoveGrid AddTable AddTableMisaligned ConcatTable JoinTable "
            "is_spconv_module assign_name_for_sparse_modules",
            "Modules, as spconv has them": "constants functional hash ops utils",
        },
    ),
    "models": Page("Models by name", "fastcv.models", "Models, their weights, and the card that names both."),
    "models.detection": Page(
        "R-CNN", "fastcv.models.detection", "Faster, Mask and Keypoint R-CNN, with torchvision's checkpoints.",
        {
            "Builders": "fasterrcnn_resnet50_fpn fasterrcnn_resnet50_fpn_v2 fasterrcnn_mobilenet_v3_large_fpn "
            "fasterrcnn_mobilenet_v3_large_320_fpn maskrcnn_resnet50_fpn maskrcnn_resnet50_fpn_v2 "
            "keypointrcnn_resnet50_fpn create load_weights MODELS",
            "Detectors": "FasterRCNN MaskRCNN KeypointRCNN GeneralizedRCNN",
            "Parts": "AnchorGenerator BackboneWithFPN BalancedSampler DetectionTransform GeneralizedRCNNTransform "
            "ImageList RPNHead RegionProposalNetwork RoIHeads FastRCNNConvFCHead FastRCNNPredictor TwoMLPHead "
            "MaskRCNNHeads MaskRCNNPredictor KeypointRCNNHeads KeypointRCNNPredictor heatmaps_to_keypoints "
            "ResNet resnet resnet_fpn_backbone mobilenet_backbone",
            "Weights, as torchvision names them": "FasterRCNN_ResNet50_FPN_Weights FasterRCNN_ResNet50_FPN_V2_Weights "
            "FasterRCNN_MobileNet_V3_Large_FPN_Weights FasterRCNN_MobileNet_V3_Large_320_FPN_Weights "
            "MaskRCNN_ResNet50_FPN_Weights MaskRCNN_ResNet50_FPN_V2_Weights KeypointRCNN_ResNet50_FPN_Weights",
        },
    ),
    "models.yolo": Page("YOLO", "fastcv.models.yolo", "YOLO v1, tiny v2 and v3-tiny, and Darknet's files."),
    "models.pointcloud": Page("Point clouds", "fastcv.models.pointcloud", "Networks for points and voxels."),
    "models.segmentation": Page("Segmentation", "fastcv.models.segmentation", "Networks that label pixels."),
    "data": Page("Data", "fastcv.data", "Readers, generators, augmentation."),
    "data.transforms": Page("Transforms of images", "fastcv.data.transforms", "Of an image and its target together."),
    "data.cloud_transforms": Page("Transforms of clouds", "fastcv.data.cloud_transforms", "Of points and labels."),
    "data.images": Page("Images", "fastcv.data.images", "Pictures and tensors."),
    "engine": Page("Training and evaluation", "fastcv.engine", "One loop for all models, and COCO's metrics."),
    "detections": Page("Detections", "fastcv.detections", "What a detector finds."),
    "slicing": Page("Large images", "fastcv.slicing", "Detection tile by tile."),
    "drawing": Page("Drawing", "fastcv.drawing", "Pictures of what was found."),
    "class_names": Page("Names of classes", "fastcv.class_names", "Of the usual data sets."),
    "fusion": Page("Optimization", "fastcv.fusion", "Networks made ready for inference on CPUs."),
    "accelerate": Page("Acceleration", "fastcv.accelerate", "fastcv's operators in torchvision's models."),
    "compat": Page("spconv's name", "fastcv.compat", "fastcv under the names of other packages."),
    "compat.pytorch3d": Page("PyTorch3D", "fastcv.compat.pytorch3d", "The forms of ``pytorch3d.ops``."),
    "onnx": Page("ONNX", "fastcv.onnx", "Export with ``torch.onnx.export(dynamo=True)``."),
    "reference": Page(
        "Reference", "fastcv.reference", "Each operator in plain torch, slow and obvious: what tests compare with."
    ),
}  # fmt: skip


def page_names(page: Page) -> list[str]:
    """The names on a page."""
    from importlib import import_module

    return " ".join(page.groups.values()).split() or list(import_module(page.module).__all__)


def text(page: Page) -> str:
    """A page, in reStructuredText."""
    from importlib import import_module

    module = import_module(page.module)
    lines = [
        page.title,
        "=" * len(page.title),
        "",
        f".. module:: {page.module}",
        "",
        f"``{page.module}``: {page.about}",
    ]
    for title, names in (page.groups or {"": " ".join(page_names(page))}).items():
        if title:
            lines += ["", title, "-" * len(title)]
        for name in names.split():
            lines += ["", *entry(page.module, name, getattr(module, name))]
    return "\n".join(lines) + "\n"


def entry(module: str, name: str, value: object) -> list[str]:
    """The directive of one name. What lives on another page is described there, and linked."""
    path = f"{module}.{name}"
    if home := HOMES.get(path):
        return [f"- :obj:`{name} <{home}>`"]
    if isinstance(value, type):
        return [f".. autoclass:: {path}", "   :members:", "   :exclude-members: extra_repr"]  # torch's words, no use
    if callable(value):
        return [f".. autofunction:: {path}"]
    if type(value).__name__ == "module":
        first = (value.__doc__ or "").strip().split("\n\n")[0]
        return [f".. py:module:: {path}", "", f"``{path}``: {' '.join(first.split())}"]
    return [f".. py:data:: {path}", "", f"   A {type(value).__name__} of {len(value)} entries."]  # type: ignore[arg-type]


HOMES = {
    "fastcv.Detections": "fastcv.detections.Detections",
    "fastcv.accelerate_torchvision": "fastcv.accelerate.accelerate_torchvision",
    "fastcv.optimize": "fastcv.fusion.optimize",
    "fastcv.predict_sliced": "fastcv.slicing.predict_sliced",
}


def write(folder: Path) -> None:
    """Write all pages, and their table of contents, where they have changed."""
    folder.mkdir(exist_ok=True)
    lines = [
        "API reference",
        "=============",
        "",
        ".. toctree::",
        "   :maxdepth: 1",
        "",
        *(f"   {name}" for name in PAGES),
    ]
    pages = {"index": "\n".join(lines) + "\n", **{name: text(page) for name, page in PAGES.items()}}
    for name, content in pages.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text() != content:
            path.write_text(content)
