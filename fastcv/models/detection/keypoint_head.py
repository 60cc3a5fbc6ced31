"""The keypoint head: heat maps and positions of keypoints of detected objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcv.models.detection.fixed_size import can_read_values
from fastcv.models.detection.mask_head import init_kaiming
from fastcv.nn._plain import is_watched
from fastcv.nn.convolution import convolve
from fastcv.ops.upsample_bilinear2d import upsample_bilinear2d

__all__ = ["KeypointRCNNHeads", "KeypointRCNNPredictor", "heatmaps_to_keypoints", "keypoint_loss"]

VALUES_AT_ONCE = 1 << 24  # most elements of the enlarged heat maps computed at a time


class KeypointRCNNHeads(nn.Sequential):
    """Convolutions with ReLU over pooled boxes; parameters named as torchvision's.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    layers : sequence of int
        Channels of each 3x3 convolution.
    """

    def __init__(self, in_channels: int, layers: Sequence[int]) -> None:
        steps: list[nn.Module] = []
        for channels in layers:
            conv = nn.Conv2d(in_channels, channels, 3, padding=1)
            init_kaiming(conv)
            steps += [conv, nn.ReLU(inplace=True)]
            in_channels = channels
        super().__init__(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(K, in_channels, H, W) to (K, layers[-1], H, W)."""
        steps = list(self)
        for conv, activation in zip(steps[::2], steps[1::2], strict=True):
            is_fused = type(activation) is nn.ReLU and not is_watched(activation)
            x = convolve(conv, x, relu=True) if is_fused else activation(convolve(conv, x))
        return x


class KeypointRCNNPredictor(nn.Module):
    """One heat map per keypoint at four times the resolution; parameters named as torchvision's.

    Parameters
    ----------
    in_channels, num_keypoints : int
        Channels of the input and of the result.
    """

    def __init__(self, in_channels: int, num_keypoints: int) -> None:
        super().__init__()
        # torch's is faster here: few output channels, a 4x4 kernel, channels_last inputs.
        self.kps_score_lowres = nn.ConvTranspose2d(in_channels, num_keypoints, 4, stride=2, padding=1)
        self.out_channels = num_keypoints
        init_kaiming(self.kps_score_lowres)

    def forward(self, x: Tensor) -> Tensor:
        """(K, in_channels, H, W) to logits (K, num_keypoints, 4 H, 4 W)."""
        return upsample_bilinear2d(self.kps_score_lowres(x), scale_factor=2.0)


