r"""The coarse codec: a causal video autoencoder that does most of its work on the latent grid, streaming both ways.

    4 frames -> patches of 4x4 pixels -> one block -> patches of 16x16 -> blocks -> latent
    latent -> blocks -> x2 -> blocks -> x2 -> block -> patches of 4x4 pixels: a backdrop, a front, its opacity
                         \-> for each of the 4 frames: displacements of the front, changes of light

A latent frame is decoded as layers (Wang and Adelson 1994): one backdrop and one front that moves before it,

    frame_k = (1 - a_k) backdrop + a_k front_k + light_k
    (front_k, a_k) = (front, opacity) moved by displacement_k

so that what moves is drawn once, not four times, and what stands still has no way to flicker. A block's memory of the
latent frame before begins with the first latent frame itself, so that a still video is the same from the first one on.
Nothing is convolved at full resolution.

Where a grid is configured, the codec has learned vectors for every cell, and for every cell patches of pixels of its
own that the latent mixes (`LocalBasis`): views that never change are then known by heart. Such a codec makes pictures
of that grid only.
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
from longtake.core.shapes import Latent, Video
from longtake.nets.light_codec import CodecState, check_latent, check_video

Maps = Float[Tensor, "bf c h w"]  # feature maps of all latent frames of all videos
Origin = tuple[int, int]  # row and column of the grid at which a crop begins

ENTER_PATCH = 4  # pixels, first and last
DISPLACEMENT_PX = 8  # of what the motion head calls 1


class ConvBlock(nn.Module):
    """ConvNeXt block (Liu et al. 2022) that also sees the latent frame before, by a second depthwise convolution."""

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
    """Adds a learned vector for each cell of a grid."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(width, *grid))

    def forward(self, x: Maps, origin: Origin) -> Maps:
        return x + self.table[:, origin[0] : origin[0] + x.shape[2], origin[1] : origin[1] + x.shape[3]]


