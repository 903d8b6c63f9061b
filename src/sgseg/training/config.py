"""What is trained, on what, and how: plain YAML, checked before anything runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sgseg.errors import ConfigError
from sgseg.models.baselines import BASELINES
from sgseg.models.compact.efficientnet import Variant

MODELS = ("sgseg-compact", "sgseg", *BASELINES)

SHIPPED = Path(__file__).resolve().parents[1] / "configs"


class Strict(BaseModel):
    """A section whose misspelt keys are errors, and which does not change once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Strict):
    """Where the X-rays are.

    Attributes:
        root: a data set in one of the layouts of `sgseg.data`.
        negatives: X-rays without a finding, in a layout of `sgseg.data`, added to each split.
        splits: that are trained on. With `valid` among them nothing is left to choose an epoch by, and each
            stage keeps its last: for the model that ships, once every choice is made without it.
        negatives_repeat: how often each of them counts in an epoch of training.
        labelled: share of the training split whose masks are known, whole patients that the seed draws. The
            masks of the rest are never opened; see `Stage.pseudo_label_momentum`.
    """

    root: Path | None = None
    negatives: Path | None = None
    splits: tuple[Literal["train", "valid"], ...] = Field(("train",), min_length=1)
    negatives_repeat: int = Field(4, ge=1)
    labelled: float = Field(1, gt=0, le=1)

    @property
    def has_judge(self) -> bool:
        """Whether `valid` is left to choose by."""
        return "valid" not in self.splits


class Augmentation(Strict):
    """How far training images are changed; 0 switches a change off.

    Attributes:
        rotate: largest rotation, degrees.
        zoom: largest zoom, in or out, as a factor above 1.
        stretch: largest change of the aspect ratio, as a factor above 1.
        shift: largest shift, as a share of the image's side.
        flip: probability of a mirrored image (zones change sides with it).
        gamma: largest exponent, and one over it the smallest.
        blur: probability of a slight blur.
        sharpen: probability of edges made harder, as many makers' processing does.
        noise: probability of added noise.
        noise_deviation: its standard deviation, as a share of the range of greys. Films at 224 pixels have
            .001 to .007 of their own.
        erase: probability of a rectangle painted over.
        border: probability of a bar painted over one or more edges.
    """

    rotate: float = Field(12, ge=0, le=45)
    zoom: float = Field(1.25, ge=1, le=2)
    stretch: float = Field(1.12, ge=1, le=1.5)
    shift: float = Field(0.08, ge=0, le=0.5)
    flip: float = Field(0, ge=0, le=1)
    gamma: float = Field(1.6, ge=1, le=3)
    blur: float = Field(0.15, ge=0, le=1)
    sharpen: float = Field(0, ge=0, le=1)
    noise: float = Field(0.2, ge=0, le=1)
    noise_deviation: float = Field(0.03, gt=0, le=0.5)
    erase: float = Field(0.25, ge=0, le=1)
    border: float = Field(0.15, ge=0, le=1)


class Reports(Strict):
    """Which reports guide in training; the rest of the time it is the model's own.

    Attributes:
        true: share of the true report.
        corrupted: share of the true report with one or two zones changed.
        unguided: whether every image is decoded a second time, without a report; trained with reports alone,
            as in the paper, the path without text starves.
        distil: how far the target of the path without a report moves from the mask to what the network itself
            says under the true report: knowledge that only training has (Vapnik & Vashist, 2009).
    """

    true: float = Field(0.7, ge=0, le=1)
    corrupted: float = Field(0.08, ge=0, le=1)
    unguided: bool = True
    distil: float = Field(0, ge=0, lt=1)


class Network(Strict):
    """Parts of `sgseg` and `sgseg-compact`, and the size of the systems they are compared with.

    Attributes:
        encoder: of `sgseg-compact`: which EfficientNet.
        size: `paper` as published; `mini` (of `sgseg`) trains on phantoms in minutes; `cpu` (of the compared
            systems) is narrower, for 128 pixels.
        backbone: of the detector: the paper's ResNet-50, or HGNetv2-L as in the authors' released code.
        lerg: without it the network is LanGuideMedSeg, guided by the user's report alone.
        freeze_text: whether BERT keeps its weights.
        transposed: whether the weights know images with rows and columns swapped, as the authors' do: MONAI's
            PILReader, with which they read images, swaps them.
    """

    encoder: Variant = "lite0"
    size: Literal["paper", "cpu", "mini"] = "paper"
    backbone: Literal["resnet50", "hgnetv2-l"] = "resnet50"
    lerg: bool = True
    freeze_text: bool = False
    transposed: bool = False


