"""Ideas for a better mask without text that are not part of the library, one command each.

A network of the preset `cpu` (128 pixels, eight epochs) is trained with one thing changed, and its scores on
`valid` after each epoch are printed: against `control`, which changes nothing, or for ideas about reports and
zones against `control-guided`. `test` is never looked at. What came of each stands in results/ladder.md.

    python benchmarks/ideas.py lovasz --data QATA --out runs/lovasz
    python benchmarks/ideas.py frozen --data QATA --out runs/frozen --start runs/control
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from kornia.enhance import equalize_clahe
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import warp_affine
from kornia.losses import lovasz_hinge_loss
from monai.losses.boundary_loss import BoundaryLoss
from monai.losses.dice import DiceCELoss, DiceFocalLoss
from monai.losses.tversky import TverskyLoss
from monai.networks.nets.basic_unet import UpCat
from safetensors.torch import load_file
from torch import Tensor, nn

from sgseg.anatomy import ZONES
from sgseg.models.baselines.base import CONVOLUTIONS, spare_padding
from sgseg.models.baselines.pretrained_encoder import UNetDecoder
from sgseg.models.compact.efficientnet import EfficientNetLite
from sgseg.models.compact.guided_decoder import SUBPIXEL, ReportGuidance
from sgseg.models.interface import Encoded
from sgseg.reports import NO_REPORT
from sgseg.reproduce.runs import RUNS
from sgseg.training import augmentation, run
from sgseg.training import config as configs
from sgseg.training.cache import Arrays
from sgseg.training.config import Augmentation, Config
from sgseg.training.losses import mask_loss
from sgseg.training.module import StageModule, repeat_features, zone_index
from sgseg.training.networks import WEIGHTS, AnyNetwork, load

Sets = Sequence[tuple[Arrays, int]]


class OtherLoss(StageModule):
    """Another loss of masks: logits and masks (B, 1, H, W) -> scalar."""

    loss: Callable[[Tensor, Tensor], Tensor]

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        return {"mask_loss": self.loss(logits, masks)}


def minimising(loss: Callable[[Tensor, Tensor], Tensor]) -> type[StageModule]:
    """A stage with this loss of masks."""
    return type("OtherLoss", (OtherLoss,), {"loss": staticmethod(loss)})


def tversky(false_positives: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Tversky and cross-entropy; false negatives weigh what false positives leave of 1."""
    region = TverskyLoss(sigmoid=True, batch=True, alpha=false_positives, beta=1 - false_positives)
    return lambda logits, masks: region(logits, masks) + F.binary_cross_entropy_with_logits(logits, masks)


def lovasz(logits: Tensor, masks: Tensor) -> Tensor:
    """Lovász hinge (Berman et al., CVPR 2018) of the whole batch as one image, and cross-entropy."""
    as_one = (x.reshape(1, 1, -1, x.shape[-1]) for x in (logits, masks))
    hinge: Tensor = lovasz_hinge_loss(next(as_one), next(as_one)[:, 0])
    return 0.5 * hinge + F.binary_cross_entropy_with_logits(logits, masks)


_boundary = BoundaryLoss(sigmoid=True)