class LocalBasis(nn.Module):
    """A patch of pixels for each cell of the grid, mixed of patches that only this cell has."""

    def __init__(self, width: int, size: int, grid: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.coefficients = nn.Conv2d(width, size, 1)
        self.basis = nn.Parameter(0.02 / size**0.5 * torch.randn(*grid, size, 3 * stride**2))

    def forward(self, x: Maps, origin: Origin) -> Float[Tensor, "bf 3 height width"]:
        rows, columns = x.shape[2:]
        basis = self.basis[origin[0] : origin[0] + rows, origin[1] : origin[1] + columns]
        patches = einsum(self.coefficients(x), basis, "n j h w, h w j p -> n p h w")
        return functional.pixel_shuffle(patches, self.stride)


class CoarseCodec(nn.Module):
    """Videos to normalised latents and back, piece by piece or at once; see `LightCodec` for the interface."""

    def __init__(self, config: CoarseCodecConfig) -> None:
        super().__init__()
        self.config = config
        time, space = config.stride.time, config.stride.space
        self.cells = space // ENTER_PATCH  # patches along the side of a latent cell
        pixels = 3 * time * ENTER_PATCH**2
        self.enter = nn.Conv2d(pixels, config.enter_width, 1)
        self.fine_encoder = ConvBlock(config.enter_width, 2, 5)
        self.down = nn.Conv2d(config.enter_width * self.cells**2, config.width, 1)
        self.encoder = nn.ModuleList(ConvBlock(config.width, 4, 7) for _ in range(config.encoder_blocks))
        self.to_latent = nn.Conv2d(config.width, config.latent_channels, 1)

        self.from_latent = nn.Conv2d(config.latent_channels, config.width, 1)
        self.decoder = nn.ModuleList(ConvBlock(config.width, 4, 7) for _ in range(config.decoder_blocks))
        self.grow = nn.Conv2d(config.width, 4 * config.middle_width, 1)
        self.middle_decoder = nn.ModuleList(ConvBlock(config.middle_width, 2, 5) for _ in range(config.middle_blocks))
        self.grow_again = nn.Conv2d(config.middle_width, 4 * config.leave_width, 1)
        self.fine_decoder = ConvBlock(config.leave_width, 2, 5)
        self.head = nn.Conv2d(config.leave_width, (3 + 3 + 1) * ENTER_PATCH**2, 1)  # backdrop, front, opacity
        self.motion_head = nn.Conv2d(config.middle_width, (2 + 3) * time, 1)  # displacements, light
        nn.init.zeros_(self.motion_head.weight)
        nn.init.zeros_(cast("Tensor", self.motion_head.bias))

        self.encoder_cells: CellEmbedding | None = None
        self.decoder_cells: CellEmbedding | None = None
        self.fine_cells: CellEmbedding | None = None
        self.by_heart: LocalBasis | None = None
        if config.grid is not None:
            fine = config.grid[0] * self.cells, config.grid[1] * self.cells
            self.encoder_cells = CellEmbedding(config.width, config.grid)
            self.decoder_cells = CellEmbedding(config.width, config.grid)
            self.fine_cells = CellEmbedding(config.leave_width, fine)
            self.by_heart = LocalBasis(config.width, config.local_basis, config.grid, space)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights. What comes in is converted; what goes out has the precision of what came in."""
        return self.enter.weight.dtype

    def encode(self, video: Video, state: CodecState, origin: Origin | None = None) -> tuple[Latent, CodecState]:
        """Latents of the next piece of a video; see `LightCodec.encode`.

        Args:
            video: pixels in [-1, 1].
            state: `CodecState()` at the start, then what the last call returned.
            origin: where on the grid a crop begins; None: the video covers the grid.

        Raises:
            ShapeError: the number of frames does not fit, or the pictures are not those of the grid.
        """
        config = self.config
        check_video(video, config.stride, state)
        rows, columns = video.shape[3] // config.stride.space, video.shape[4] // config.stride.space
        at = self._checked_origin(rows, columns, origin)
        if not state.started:
            video = torch.cat((video[:, :, :1].expand(-1, -1, config.stride.time - 1, -1, -1), video), 2)
        patches = rearrange(
            video.to(self.dtype),
            "b c (f k) (h p) (w q) -> (b f) (c k p q) h w",
            k=config.stride.time,
            p=ENTER_PATCH,
            q=ENTER_PATCH,
        )
        memory = BlockMemory(len(video), state)
        x = memory.through([self.fine_encoder], self.enter(_channels_last(patches)))
        x = rearrange(x, "n c (h p) (w q) -> n (c p q) h w", p=self.cells, q=self.cells)
        x = self.down(_channels_last(x))
        if self.encoder_cells is not None:
            x = self.encoder_cells(x, at)
        latent = self.to_latent(memory.through(self.encoder, x))
        latent = rearrange(latent, "(b f) c h w -> b c f h w", b=len(video)).contiguous()
        return latent.to(video.dtype), memory.state()

    def decode(self, latent: Latent, state: CodecState, origin: Origin | None = None) -> tuple[Video, CodecState]:
        """Pixels in [-1, 1] of the next latent frames: 1 for the first of a video, then 4 for each.

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
        layers = functional.pixel_shuffle(self.head(memory.through([self.fine_decoder], fine)), ENTER_PATCH)
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
        """For each frame of a latent frame: displacements (x, y) in pixels, and what is added to all layers."""
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


class BlockMemory:
    """What the blocks of one pass remember of the pieces before, and what they leave for the next one."""

    def __init__(self, batch: int, state: CodecState) -> None:
        self.batch = batch
        self.before = list(state.frames)
        self.after: list[Tensor] = []

    def through(self, blocks: Iterable[nn.Module], x: Maps) -> Maps:
        """Run blocks, each on its input and on the latent frame before it; before the first one is itself."""
        for block in cast("Iterable[ConvBlock]", blocks):
            frames = x.unflatten(0, (self.batch, -1))
            first = self.before[len(self.after)][:, None] if self.before else frames[:, :1]
            self.after.append(frames[:, -1].clone())  # a view would keep the frames before it alive
            previous = torch.cat((first, frames[:, :-1]), 1).flatten(0, 1)
            x = block(x, _channels_last(previous))
        return x

    def state(self) -> CodecState:
        """What the next piece begins with."""
        return CodecState(tuple(self.after), started=True)


def moved_layers(
    backdrop: Float[Tensor, "n c h w"],
    front: Float[Tensor, "n c h w"],
    opacity: Float[Tensor, "n 1 h w"],
    displacement: Float[Tensor, "n 2 k h w"],
) -> Float[Tensor, "n c k h w"]:
    """A front before a backdrop, moved otherwise in each of k frames.

    Args:
        backdrop: colours.
        front: colours.
        opacity: logits of the front's.
        displacement: x and y, in pixels, of where in the front each pixel of a frame lies.
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
    """The same maps laid out as CPUs convolve and multiply them fastest."""
    return x.contiguous(memory_format=torch.channels_last)