class Stage(Strict):
    """A part of training with its own resolution and schedule; it starts from the last stage's weights.

    Attributes:
        name: of its folder.
        size: side of the square images, pixels; a multiple of 32.
        epochs: passes over the training split.
        batch: images per step.
        learning_rate: peak of the one-cycle schedule for all but the encoder.
        encoder_learning_rate: the encoder's.
        warm_up: share of the steps on the way to the peak; cosine to below 1e-6 after it.
        zone_weight: weight of the zone loss beside the mask loss.
        drop_connect: how often the last residual branch of an EfficientNet is left out; earlier ones less
            often, in proportion to their depth. 0.2 is what it was pretrained with.
        phantoms: synthetic X-rays added to the training split.
        objective: `contrastive` warms up: images are drawn to their reports, no mask is learned. `zones`
            trains the LERG of `sgseg-compact` anew, and nothing else: masks stay as they are.
        patience: epochs without a better score on the validation split after which the stage ends early.
        augmentation: in place of the run's.
        start_share: share of the weights that the stage began with in what it leaves, a mean of them and of
            those it learned: what is learned last costs less of what was there (WiSE-FT; Wortsman et al.,
            CVPR 2022).
        pseudo_label_momentum: where given, images without a mask join in, under labels that the network made
            of them; this share of a label stays as it is each epoch (`training.semi_supervised`).
        language_vision_weight: weight of those images' language-vision loss beside the mask loss.
    """

    name: str
    size: int = Field(224, ge=64, le=1024, multiple_of=32)
    epochs: int = Field(ge=1)
    batch: int = Field(32, ge=2)
    learning_rate: float = Field(3e-4, gt=0)
    encoder_learning_rate: float = Field(3e-4, gt=0)
    warm_up: float = Field(0.15, ge=0, lt=1)
    zone_weight: float = Field(0.3, ge=0)
    drop_connect: float = Field(0, ge=0, lt=1)
    phantoms: int = Field(0, ge=0)
    objective: Literal["segmentation", "contrastive", "zones"] = "segmentation"
    patience: int | None = Field(None, ge=1)
    augmentation: Augmentation | None = None
    start_share: float = Field(0, ge=0, lt=1)
    pseudo_label_momentum: float | None = Field(None, ge=0, lt=1)
    language_vision_weight: float = Field(0, ge=0)

    @model_validator(mode="after")
    def _pseudo_labels_serve(self) -> Stage:
        if self.pseudo_label_momentum is not None and self.objective != "segmentation":
            raise ValueError(f"{self.objective} stages learn no masks; leave out pseudo_label_momentum")
        if self.pseudo_label_momentum is None and self.language_vision_weight:
            raise ValueError("language_vision_weight is of images without a mask; add pseudo_label_momentum")
        return self

    @model_validator(mode="after")
    def _the_start_can_be_mixed_in(self) -> Stage:
        if self.start_share and self.objective == "zones":
            raise ValueError("a zones stage begins with a new LERG, not with weights; leave out start_share")
        return self


