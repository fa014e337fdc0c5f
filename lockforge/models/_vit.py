"""Small vision transformers (Dosovitskiy et al. 2021, arXiv:2010.11929; sizes of DeiT, Touvron et
al. 2021, arXiv:2012.12877, table 1).

Parameter names are those of DeiT's published files (`cls_token`, `pos_embed`,
`blocks.0.attn.qkv.weight`, ...). Attention is made of linear layers, so that whatever looks for
linear layers finds its projections.
Differs: no dropout and no stochastic depth. Patches are 16 pixels wide, or 4 for small images.

Shapes: n images, c channels, h x w pixels, t tokens (the class token first), d features, k
    classes.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SIZES = {"vit_tiny": (192, 3), "vit_small": (384, 6)}  # width, attention heads
DEPTH = 12


class Attention(nn.Module):
    """Every token looks at every token: softmax(q k^T / sqrt(d / heads)) v (Vaswani et al. 2017,
    arXiv:1706.03762, equation 1).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """All heads at once."""
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(seen.transpose(1, 2).reshape(n, t, d))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers, four times wider between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """Each token by itself."""
        return self.fc2(functional.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention, then the two layers, each behind a layer norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """One block."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class PatchEmbedding(nn.Module):
    """Every patch as one token."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n t d"]:
        """Row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Twelve blocks over patches; the class token is the features: 192 (tiny, 5.7 million weights)
    or 384 (small, 22 million).
    """

    def __init__(self, name: str, classes: int, shape: tuple[int, int, int], *, patch: int) -> None:
        super().__init__()
        width, heads = SIZES[name]
        self.grid = (shape[1] // patch, shape[2] // patch)
        self.patch_embed = PatchEmbedding(shape[0], width, patch)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + 1, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def tokens(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n t d"]:
        """All tokens after the last norm."""
        patches = self.patch_embed(images)
        x = (
            torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1)
            + self.pos_embed
        )
        return self.norm(self.blocks(x))  # type: ignore[no-any-return]

    def maps(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """The patches' tokens where their patches lie. The features are not their mean: they are
        the class token.
        """
        patches = self.tokens(images)[:, 1:].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Class scores."""
        return self.head(self.tokens(images)[:, 0])  # type: ignore[no-any-return]
