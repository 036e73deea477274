r"""The coarse codec: a streaming, causal video autoencoder with a linear encoder, which computes on the latent grid.

    4 frames -> blocks of 16x16 pixels of 4 frames -> one linear map -> latent
    latent -> blocks -> x2 -> blocks -> x2 -> block -> patches of 4x4 pixels: a backdrop, a front, its opacity
                         \-> for each of the 4 frames: displacements of the front, changes of light

The encoder projects every block of pixels onto principal components of such blocks (`train/principal.py`). It has no
state and no neighbours, and being linear, it mixes a subject with its background as pixels do: a diffusion network
learns such latents several times faster than those of a convolutional encoder (docs/experiments.md, 2026-12-01).

A latent frame is decoded as layers (Wang and Adelson 1994): one backdrop and one front that moves before it,

    frame_k = (1 - a_k) backdrop + a_k front_k + light_k
    (front_k, a_k) = (front, opacity) moved by displacement_k

so that a moving object is drawn once instead of four times, and the backdrop cannot flicker within a latent frame.
Each block of the decoder also reads its input at the previous latent frame; before the first latent frame, that is the
first itself, so that a still video is decoded alike from its start. No convolution runs at full resolution.

If a grid is configured, every cell has a learned vector and learned pixel patches that the latent mixes
(`LocalBasis`), so that fixed camera views are stored in the weights. Such a codec works only on pictures of that grid.
"""

from collections.abc import Iterable
from typing import cast

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from longtake.core.configs import CoarseCodecConfig
from longtake.core.errors import ShapeError
from longtake.core.shapes import Latent, Stride, Video
from longtake.nets.light_codec import CodecState, check_latent, check_video

Maps = Float[Tensor, "bf c h w"]  # feature maps of all latent frames of all videos
Origin = tuple[int, int]  # row and column of the grid at which a crop begins

LEAVE_PATCH = 4  # pixels along the side of the patches at the output
DISPLACEMENT_PX = 8  # pixels per unit of the motion head's output


class ConvBlock(nn.Module):
    """ConvNeXt block (Liu et al. 2022) with a second depthwise convolution, over the previous latent frame."""

    def __init__(self, width: int, expansion: int, kernel: int) -> None:
        super().__init__()
        self.now = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.before = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.project = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Maps, previous: Maps) -> Maps:
        y = (self.now(x) + self.before(previous)).permute(0, 2, 3, 1)
        y = self.project(functional.gelu(self.expand(self.norm(y)), approximate="tanh"))
        return x + y.permute(0, 3, 1, 2)


