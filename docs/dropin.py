"""Write docs/drop-in.md: every name of five packages, and what stands for it here.

    python docs/dropin.py            # writes the table
    python docs/dropin.py --check    # exit status 1 if the table is not up to date

The names are data, since most of the packages need not be installed. Whether a name is here is asked of fastcv.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

PAGE = Path(__file__).with_name("drop-in.md")
LATER = "planned"
TORCH = "torch's own serves"


@dataclass(frozen=True)
class Peer:
    """A package.

    Attributes
    ----------
    title, version
        What the names are those of.
    homes
        Modules of ours that are searched, in order.
    names
        Of functions and layers, separated by white space.
    others
        Name to a dotted name of ours that means the same.
    notes
        Name to what differs, where it is here.
    reasons
        Why a name is not here; ``LATER`` where nothing is said.
    """

    title: str
    version: str
    homes: tuple[str, ...]
    names: str
    others: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def for_all(reason: str, names: str) -> dict[str, str]:
    """Return the same reason for several names."""
    return dict.fromkeys(names.split(), reason)


TORCHVISION = Peer(
    "torchvision.ops",
    "0.29",
    ("fastcv.ops",),
    """
    Conv2dNormActivation Conv3dNormActivation DeformConv2d DropBlock2d DropBlock3d FeaturePyramidNetwork
    FrozenBatchNorm2d MLP MultiScaleRoIAlign PSRoIAlign PSRoIPool Permute RoIAlign RoIPool SqueezeExcitation
    StochasticDepth batched_nms box_area box_convert box_iou clip_boxes_to_image complete_box_iou complete_box_iou_loss
    deform_conv2d distance_box_iou distance_box_iou_loss drop_block2d drop_block3d generalized_box_iou
    generalized_box_iou_loss masks_to_boxes nms ps_roi_align ps_roi_pool remove_small_boxes roi_align roi_pool
    sigmoid_focal_loss stochastic_depth
    """,
    notes={
        "box_area": "integers give int64, which does not overflow",
        "batched_nms": "classes are compared as they are, not moved by an offset",
        **for_all("torch's operations, no kernel of its own", "drop_block2d drop_block3d stochastic_depth"),
    },
)

SPCONV = Peer(
    "spconv.pytorch",
    "2.3.8",
    ("fastcv.sparse",),
    """
    AddTable ConcatTable ConvAlgo Identity JoinTable PointToVoxel RemoveGrid SparseAvgPool1d SparseAvgPool2d
    SparseAvgPool3d SparseBatchNorm SparseConv1d SparseConv2d SparseConv3d SparseConv4d SparseConvTensor
    SparseConvTranspose1d SparseConvTranspose2d SparseConvTranspose3d SparseConvTranspose4d SparseGlobalAvgPool
    SparseGlobalMaxPool SparseIdentity SparseInverseConv1d SparseInverseConv2d SparseInverseConv3d SparseInverseConv4d
    SparseMaxPool1d SparseMaxPool2d SparseMaxPool3d SparseMaxPool4d SparseModule SparseReLU SparseSequential
    SparseSyncBatchNorm SubMConv1d SubMConv2d SubMConv3d SubMConv4d ToDense assign_name_for_sparse_modules
    """,
    others={"PointToVoxel": "fastcv.ops.voxelize", "Identity": "fastcv.sparse.SparseIdentity"},
)

MMCV_ANGLES = (
    "degrees as detectron2 has them, where mmcv takes radians: `rad2deg(angle)`, negative for `clockwise=True`"
)
MMCV_ROTATED = f"{MMCV_ANGLES}; as with `aligned=True`, for `aligned=False` add `0.5 / spatial_scale` to the centres"

MMCV = Peer(
    "mmcv.ops",
    "2.2",
    ("fastcv.ops", "fastcv.nn", "fastcv.sparse"),
    """
    BezierAlign BorderAlign CARAFE CARAFENaive CARAFEPack Conv2d ConvTranspose2d CornerPool Correlation
    CrissCrossAttention DeformConv2d DeformConv2dPack DeformRoIPool DeformRoIPoolPack DynamicScatter FusedBiasLeakyReLU
    GroupAll Linear MaskedConv2d MaxPool2d ModulatedDeformConv2d ModulatedDeformConv2dPack ModulatedDeformRoIPoolPack
    MultiScaleDeformableAttention PSAMask PointsSampler PrRoIPool QueryAndGroup RiRoIAlignRotated RoIAlign
    RoIAlignRotated RoIAwarePool3d RoIPointPool3d RoIPool SAConv2d SigmoidFocalLoss SimpleRoIAlign SoftmaxFocalLoss
    SparseConv2d SparseConv3d SparseConvTensor SparseConvTranspose2d SparseConvTranspose3d SparseInverseConv2d
    SparseInverseConv3d SparseMaxPool2d SparseMaxPool3d SparseModule SparseSequential SubMConv2d SubMConv3d
    SyncBatchNorm TINShift Voxelization active_rotated_filter assign_score_withk ball_query batched_nms bbox_overlaps
    bezier_align bias_act border_align box_iou_quadri box_iou_rotated boxes_iou3d boxes_iou_bev boxes_overlap_bev carafe
    carafe_naive chamfer_distance contour_expand conv2d conv_transpose2d convex_giou convex_iou deform_conv2d
    deform_roi_pool diff_iou_rotated_2d diff_iou_rotated_3d dynamic_scatter filter2d filtered_lrelu
    furthest_point_sample furthest_point_sample_with_dist fused_bias_leakyrelu gather_points get_compiler_version
    get_compiling_cuda_version grouping_operation knn masked_conv2d min_area_polygons modulated_deform_conv2d nms nms3d
    nms3d_normal nms_bev nms_match nms_normal_bev nms_quadri nms_rotated pixel_group point_sample points_in_boxes_all
    points_in_boxes_cpu points_in_boxes_part points_in_polygons prroi_pool rel_roi_point_to_rel_img_point
    riroi_align_rotated roi_align roi_align_rotated roi_pool rotated_feature_align scatter_nd sigmoid_focal_loss
    soft_nms softmax_focal_loss three_interpolate three_nn tin_shift upfirdn2d upsample2d voxelization
    """,
    others={
        "bbox_overlaps": "fastcv.ops.box_iou",
        "furthest_point_sample": "fastcv.ops.farthest_point_sample",
        "grouping_operation": "fastcv.ops.group_points",
        "QueryAndGroup": "fastcv.ops.ball_query",
        "Voxelization": "fastcv.ops.voxelize",
        "voxelization": "fastcv.ops.voxelize",
        "DynamicScatter": "fastcv.ops.voxel_scatter",
        "dynamic_scatter": "fastcv.ops.voxel_scatter",
        "SigmoidFocalLoss": "fastcv.ops.sigmoid_focal_loss",
        "modulated_deform_conv2d": "fastcv.ops.deform_conv2d",
        "ModulatedDeformConv2d": "fastcv.nn.DeformConv2d",
        "get_compiler_version": "fastcv.ops.build_info",
        "get_compiling_cuda_version": "fastcv.ops.build_info",
    },
    notes={
        "nms": "arguments and result are torchvision's: indices alone",
        "batched_nms": "arguments and result are torchvision's: indices alone",
        "QueryAndGroup": "with `group_points`, channels last",
        "Conv2d": "torch's arguments; its kernels are for inference, training is torch's",
        "conv2d": "torch's arguments; for inference, it has no gradient",
        "conv_transpose2d": "torch's arguments",
        "deform_conv2d": "torchvision's arguments",
        "DeformConv2d": "torchvision's arguments: a bias by default; the groups of offsets follow from their number",
        "ModulatedDeformConv2d": "torchvision's arguments; the groups of offsets follow from their number",
        **for_all("`aligned=True` must be said, in mmcv it is the default; averages alone", "roi_align RoIAlign"),
        **for_all("one-hot targets; `alpha` before `gamma`, best by name", "sigmoid_focal_loss SigmoidFocalLoss"),
        "soft_nms": "result is indices and scores; no method `naive`, which is `nms`",
        "box_iou_rotated": "all pairs; " + MMCV_ANGLES,
        "nms_rotated": "indices alone, with classes `batched_nms_rotated`; " + MMCV_ANGLES,
        "knn": "arguments are query, points, k; results are squared distances and indices (B, Q, k)",
        "ball_query": "arguments are query, points, radius, k; `repeat_first=True` as in mmcv",
        "three_interpolate": "features (B, M, C), where mmcv has (B, C, M)",
        "grouping_operation": "features (B, N, C), where mmcv has (B, C, N)",
        "roi_align_rotated": MMCV_ROTATED,
        "RoIAlignRotated": MMCV_ROTATED,
    },
    reasons={
        **for_all(TORCH, "Linear SyncBatchNorm filter2d GroupAll scatter_nd"),
        **for_all("no user found in public detectors of today", "PSAMask TINShift tin_shift CrissCrossAttention"),
        **for_all("text detection, outside the scope", "BezierAlign bezier_align contour_expand pixel_group"),
        **for_all(
            "image synthesis, outside the scope", "bias_act filtered_lrelu upfirdn2d upsample2d FusedBiasLeakyReLU"
        ),
        "fused_bias_leakyrelu": "image synthesis, outside the scope",
    },
)

DETECTRON2 = Peer(
    "detectron2.layers",
    "0.6",
    ("fastcv.ops", "fastcv.nn"),
    """
    ASPP BatchNorm2d CNNBlockBase Conv2d ConvTranspose2d CycleBatchNormList DeformConv DepthwiseSeparableConv2d
    FrozenBatchNorm2d Linear ModulatedDeformConv NaiveSyncBatchNorm ROIAlign ROIAlignRotated ShapeSpec batched_nms
    batched_nms_rotated cat ciou_loss cross_entropy diou_loss empty_input_loss_func_wrapper get_norm interpolate
    move_device_like nms nms_rotated nonzero_tuple paste_masks_in_image roi_align roi_align_rotated shapes_to_tensor
    """,
    others={
        "ROIAlign": "fastcv.nn.RoIAlign",
        "ROIAlignRotated": "fastcv.nn.RoIAlignRotated",
        "DeformConv": "fastcv.nn.DeformConv2d",
        "ModulatedDeformConv": "fastcv.nn.DeformConv2d",
        "ciou_loss": "fastcv.ops.complete_box_iou_loss",
        "diou_loss": "fastcv.ops.distance_box_iou_loss",
        "paste_masks_in_image": "fastcv.ops.paste_masks",
    },
    notes={
        "ROIAlign": "`aligned=True` must be said, in detectron2 it is the default",
        **for_all("torchvision's arguments: a bias by default, no norm", "DeformConv ModulatedDeformConv"),
        "paste_masks_in_image": "pasted at whole pixels, as torchvision does it",
        "ciou_loss": "`fastcv.ops.ciou_loss` is the module of that name in torchvision",
        "roi_align_rotated": "negative sides give zeros, where detectron2 raises an error",
        "ROIAlignRotated": "negative sides give zeros, where detectron2 raises an error",
    },
    reasons=for_all(
        TORCH,
        "ASPP BatchNorm2d CNNBlockBase CycleBatchNormList DepthwiseSeparableConv2d Linear NaiveSyncBatchNorm "
        "ShapeSpec cat cross_entropy empty_input_loss_func_wrapper get_norm interpolate move_device_like nonzero_tuple "
        "shapes_to_tensor",
    ),
)

PYTORCH3D = Peer(
    "pytorch3d.ops",
    "0.7",
    ("fastcv.compat.pytorch3d", "fastcv.ops", "fastcv.nn"),
    """
    GraphConv SubdivideMeshes add_pointclouds_to_volumes add_points_features_to_volume_densities_features ball_query
    box3d_overlap convert_pointclouds_to_tensor corresponding_cameras_alignment corresponding_points_alignment
    cot_laplacian cubify efficient_pnp estimate_pointcloud_local_coord_frames estimate_pointcloud_normals eyes
    get_point_covariances interpolate_face_attributes is_pointclouds iterative_closest_point knn_gather knn_points
    laplacian norm_laplacian packed_to_padded padded_to_packed sample_farthest_points sample_points_from_meshes
    taubin_smoothing vert_align wmean
    """,
    reasons={
        **for_all(
            "cameras and geometry, outside the scope",
            "corresponding_cameras_alignment corresponding_points_alignment efficient_pnp iterative_closest_point "
            "estimate_pointcloud_local_coord_frames estimate_pointcloud_normals get_point_covariances",
        ),
        **for_all(
            "meshes and volumes, outside the scope",
            "SubdivideMeshes add_pointclouds_to_volumes add_points_features_to_volume_densities_features cot_laplacian "
            "interpolate_face_attributes laplacian norm_laplacian taubin_smoothing",
        ),
        **for_all(TORCH, "eyes wmean convert_pointclouds_to_tensor is_pointclouds"),
    },
)

PEERS = (TORCHVISION, SPCONV, MMCV, DETECTRON2, PYTORCH3D)


def find(dotted: str) -> bool:
    """Whether a dotted name of ours exists, as a function or a class: a path of that name does not count."""
    module, name = dotted.rsplit(".", 1)
    return callable(getattr(import_module(module), name, None))


def row(peer: Peer, name: str) -> tuple[str, str, str]:
    """Return a name, what it is here, and a remark."""
    for home in peer.homes:
        if find(f"{home}.{name}"):
            return name, f"`{home}.{name}`", peer.notes.get(name, "")
    other = peer.others.get(name)
    if other is not None and find(other):
        return name, f"`{other}`", "; ".join(filter(None, ("another name", peer.notes.get(name))))
    return name, "–", peer.reasons.get(name, LATER)


def page() -> str:
    """Return the whole text of the page."""
    parts = [
        "<!-- Written by `python docs/dropin.py`; do not edit. -->\n\n# Names of other packages\n\nA name is here "
        "under the same name, under another, or not: then the remark says why.\n"
    ]
    summary = ["| package | names | the same name | another | not here |", "|---|---|---|---|---|"]
    tables = []
    for peer in PEERS:
        rows = [row(peer, name) for name in sorted(peer.names.split(), key=str.lower)]
        there = [r for r in rows if r[1] != "–"]
        other = [r for r in there if r[2].startswith("another name")]
        counts = len(rows), len(there) - len(other), len(other), len(rows) - len(there)
        summary.append(f"| {peer.title} {peer.version} | " + " | ".join(map(str, counts)) + " |")
        lines = [f"| `{name}` | {here} | {remark} |" for name, here, remark in rows]
        tables.append(
            "\n".join([f"## {peer.title} {peer.version}\n", "| name | here | remark |", "|---|---|---|", *lines])
        )
    return "\n".join([*parts, *summary, "", "\n\n".join(tables), ""])


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text() == page() else "docs/drop-in.md is not up to date")
    PAGE.write_text(page())