def boundary(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice and cross-entropy, and the boundary loss (Kervadec et al., MIDL 2019) in pixels."""
    return mask_loss(logits, masks) + _boundary(logits, masks) / 32


def soft_edges(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice and cross-entropy against masks with blurred edges, for annotators place them a pixel apart."""
    return mask_loss(logits, gaussian_blur2d(masks, (7, 7), (1.5, 1.5)))


class Augmented(StageModule):
    """Images and masks together, (B, 2, H, W), changed once more after the recipe's own augmentation."""

    change: Callable[[Tensor], Tensor]

    def __init__(self, network: AnyNetwork, config: Config, number: int, sets: Sets) -> None:
        super().__init__(network, config, number, sets)
        self.augment.register_forward_hook(lambda _module, _inputs, output: self._changed(*output))

    @torch.no_grad()
    def _changed(self, images: Tensor, masks: Tensor, zones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, masks = self.change(torch.cat([images, masks], 1)).split(1, 1)
        return images, masks, zones


def changing(change: Callable[[Tensor], Tensor]) -> type[StageModule]:
    """A stage with this change."""
    return type("Augmented", (Augmented,), {"change": staticmethod(change)})


_splines = K.RandomThinPlateSpline(scale=0.06, p=0.5)


def bent(both: Tensor) -> Tensor:
    """Half of the images bent by thin-plate splines."""
    both = _splines(both)
    return torch.cat([both[:, :1], (both[:, 1:] > 0.5).float()], 1)


def mixup(both: Tensor) -> Tensor:
    """In half of the steps means of two X-rays, and of their masks (Zhang et al., ICLR 2018)."""
    share = torch.distributions.Beta(0.4, 0.4).sample() * (torch.rand(()) < 0.5)
    return torch.lerp(both, both[torch.randperm(len(both))], share)


def cutmix(both: Tensor) -> Tensor:
    """In half of the steps another X-ray's right half, which stays where it belongs (after CutMix)."""
    half = both.shape[-1] // 2
    other = both[torch.randperm(len(both))] if torch.rand(()) < 0.5 else both
    return torch.cat([both[..., :half], other[..., half:]], -1)


class HalfUntouched(StageModule):
    """Half of the images as they are: whatever is turned or zoomed is blurred a little as well."""

    def __init__(self, network: AnyNetwork, config: Config, number: int, sets: Sets) -> None:
        super().__init__(network, config, number, sets)
        self.augment.register_forward_hook(lambda _module, given, changed: self._mixed(given, changed))

    @staticmethod
    def _mixed(given: tuple[Tensor, ...], changed: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        keep = torch.rand(len(given[0])) < 0.5
        pick = [keep.view(-1, *(1,) * (x.ndim - 1)) for x in given]
        return tuple(torch.where(*x) for x in zip(pick, given, changed, strict=True))


class Equalised(StageModule):
    """Grey values equalised locally (CLAHE), in training and after it."""

    def _seen(self, images: Tensor) -> Tensor:
        return super()._seen(equalize_clahe(images, clip_limit=2.0, grid_size=(4, 4)))


class SourceTwice(StageModule):
    """X-rays of the source of `valid` and `test` twice in an epoch, the others once."""

    def __init__(self, network: AnyNetwork, config: Config, number: int, sets: Sets) -> None:
        arrays = sets[0][0]
        rows = [i for i, name in enumerate(arrays.names) if name.startswith("sub-")]
        assert rows, "these are not QaTa-COV19's names"
        names = [arrays.names[i] for i in rows]
        again = Arrays(arrays.images[rows], arrays.masks[rows], arrays.zones[rows], names)
        super().__init__(network, config, number, [*sets, (again, 1)])


class DeepSupervision(StageModule):
    """Masks from the decoder's maps at strides 16 and 8, too, at three tenths of the weight."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        blocks = network.decoder.up[:2]
        network.side = nn.ModuleList(nn.Conv2d(block.narrow.out_channels, 1, 1) for block in blocks)
        super().__init__(network, config, number, sets)
        self.maps: dict[int, Tensor] = {}
        for i, block in enumerate(blocks):
            block.register_forward_hook(lambda _block, _inputs, out, i=i: self.maps.update({i: out}))

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        sides = [head(self.maps[i]).float() for i, head in enumerate(self.network.side)]
        sides = [F.interpolate(side, masks.shape[2:], mode="bilinear") for side in sides]
        losses = [mask_loss(logits, masks), *(0.3 * mask_loss(side, masks) for side in sides)]
        return {"mask_loss": torch.stack(losses).sum()}


class ToFullResolution(nn.Module):
    """Features at stride 4 -> logits at stride 1, packed as the decoder unpacks them."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.up = nn.ModuleList(UpCat(2, i, 0, o, **CONVOLUTIONS) for i, o in ((inputs, 32), (32, 16)))
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for up in self.up:
            x = up(x, None)
        return F.pixel_unshuffle(self.out(x), SUBPIXEL)


class FullResolution(StageModule):
    """The decoder convolves at strides 2 and 1, too, in place of one convolution for 4 × 4 pixels at once."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        network.decoder.head = ToFullResolution(network.decoder.head.in_channels)
        super().__init__(network, config, number, sets)


class GuidedUNet(nn.Module):
    """`baselines.pretrained_encoder`'s U-Net down to stride 1, guided as the compact decoder is."""

    def __init__(self, report_dim: int, heads: int = 4) -> None:
        super().__init__()
        self.up = UNetDecoder(gated=False).up
        inputs = [up.upsample.deconv.in_channels for up in self.up]
        self.guide = nn.ModuleList(ReportGuidance(i, report_dim, heads) for i in inputs)
        self.to_full = ToFullResolution(inputs[-1] // 2)
        spare_padding(self)

    def project(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(features)

    def forward(self, features: Sequence[Tensor], report: Tensor, present: Tensor) -> Tensor:
        *skips, x = features
        for guide, up, skip in zip(self.guide, self.up, reversed(skips), strict=True):
            x = up(guide(x, report, present), skip)
        return F.pixel_shuffle(self.to_full(x), SUBPIXEL)


class UNetGuided(StageModule):
    """The compact network with U-Net's decoder."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        report_dim = network.report_encoder.norm.normalized_shape[0]
        network.decoder = GuidedUNet(report_dim)
        super().__init__(network, config, number, sets)


class WithoutAttention(StageModule):
    """The decoder's image tokens do not attend to each other."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        network.decoder.bridge = network.decoder.attend = nn.Identity()
        super().__init__(network, config, number, sets)


class Inpainting(StageModule):
    """The stage of this name learns no masks, but what hidden patches of an X-ray show."""

    def _segment(self, images: Tensor, masks: Tensor, zones: Tensor) -> dict[str, Tensor]:
        if self.stage.name != "inpainting":
            return super()._segment(images, masks, zones)
        hidden = torch.rand(len(images), 1, images.shape[2] // 16, images.shape[3] // 16) < 0.6
        hidden = F.interpolate(hidden.float(), images.shape[2:])
        features = self.network.encode(images * (1 - hidden)).features
        filled = self._decode(features, torch.full((len(images),), NO_REPORT)).float()
        return {"mask_loss": ((filled - images) ** 2 * hidden).sum() / hidden.sum()}

    def on_validation_epoch_end(self) -> None:
        if self.stage.name == "inpainting":  # the last epoch is to be kept
            self.counts["dice_none"] = torch.tensor([self.current_epoch, 1.0])
        super().on_validation_epoch_end()


class ZonesOnly(StageModule):
    """Zones are learned, and never guide: do they shape the encoder?"""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        network.reads_reports = False
        super().__init__(network, config, number, sets)


class OwnEncoder(StageModule):
    """LERG reads an encoder of its own, as the paper's does, and may see what the decoder does not."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        network.own = EfficientNetLite(network.encoder.variant)
        network.own.load_state_dict(network.encoder.state_dict())
        network.PRETRAINED = (*network.PRETRAINED, "own.")
        network.encode = self._encode
        super().__init__(network, config, number, sets)

    def _encode(self, images: Tensor) -> Encoded:
        network: Any = self.network
        *_, fine, coarse = network.own(images)
        return Encoded(network.decoder.project(network.encoder(images)), network.lerg(fine, coarse))


class Joint(StageModule):
    """The 64 reports as classes, in which zones depend on each other in pairs, in place of six decisions."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        network.pairs = nn.Parameter(torch.zeros(len(ZONES), len(ZONES)))
        super().__init__(network, config, number, sets)
        self.flags = (torch.arange(2 ** len(ZONES))[:, None] >> torch.arange(len(ZONES)) & 1).float()

    def _report_logits(self, zone_logits: Tensor) -> Tensor:
        """(B, 6) -> (B, 64)."""
        together = ((self.flags @ self.network.pairs.triu(1)) * self.flags).sum(1)
        return zone_logits.float() @ self.flags.T + together

    def own_reports(self, zone_logits: Tensor) -> Tensor:
        return self._report_logits(zone_logits).argmax(1)

    def _zone_loss(self, logits: Tensor, zones: Tensor) -> Tensor:
        # A third, for six decisions have a mean where this has a sum.
        return F.cross_entropy(self._report_logits(logits), zone_index(zones)) / 3


class Ordered(StageModule):
    """A side's zones as one ordered scale: how far up the lesion reaches, and how far down.

    Two numbers a side in place of three: the lesion is in the upper (lower) zone if its upper (lower) end
    reaches that far, and in the middle one if both ends reach at least there.
    """

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        lerg, classify = network.lerg, network.lerg._classify
        lerg.reach = nn.Parameter(torch.ones(2))
        lerg._classify = lambda objects: self._ordered(classify(objects), lerg.reach)
        super().__init__(network, config, number, sets)

    @staticmethod
    def _ordered(logits: Tensor, reach: Tensor) -> Tensor:
        """(B, 6) -> (B, 6); of LERG's three numbers a side the middle one is not read."""
        up, _, down = logits.unflatten(1, (2, 3)).unbind(2)
        to_middle = torch.stack([up, down], 2) + F.softplus(reach)
        middle = -torch.logsumexp(-to_middle, 2)
        return torch.stack([up, middle, down], 2).flatten(1)


class ZoneMasks(StageModule):
    """A map of the lesion in each zone, learned from the mask cut by thirds, speaks for the zone by its area.

    The data set has no lungs, so that the cuts are the same rows of every image: those that tell the zones of
    `train` best from its masks, and 91.9 % of them (84.3 % of `valid`'s).
    """

    CUTS = (68 / 224, 98 / 224)
    LARGEST_WITHOUT = (200 / 224**2, 600 / 224**2, 50 / 224**2)
    """The area, as a share of the image, above which a level counts as infected."""

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        lerg, classify = network.lerg, network.lerg._classify
        lerg.maps = nn.Conv2d(lerg.classify.shape[1], 4 * len(ZONES), 1)
        lerg.slope = nn.Parameter(torch.ones(len(ZONES)))
        lerg.least = nn.Parameter(-torch.tensor(self.LARGEST_WITHOUT).log().repeat(2))
        lerg.fusion.register_forward_hook(self._draw)
        lerg._classify = lambda objects: classify(objects) + self._by_area()
        super().__init__(network, config, number, sets)

    def _draw(self, _fusion: nn.Module, inputs: tuple[Tensor, Tensor], tokens: Tensor) -> None:
        """Keeps the maps' logits, (B, 6, H / 8, W / 8)."""
        height, width = inputs[0].shape[2:]
        fine = tokens[:, : height * width].transpose(1, 2).unflatten(2, (height, width))
        self.maps = F.pixel_shuffle(self.network.lerg.maps(fine), 2)

    def _by_area(self) -> Tensor:
        lerg = self.network.lerg
        area = self.maps.float().sigmoid().mean((2, 3))
        return lerg.slope * (area + 1e-4).log() + lerg.least

    def _segment(self, images: Tensor, masks: Tensor, zones: Tensor) -> dict[str, Tensor]:
        losses = super()._segment(images, masks, zones)
        targets = F.adaptive_avg_pool2d(self._cut(masks), self.maps.shape[2:])
        losses["zone_mask_loss"] = F.binary_cross_entropy_with_logits(self.maps.float(), targets)
        return losses

    def _cut(self, masks: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 6, H, W): the mask in each zone."""
        height, width = masks.shape[2:]
        places = torch.zeros(len(ZONES), height, width)
        rows = (0, *(round(cut * height) for cut in self.CUTS), height)
        for zone in ZONES:
            level, side = zone.level.value, zone.side.value
            half = slice(side * width // 2, (side + 1) * width // 2)
            places[zone.position, rows[level] : rows[level + 1], half] = 1
        return masks * places


class Frozen(StageModule):
    """LERG and guidance learned on a finished network without text, whose own mask stays as it is."""

    start: Path | None = None

    def __init__(self, network: Any, config: Config, number: int, sets: Sets) -> None:
        assert self.start is not None, "frozen needs --start"
        finished = load_file(self.start / WEIGHTS)
        unknown = network.load_state_dict(finished, strict=False).unexpected_keys
        assert not unknown, f"{self.start} is no run of image-only: it has {unknown[0]}"
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name not in finished)
        super().__init__(network, config, number, sets)

    def on_train_epoch_start(self) -> None:
        self.network.eval()  # batch norms keep their statistics
        for part in (self.network.lerg, self.network.report_encoder, self.network.decoder.guide):
            part.train()


class SharpnessAware(StageModule):
    """The gradient where the loss is worst nearby (SAM, Foret et al., ICLR 2021); a step costs two."""

    RADIUS = 0.05

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        optimizer = configured["optimizer"]
        step = optimizer.step

        def sharpness_aware(closure: Callable[[], Any]) -> Any:
            state = torch.get_rng_state()
            loss = closure()
            moves = self._towards_worse(optimizer)
            _move(moves, 1)
            torch.set_rng_state(state)  # the same augmentation and reports again
            closure()
            _move(moves, -1)
            step()
            return loss

        optimizer.step = sharpness_aware
        return configured

    def _towards_worse(self, optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        return [(p, p.grad * (self.RADIUS / norm.clamp(min=1e-12))) for p in parameters]


@torch.no_grad()
def _move(moves: list[tuple[Tensor, Tensor]], sign: int) -> None:
    for parameter, move in moves:
        parameter += sign * move


class Taught(StageModule):
    """Targets half-way between the mask and the mean of what teachers draw, with and without the report."""

    teachers: Sequence[Path] = ()

    def __init__(self, network: AnyNetwork, config: Config, number: int, sets: Sets) -> None:
        assert self.teachers, "taught needs --teacher"
        super().__init__(network, config, number, sets)
        # A list, for modules in it are no part of this one and of its checkpoints.
        self.loaded = [load(configs.load(a / "config.yaml"), a / WEIGHTS).eval() for a in self.teachers]
        self.augment = TaughtAugment(self.augment.config, self._drawn)

    def _drawn(self, images: Tensor, zones: Tensor) -> Tensor:
        """(B, 2, H, W): without a report and with the true one."""
        reports = torch.cat([torch.full((len(images),), NO_REPORT), zone_index(zones)])
        images = self._seen(images)
        masks = []
        for teacher in self.loaded:
            features = repeat_features(teacher.encode(images).features, 2)
            masks.append(teacher.decode(features, reports, teacher.report_encoder()).float().sigmoid())
        return torch.cat(torch.stack(masks).mean(0).chunk(2), 1)

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        paths = len(logits) // len(self.augment.drawn)  # without a report, then with one
        drawn = torch.cat(self.augment.drawn.split(1, 1)[:paths])
        return {"mask_loss": mask_loss(logits, (masks + drawn) / 2)}


class TaughtAugment(augmentation.Augment):
    """What teachers draw on the X-ray as it is goes the way of its mask, and is kept: (B, 2, H, W)."""

    def __init__(self, config: Augmentation, draw: Callable[[Tensor, Tensor], Tensor]) -> None:
        assert not config.flip, "taught mirrors nothing"
        super().__init__(config)
        self.draw = draw

    @torch.no_grad()
    def forward(self, images: Tensor, masks: Tensor, zones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        transform = augmentation._sample_transforms(masks, self.config)
        together = torch.cat([images, masks, self.draw(images, zones)], 1)
        together = warp_affine(together, transform, images.shape[2:], align_corners=False)
        images, masks, self.drawn = together.split((1, 1, 2), 1)
        images = self.intensity(images.clamp(0, 1)).clamp(0, 1)
        return augmentation._paint_bars(images, self.config.border), (masks > 0.5).float(), zones


class Idea(NamedTuple):
    """A run of `sgseg reproduce --preset cpu` with one thing changed: its stages, or its configuration."""

    stage: type[StageModule] = StageModule
    of: str = "image-only"
    changes: tuple[str, ...] = ()


_RATES = "learning_rate: 1.0e-3, encoder_learning_rate: 5.0e-4"

IDEAS = {
    "control": Idea(),
    "control-guided": Idea(of="sgseg"),
    "tversky-recall": Idea(minimising(tversky(0.3))),
    "tversky-precision": Idea(minimising(tversky(0.7))),
    "lovasz": Idea(minimising(lovasz)),
    "boundary": Idea(minimising(boundary)),
    "focal": Idea(minimising(DiceFocalLoss(sigmoid=True, batch=True, lambda_focal=4.0))),
    "image-dice": Idea(minimising(DiceCELoss(sigmoid=True))),
    "soft-edges": Idea(minimising(soft_edges)),
    "deep-supervision": Idea(DeepSupervision),
    "unet-decoder": Idea(of="unet-imagenet"),
    "unet-guided": Idea(UNetGuided, "sgseg"),
    "full-resolution": Idea(FullResolution),
    "without-attention": Idea(WithoutAttention),
    "elastic": Idea(changing(bent)),
    "mixup": Idea(changing(mixup)),
    "cutmix": Idea(changing(cutmix)),
    "half-untouched": Idea(HalfUntouched),
    "sharpness-aware": Idea(SharpnessAware),
    "taught": Idea(Taught, "sgseg"),
    "equalised": Idea(Equalised),
    "source-twice": Idea(SourceTwice, changes=("stages.0.epochs=5",)),  # as many steps
    "inpainting": Idea(
        Inpainting,
        changes=(
            f"stages=[{{name: inpainting, size: 128, epochs: 4, {_RATES}}}, "
            f"{{name: 128px, size: 128, epochs: 8, {_RATES}}}]",
        ),
    ),
    "lite1": Idea(of="sgseg", changes=("network.encoder=lite1",)),
    "zones-only": Idea(ZonesOnly, "sgseg"),
    "own-encoder": Idea(OwnEncoder, "sgseg"),
    "joint": Idea(Joint, "sgseg"),
    "ordered": Idea(Ordered, "sgseg"),
    "zone-masks": Idea(ZoneMasks, "sgseg"),
    "own-reports": Idea(of="sgseg", changes=("reports.true=0.3",)),
    "frozen": Idea(Frozen, "sgseg", ("reports.unguided=false", "monitor=self")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("idea", choices=IDEAS)
    parser.add_argument("--data", type=Path, required=True, help="QaTa-COV19")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; goes on if it is there")
    parser.add_argument("--start", type=Path, help="for frozen: the run of image-only to build on")
    parser.add_argument("--teacher", type=Path, action="append", help="for taught: a run; any number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("changes", nargs="*", help="more changes, as stages.0.epochs=3")
    arguments = parser.parse_intermixed_args()
    idea = IDEAS[arguments.idea]
    Frozen.start, Taught.teachers = arguments.start, arguments.teacher or ()
    run.StageModule = idea.stage  # type: ignore[misc]  # what this file is for: the library has no such stages
    if (arguments.out / "config.yaml").is_file():
        run.resume(arguments.out)
    else:
        given = (f"data.root={arguments.data}", f"seed={arguments.seed}", *arguments.changes)
        config = configs.load("reproduce/cpu", [*RUNS[idea.of], *idea.changes, *given])
        run.start(config, arguments.out)
    for path in sorted(arguments.out.glob("*/metrics.csv")):
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
        names = [name for name in rows[0] if name.startswith("valid/")]
        print(f"\n{arguments.idea}, {path.parent.name}, valid")
        for row in rows:
            print(row["epoch"], *(f"{n.removeprefix('valid/')} {float(row[n]):.4f}" for n in names), sep="  ")


if __name__ == "__main__":
    main()
