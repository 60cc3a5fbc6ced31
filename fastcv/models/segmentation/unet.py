"""U-Net: an encoder, a decoder, and a skip connection at each resolution."""

from __future__ import annotations

from torch import Tensor, nn

from fastcv.nn import Conv2d, ConvTranspose2d, MaxPool2d
from fastcv.ops._arena import arena, joined_channels

__all__ = ["UNet"]


class UNet(nn.Module):
    """Classify each pixel of an image (U-Net).

    Each level of the encoder halves the resolution by max pooling and doubles the channels. Each level of the decoder
    reverses both by a 2 x 2 transposed convolution of stride 2, and concatenates the encoder's features of that
    resolution.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    num_classes : int
        Channels of the output: one logit per class.
    base_channels : int
        Channels at full resolution; 64 in the paper.
    depth : int
        Number of times the resolution is halved; 4 in the paper.

    Notes
    -----
    Unlike in the paper, convolutions are padded, so that the output has the size of the image, and are followed by
    batch normalisation.

    References
    ----------
    Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation (2015), figure 1.

    Examples
    --------
    >>> UNet(3, 2, base_channels=16, depth=3)(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 2, 64, 96])
    """

    def __init__(self, in_channels: int, num_classes: int, base_channels: int = 64, depth: int = 4) -> None:
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("num_classes", num_classes, 1),
            ("base_channels", base_channels, 1),
            ("depth", depth, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        widths = [base_channels << level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            _double_convolution(before, width) for before, width in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = MaxPool2d(2)
        self.upsample = nn.ModuleList(ConvTranspose2d(2 * width, width, 2, stride=2) for width in widths[:-1])
        self.decoder = nn.ModuleList(_double_convolution(2 * width, width) for width in widths[:-1])
        self.head = nn.Conv2d(base_channels, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (N, num_classes, H, W) of ``image`` (N, in_channels, H, W).

        H and W must be multiples of ``2 ** depth``.
        """
        factor = 1 << len(self.decoder)
        if image.dim() != 4 or image.shape[2] % factor or image.shape[3] % factor:
            raise ValueError(
                f"image must have shape (N, C, H, W), H and W multiples of {factor}, got {tuple(image.shape)}"
            )
        is_optimized = isinstance(self.head, Conv2d) and self.head.is_optimized
        with arena(is_optimized):
            return self._logits(image, is_optimized)

    def _logits(self, image: Tensor, is_optimized: bool) -> Tensor:
        skipped: list[Tensor] = []
        features = self.encoder[0](image)
        for block in self.encoder[1:]:
            skipped.append(features)
            features = block(self.pool(features))
        for upsample, block in zip(reversed(self.upsample), reversed(self.decoder), strict=True):
            features = block(joined_channels([skipped.pop(), upsample(features)], is_optimized))
        logits: Tensor = self.head(features)
        return logits


def _double_convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two blocks of 3 x 3 convolution, batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