class CellEmbedding(nn.Module):
    """Position embedding that adds a learned vector to each cell of a grid."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(width, *grid))

    def forward(self, x: Maps, origin: Origin) -> Maps:
        return x + self.table[:, origin[0] : origin[0] + x.shape[2], origin[1] : origin[1] + x.shape[3]]


class LocalBasis(nn.Module):
    """Pixel patches for the cells of a grid, each a linear combination of learned patches specific to its cell."""

    def __init__(self, width: int, size: int, grid: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.coefficients = nn.Conv2d(width, size, 1)
        self.basis = nn.Parameter(torch.empty(*grid, size, 3 * stride**2))
        if not self.basis.is_meta:  # drawing on the meta device imports torch's compiler: a second
            nn.init.normal_(self.basis, std=0.02 / size**0.5)

    def forward(self, x: Maps, origin: Origin) -> Float[Tensor, "bf 3 height width"]:
        rows, columns = x.shape[2:]
        basis = self.basis[origin[0] : origin[0] + rows, origin[1] : origin[1] + columns]
        patches = einsum(self.coefficients(x), basis, "n j h w, h w j p -> n p h w")
        return functional.pixel_shuffle(patches, self.stride)


class CoarseCodec(nn.Module):
    """Coarse codec between videos and normalised latents, piece by piece or at once; interface as `LightCodec`."""

    def __init__(self, config: CoarseCodecConfig) -> None:
        super().__init__()
        self.config = config
        time, space = config.stride.time, config.stride.space
        self.cells = space // LEAVE_PATCH  # patches along the side of a latent cell
        self.encoder = nn.Conv2d(3 * time * space**2, config.latent_channels, 1)
        self.from_latent = nn.Conv2d(config.latent_channels, config.width, 1)
        self.decoder = nn.ModuleList(ConvBlock(config.width, 4, 7) for _ in range(config.decoder_blocks))
        self.grow = nn.Conv2d(config.width, 4 * config.middle_width, 1)
        self.middle_decoder = nn.ModuleList(ConvBlock(config.middle_width, 2, 5) for _ in range(config.middle_blocks))
        self.grow_again = nn.Conv2d(config.middle_width, 4 * config.leave_width, 1)
        self.fine_decoder = ConvBlock(config.leave_width, 2, 5)
        self.head = nn.Conv2d(config.leave_width, (3 + 3 + 1) * LEAVE_PATCH**2, 1)  # backdrop, front, opacity
        self.motion_head = nn.Conv2d(config.middle_width, (2 + 3) * time, 1)  # displacements, light
        nn.init.zeros_(self.motion_head.weight)
        nn.init.zeros_(cast("Tensor", self.motion_head.bias))

        self.decoder_cells: CellEmbedding | None = None
        self.fine_cells: CellEmbedding | None = None
        self.by_heart: LocalBasis | None = None
        if config.grid is not None:
            fine = config.grid[0] * self.cells, config.grid[1] * self.cells
            self.decoder_cells = CellEmbedding(config.width, config.grid)
            self.fine_cells = CellEmbedding(config.leave_width, fine)
            self.by_heart = LocalBasis(config.width, config.local_basis, config.grid, space)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights. Inputs are converted to it; outputs have the precision of the inputs."""
        return self.encoder.weight.dtype

    def encode(self, video: Video, state: CodecState, origin: Origin | None = None) -> tuple[Latent, CodecState]:
        """Encode the next piece of a video; see `LightCodec.encode`. Its first frame is encoded as four of it.

        Args:
            video: pixels in [-1, 1].
            state: `CodecState()` at the start, then the state that the last call returned.
            origin: grid cell at which a crop begins; None: the video covers the grid.

        Raises:
            ShapeError: the number of frames does not fit, or the pictures are not those of the grid.
        """
        stride = self.config.stride
        check_video(video, stride, state)
        self._checked_origin(video.shape[3] // stride.space, video.shape[4] // stride.space, origin)
        if not state.started:
            video = torch.cat((video[:, :, :1].expand(-1, -1, stride.time - 1, -1, -1), video), 2)
        latent = self.encoder(_channels_last(blocks_of(video, stride).to(self.dtype)))
        latent = rearrange(latent, "(b f) c h w -> b c f h w", b=len(video)).contiguous()
        return latent.to(video.dtype), CodecState(started=True)

    def decode(self, latent: Latent, state: CodecState, origin: Origin | None = None) -> tuple[Video, CodecState]:
        """Decode the next latent frames to pixels in [-1, 1]: 1 frame for the first of a video, 4 for each later one.

        Raises:
            ShapeError: the latents have the wrong number of channels, or are not those of the grid.
        """
        check_latent(latent, self.config.latent_channels)
        at = self._checked_origin(latent.shape[3], latent.shape[4], origin)
        memory = BlockMemory(len(latent), state)
        x = self.from_latent(_channels_last(rearrange(latent.to(self.dtype), "b c f h w -> (b f) c h w")))
        if self.decoder_cells is not None:
            x = self.decoder_cells(x, at)
        x = memory.through(self.decoder, x)
        fine = _channels_last(functional.pixel_shuffle(self.grow(x), 2))
        middle = memory.through(self.middle_decoder, fine)
        fine = _channels_last(functional.pixel_shuffle(self.grow_again(middle), 2))
        if self.fine_cells is not None:
            fine = self.fine_cells(fine, (at[0] * self.cells, at[1] * self.cells))
        layers = functional.pixel_shuffle(self.head(memory.through([self.fine_decoder], fine)), LEAVE_PATCH)
        backdrop, front, opacity = layers.split((3, 3, 1), 1)
        if self.by_heart is not None:
            backdrop = backdrop + self.by_heart(x, at)
        displacement, light = self._motion(middle)
        video = moved_layers(backdrop, front, opacity, displacement) + light
        video = rearrange(video, "(b f) c k h w -> b c (f k) h w", b=len(latent))
        if not state.started:
            video = video[:, :, self.config.stride.time - 1 :]
        return video.to(latent.dtype), memory.state()

    def _motion(
        self, middle: Maps
    ) -> tuple[Float[Tensor, "bf 2 k height width"], Float[Tensor, "bf 3 k height width"]]:
        """Displacements (x, y) of the front in pixels, and additive light, for each frame of each latent frame."""
        time, scale = self.config.stride.time, self.config.stride.space // 2
        maps = functional.interpolate(self.motion_head(middle), scale_factor=scale, mode="bilinear")
        displacement, light = maps.unflatten(1, (-1, time)).split((2, 3), 1)
        return DISPLACEMENT_PX * displacement, light

    def _checked_origin(self, rows: int, columns: int, origin: Origin | None) -> Origin:
        grid, space = self.config.grid, self.config.stride.space
        if grid is not None and origin is None and (rows, columns) != grid:
            raise ShapeError(
                f"this codec makes pictures of {grid[1] * space}x{grid[0] * space}, "
                f"got {columns * space}x{rows * space}; scale or crop them"
            )
        return origin or (0, 0)


def blocks_of(video: Video, stride: Stride) -> Maps:
    """Pixels of a video in blocks, one per cell of each latent frame; the number of frames is a multiple of the stride.

    The values of a block are in the order of colours, frames, rows, columns.
    """
    return rearrange(
        video,
        "b c (f k) (h p) (w q) -> (b f) (c k p q) h w",
        k=stride.time,
        p=stride.space,
        q=stride.space,
    )


class BlockMemory:
    """State of the blocks during one pass: the inputs kept from the last piece, and those to keep for the next."""

    def __init__(self, batch: int, state: CodecState) -> None:
        self.batch = batch
        self.before = list(state.frames)
        self.after: list[Tensor] = []

    def through(self, blocks: Iterable[nn.Module], x: Maps) -> Maps:
        """Apply blocks, each to its input and to its input one latent frame earlier.

        Before the first latent frame of a video, that is the first itself.
        """
        for block in cast("Iterable[ConvBlock]", blocks):
            frames = x.unflatten(0, (self.batch, -1))
            first = self.before[len(self.after)][:, None] if self.before else frames[:, :1]
            # A copy, since a view would keep all frames of the piece in memory.
            self.after.append(frames[:, -1].clone())
            previous = torch.cat((first, frames[:, :-1]), 1).flatten(0, 1)
            x = block(x, _channels_last(previous))
        return x

    def state(self) -> CodecState:
        """Codec state for the next piece."""
        return CodecState(tuple(self.after), started=True)


def moved_layers(
    backdrop: Float[Tensor, "n c h w"],
    front: Float[Tensor, "n c h w"],
    opacity: Float[Tensor, "n 1 h w"],
    displacement: Float[Tensor, "n 2 k h w"],
) -> Float[Tensor, "n c k h w"]:
    """Composite a front over a backdrop, with its own displacement in each of k frames.

    Args:
        backdrop: colours of the backdrop.
        front: colours of the front.
        opacity: logits of the front's opacity.
        displacement: offsets (x, y) in pixels from each pixel of a frame to the point of the front that it shows.
    """
    frames, height, width = displacement.shape[2:]
    x, y = ((2 * torch.arange(n, device=front.device) + 1) / n - 1 for n in (width, height))
    at_x = x.to(front) + displacement[:, 0] * (2 / width)
    at_y = y.to(front)[:, None] + displacement[:, 1] * (2 / height)
    grid = torch.stack((at_x, at_y), -1).flatten(1, 2)
    layer = torch.cat((front, opacity), 1).contiguous()
    moved = functional.grid_sample(layer, grid, padding_mode="border", align_corners=False)
    moved = moved.unflatten(2, (frames, height))
    covered = torch.sigmoid(moved[:, -1:])
    return torch.lerp(backdrop[:, :, None], moved[:, :-1], covered)


def _channels_last(x: Tensor) -> Tensor:
    """Convert maps to the channels-last layout, in which CPUs convolve and multiply fastest."""
    return x.contiguous(memory_format=torch.channels_last)