class Config(Strict):
    """Everything that decides what comes out of a training run.

    Attributes:
        model: `sgseg-compact`, `sgseg`, or one of `models.baselines.BASELINES`.
        network: its parts.
        init: `pretrained` (`sgseg-compact`: ImageNet and BERT from their packages; `sgseg`: its encoders from
            the hub), `random`, `shipped` (the released weights), or a run folder whose weights to start from.
        hub: a folder with the hub's files, or a cache of it, for machines without a network.
        monitor: the guidance whose Dice on the validation split chooses the epoch.
        seed: of everything random.
        weight_decay: of AdamW, on matrices and kernels.
        ema: decay of the moving average of the weights, which is what is validated and kept.
        precision: `auto` measures whether bfloat16 is faster here; of a GPU it asks whether it has it.
    """

    model: str
    network: Network = Field(default_factory=Network)
    init: str = "pretrained"
    hub: Path | None = None
    monitor: Literal["none", "self", "text"] = "none"
    seed: int = Field(0, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    ema: float = Field(0.995, ge=0, lt=1)
    precision: Literal["auto", "bf16-mixed", "32-true"] = "auto"
    data: Data = Field(default_factory=Data)
    augmentation: Augmentation = Field(default_factory=Augmentation)
    reports: Reports = Field(default_factory=Reports)
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_the_model(self) -> Config:
        if self.model not in MODELS:
            near = difflib.get_close_matches(self.model, MODELS, 1, cutoff=0)
            raise ValueError(f"there is no model {self.model!r}; did you mean {near[0]}?")
        if self.model == "sgseg-compact" and self.network != Network(encoder=self.network.encoder):
            raise ValueError("of network, sgseg-compact has the encoder alone; leave out the rest")
        if self.model != "sgseg-compact" and self.network.encoder != "lite0":
            raise ValueError(f"the encoder of {self.model} cannot be chosen; leave out network.encoder")
        if self.network.size not in ("paper", "mini" if self.model == "sgseg" else "cpu"):
            raise ValueError(f"{self.model} has no size {self.network.size!r}")
        if self.init == "shipped" and self.model != "sgseg-compact":
            raise ValueError(f"no weights of {self.model} are shipped; give pretrained, random or a run")
        if self.stages[-1].objective == "contrastive":
            raise ValueError("the last stage must learn to segment")
        if any(stage.objective == "zones" for stage in self.stages[:-1]):
            raise ValueError("a zones stage leaves the rest of the network frozen; put it last")
        if self.stages[-1].objective == "zones" and self.model != "sgseg-compact":
            raise ValueError(f"zones stages are for sgseg-compact; {self.model} trains as a whole")
        return self

    @model_validator(mode="after")
    def _stages_end_when_they_are_judged(self) -> Config:
        if not self.data.has_judge and any(stage.patience is not None for stage in self.stages):
            raise ValueError("if valid is trained on, nothing judges when a stage should end; drop patience")
        return self

    @model_validator(mode="after")
    def _pseudo_labels_have_a_source(self) -> Config:
        learned = [s for s in self.stages if s.objective == "segmentation"]
        if all(s.pseudo_label_momentum is None for s in learned):
            return self
        if self.data.labelled == 1:
            raise ValueError("there is nothing to label; set data.labelled below 1")
        if learned[0].pseudo_label_momentum is not None and self.init in ("pretrained", "random"):
            raise ValueError(
                f"stage {learned[0].name} cannot label before the network has learned to segment; put a "
                "stage without pseudo_label_momentum before it, or give a run as init"
            )
        return self

    def dump(self) -> str:
        """As YAML that `load` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


_SECTIONS: dict[str, type[Strict]] = {
    "data": Data,
    "network": Network,
    "augmentation": Augmentation,
    "reports": Reports,
    "stages": Stage,
}


def names() -> list[str]:
    """The configurations that come with the package."""
    return sorted(str(path.relative_to(SHIPPED).with_suffix("")) for path in SHIPPED.rglob("*.yaml"))


def load(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        source: the name of one that comes with the package, or a YAML file.
        overrides: `key=value`, the key dotted (`data.root=…`, `stages.0.epochs=3`), the value YAML.

    Raises:
        ConfigError: there is no such configuration, or something in it makes no sense.
    """
    path = SHIPPED / f"{source}.yaml"
    if not path.is_file():
        path = Path(source)
    if not path.is_file():
        raise ConfigError(
            f"there is no configuration {str(source)!r}; give a YAML file or one of {', '.join(names())}"
        )
    try:
        tree = _unshared(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    for override in overrides:
        _set(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_explain(error))) from error


def _unshared(tree: Any) -> Any:
    """A tree in which what YAML's aliases share stands in each place by itself, to be changed there alone."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, list) else tree


def _set(tree: Any, override: str) -> None:
    """Changes one value of a tree of dictionaries and lists in place."""
    key, equals, text = override.partition("=")
    if not equals or key.startswith("-"):
        raise ConfigError(f"{override!r} is not key=value, as in stages.0.epochs=3")
    *parents, last = key.split(".")
    try:
        for parent in parents:
            tree = tree[int(parent)] if isinstance(tree, list) else tree.setdefault(parent, {})
        tree[int(last) if isinstance(tree, list) else last] = yaml.safe_load(text)
    except (AttributeError, IndexError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{override!r} does not fit the configuration ({error})") from error


def _explain(error: ValidationError) -> Iterator[str]:
    """One sentence for each fault; for a misspelt key the nearest right one."""
    for fault in error.errors():
        place = ".".join(map(str, fault["loc"]))
        if fault["type"] != "extra_forbidden":
            yield f"{place}: {fault['msg'].lower()}"
            continue
        around = [_SECTIONS[str(part)] for part in fault["loc"][:-1] if str(part) in _SECTIONS]
        section = around[-1] if around else Config
        near = difflib.get_close_matches(str(fault["loc"][-1]), section.model_fields, 1, cutoff=0)
        yield f"there is no key {place}; did you mean {near[0]}?"