def keypoints_to_heatmap(keypoints: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the index of each keypoint in the heat map of its box, row * side + column, and whether it is valid.

    Parameters
    ----------
    keypoints : Tensor (K, N, 3)
        x, y and visibility.
    boxes : Tensor (K, 4)
        The boxes. A keypoint on the right or lower edge is inside.
    side : int
        Side length of the heat map.

    Returns
    -------
    index : Tensor (K, N)
        0 for keypoints that are not valid.
    valid : Tensor (K, N)
        Whether a keypoint is visible and inside its box.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    points = keypoints[..., :2]
    place = ((points - low) * (side / (high - low))).floor().long()
    place = torch.where(points == high, side - 1, place)
    valid = ((place >= 0) & (place < side)).all(-1) & (keypoints[..., 2] > 0)
    return (place[..., 1] * side + place[..., 0]) * valid, valid


def keypoint_loss(
    logits: Tensor, boxes: Sequence[Tensor], keypoints: Sequence[Tensor], matches: Sequence[Tensor]
) -> Tensor:
    """Cross-entropy of the visible keypoints over the pixels of their heat maps.

    Parameters
    ----------
    logits : Tensor (K, N, S, S)
        Predictions for the positive proposals of all images.
    boxes : list of Tensor (K_i, 4)
        Positive proposals of each image.
    keypoints : list of Tensor (G_i, N, 3)
        Keypoints of the objects of each image.
    matches : list of Tensor (K_i,)
        Index of the object that each proposal is matched to.

    References
    ----------
    He, Gkioxari, Dollar, Girshick: Mask R-CNN (2017), section 5.
    """
    side = logits.shape[-1]
    if logits.shape[-2] != side:
        raise ValueError(f"logits must be square maps, got {tuple(logits.shape)}")
    pairs = [
        keypoints_to_heatmap(points[index], rois, side)
        for rois, points, index in zip(boxes, keypoints, matches, strict=True)
    ]
    place, valid = (torch.cat([part.flatten() for part in parts]) for parts in zip(*pairs, strict=True))
    chosen = torch.where(valid)[0]
    if not len(chosen):  # the mean of no elements is NaN
        return logits.sum() * 0
    return F.cross_entropy(logits.flatten(0, 1).flatten(1)[chosen], place[chosen])


def heatmaps_to_keypoints(maps: Tensor, rois: Tensor, max_size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """Return the position of the maximum of each heat map after bicubic resizing to the size of its box.

    Equal to torchvision's function up to rounding, but without its loop over boxes: bicubic interpolation is separable,
    so the resized map is a product of three matrices.

    Parameters
    ----------
    maps : Tensor (K, N, S, T)
        Heat maps of N keypoints.
    rois : Tensor (K, 4)
        Boxes x1, y1, x2, y2.
    max_size : (height, width), optional
        Maximum size of a box. By default it is read from the boxes, which synchronises on a GPU.

    Returns
    -------
    keypoints : Tensor (K, N, 3)
        x and y in the coordinates of the boxes, and 1.
    scores : Tensor (K, N)
        The maxima.

    References
    ----------
    Heckbert: What are the coordinates of a pixel? (1990): pixel d has the coordinate d + 0.5. Keys: Cubic convolution
    interpolation (1981), with a = -0.75.
    """
    count, points = maps.shape[:2]
    maps, rois = maps.float(), rois.float()
    sides = (rois[:, 2:] - rois[:, :2]).clamp(min=1)  # width, height
    pixels = sides.ceil()
    if not count:
        return maps.new_zeros(0, points, 3), maps.new_zeros(0, points)
    if max_size is None or can_read_values(maps):
        sizes = [(int(h), int(w)) for w, h in pixels.tolist()]
    else:
        sizes = [max_size] * count
    keypoints, scores = [], []
    first = 0
    while first < count:
        # consecutive boxes of one size, as many as fit; where sizes are read from the boxes, mostly one
        height, width = sizes[first]
        most = max(1, VALUES_AT_ONCE // (points * height * width))
        last = first + 1
        while last < count and last - first < most and sizes[last] == sizes[first]:
            last += 1
        part = slice(first, last)
        vertical = _bicubic_matrix(pixels[part, 1], height, maps.shape[2])
        horizontal = _bicubic_matrix(pixels[part, 0], width, maps.shape[3])
        enlarged = vertical[:, None] @ maps[part] @ horizontal[:, None].transpose(2, 3)
        score, place = enlarged.flatten(2).max(-1)
        # rows and columns beyond a box's own repeat its last
        x = (place % width).minimum(pixels[part, :1].long() - 1)
        y = (place // width).minimum(pixels[part, 1:].long() - 1)
        unit = sides[part] / pixels[part]
        spot = [(at + 0.5) * unit[:, i, None] + rois[part, i, None] for i, at in enumerate((x, y))]
        keypoints.append(torch.stack((*spot, torch.ones_like(score)), dim=-1))
        scores.append(score)
        first = last
    return torch.cat(keypoints), torch.cat(scores)


def _bicubic_matrix(sizes: Tensor, capacity: int, length: int) -> Tensor:
    """Return the matrices (K, capacity, length) that resize a vector of ``length`` to the lengths ``sizes`` (K,).

    Rows beyond a size repeat the last row of that size.
    """
    row = torch.arange(capacity, device=sizes.device, dtype=sizes.dtype).minimum(sizes[:, None] - 1)
    source = (row + 0.5) * (length / sizes[:, None]) - 0.5
    base = source.floor()
    t = source - base
    a = -0.75
    far, near = t + 1, 1 - t
    weights = torch.stack(
        (
            ((a * far - 5 * a) * far + 8 * a) * far - 4 * a,
            ((a + 2) * t - (a + 3)) * t * t + 1,
            ((a + 2) * near - (a + 3)) * near * near + 1,
            ((a * (near + 1) - 5 * a) * (near + 1) + 8 * a) * (near + 1) - 4 * a,
        ),
        dim=-1,
    )
    taps = base.long()[..., None] + torch.arange(-1, 3, device=sizes.device)
    matrix = weights.new_zeros(*row.shape, length)
    return matrix.scatter_add_(-1, taps.clamp(0, length - 1), weights)
