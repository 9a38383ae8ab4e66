"""The models: plain torch modules that say what their loss is. Replace or add your own; configs/model/ names them.

Each takes `shape`, the (channels, height, width) of an image, and `classes`, their number, besides its own settings, and has

    loss(x, y)   x (B, C, H, W) float32 in [0, 1], y (B,) int64 → the mean loss of the batch (scalar), and what it predicts (B, …)
    score        the name of the metric that `correct` counts, or None

Draws are keyed by the sample (`verbatim.keyed`), so that they do not depend on the batch, shard or rank that it is in.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from verbatim import keyed
from verbatim.errors import VerbatimError

Shape = tuple[int, int, int]


class Classifier(nn.Module):
    """A model whose forward gives logits (B, classes): cross-entropy, and accuracy by the largest logit."""

    score: str | None = "accuracy"

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(x)
        return functional.cross_entropy(logits, y), logits


class Dropout(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return keyed.dropout(x, self.rate) if self.training else x


class Mlp(Classifier):
    def __init__(self, shape: Shape, classes: int, hidden: list[int], dropout: float) -> None:
        super().__init__()
        c, h, w = shape
        widths = [c * h * w, *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), *([Dropout(dropout)] if dropout else [])]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Cnn(Classifier):
    """3×3 convolutions, each followed by a 2×2 maximum and ReLU, then one linear layer on the mean over space.

    The maximum comes first: the values are the same and ReLU has a quarter of them to look at. Channels lie innermost in memory
    (channels_last): convolutions and maxima take 0.75 of the time on a CPU.
    """

    def __init__(
        self, shape: Shape, classes: int, channels: list[int], dropout: float, batch_norm: bool = False
    ) -> None:
        super().__init__()
        smallest = min(shape[1:])
        if 2 ** len(channels) > smallest:
            raise VerbatimError(
                "model.channels", expected=f"at most {smallest.bit_length() - 1} layers for images of {shape[1]}x{shape[2]}",
                found=f"{len(channels)}, each of which halves the image", then="shorten model.channels",
            )  # fmt: skip
        widths = [shape[0], *channels]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(widths):
            norm = [nn.BatchNorm2d(n_out)] if batch_norm else []
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), *norm, nn.MaxPool2d(2), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(widths[-1], classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x.contiguous(memory_format=torch.channels_last))  # (B, C', H', W')
        return self.head(self.dropout(x.mean((2, 3))))  # type: ignore[no-any-return]


class Vit(Classifier):
    """A small vision transformer (https://arxiv.org/abs/2010.11929): patches, learned positions, pre-norm blocks, mean over tokens."""

    def __init__(
        self, shape: Shape, classes: int, patch: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        c, h, w = shape
        if h % patch or w % patch:
            raise VerbatimError("model.patch", expected=f"a divisor of {h} and {w}, the image's sides", found=patch)
        if width % heads:
            raise VerbatimError("model.heads", expected=f"a divisor of model.width, {width}", found=heads)
        self.embed = nn.Conv2d(c, width, patch, stride=patch)
        self.position = nn.Parameter(torch.randn(1, (h // patch) * (w // patch), width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        t = self.embed(x).flatten(2).transpose(1, 2) + self.position  # (B, T, width)
        for block in self.blocks:
            t = block(t)
        return self.head(self.norm(t).mean(1))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), Dropout(dropout))

    def forward(self, t: Tensor) -> Tensor:
        b, n, d = t.shape
        q, k, v = (
            self.qkv(self.norm1(t)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        )  # (B, heads, T, d)
        if self.training and self.rate:
            weights = keyed.dropout(
                (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1), self.rate
            )  # (B, heads, T, T)
            mixed = weights @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(b, n, d)
        t = t + self.out(mixed)
        return t + self.mlp(self.norm2(t))  # type: ignore[no-any-return]


class Vae(nn.Module):
    """A variational autoencoder with a Bernoulli decoder (https://arxiv.org/abs/1312.6114); its loss is the negative ELBO per image.

    Predictions are the reconstruction probabilities (B, x_dim) of a latent drawn from the posterior, so evaluation is seeded too.
    """

    score: str | None = None

    def __init__(self, shape: Shape, classes: int, x_dim: int | None, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        c, h, w = shape
        size = c * h * w
        if x_dim not in (None, size):
            raise VerbatimError(
                "model.x_dim",
                expected=f"{size}, the values of one {c}x{h}x{w} image",
                found=x_dim,
                then=f"add model.x_dim={size}",
            )
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(size, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()
        )
        self.mean, self.log_variance = nn.Linear(hidden_dim, latent_dim), nn.Linear(hidden_dim, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, size),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, C, H, W) → decoder logits (B, x_dim), posterior mean and log-variance (B, latent_dim)."""
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + keyed.normal_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(z), mean, log_variance

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits, mean, log_variance = self(x)
        # Every term is a sum over values and a mean over the images really in this batch, full or not.
        reconstruction = functional.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return (reconstruction + divergence).mean(), logits.sigmoid()
