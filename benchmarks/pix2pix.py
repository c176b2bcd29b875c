"""The U-Net generator of pix2pix (Isola et al., CVPR 2017), small: strided convolutions down, transposed ones up."""

import torch
from torch import Tensor, nn


class UNetGenerator(nn.Module):
    """Encoder and decoder of ``depth`` levels, joined by skip connections.

    Shape:
        (N, 3, H, W) → (N, 3, H, W), with H and W multiples of 2**depth.
    """

    def __init__(self, width: int = 16, depth: int = 4) -> None:
        super().__init__()
        widths = [min(width * 2**level, 8 * width) for level in range(depth)]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        before = 3
        for level, channels in enumerate(widths):
            layers: list[nn.Module] = [nn.Conv2d(before, channels, 4, 2, 1)]
            if level:
                layers = [nn.LeakyReLU(0.2), *layers, nn.BatchNorm2d(channels)]
            self.down.append(nn.Sequential(*layers))
            before = channels
        for level in reversed(range(depth)):
            after = widths[level - 1] if level else 3
            inputs = widths[level] * (1 if level == depth - 1 else 2)
            layers = [nn.ReLU(), nn.ConvTranspose2d(inputs, after, 4, 2, 1)]
            self.up.append(nn.Sequential(*layers, nn.BatchNorm2d(after) if level else nn.Tanh()))

    def forward(self, x: Tensor) -> Tensor:
        """Translate an image."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = self.up[0](skips.pop())
        for block in list(self.up)[1:]:
            x = block(torch.cat([x, skips.pop()], 1))
        return x
