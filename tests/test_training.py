"""The workshop: configuration, augmentation, losses, networks, runs that survive being killed, export."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

import lightning as L  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

import sgseg  # noqa: E402
from helpers import COMMAND  # noqa: E402
from sgseg.anatomy import Laterality, Side, ZoneSet  # noqa: E402
from sgseg.cli import app  # noqa: E402
from sgseg.data import Case, load_mask, read_cases  # noqa: E402
from sgseg.data.phantom import write_dataset  # noqa: E402
from sgseg.errors import ConfigError, SGSegError  # noqa: E402
from sgseg.models import SGSegCompact  # noqa: E402
from sgseg.models.aggregation import LocationAggregation  # noqa: E402
from sgseg.models.baselines.prototypes import PrototypeNetwork  # noqa: E402
from sgseg.models.compact.efficientnet import EfficientNetLite, SameConv2d, Variant, channels  # noqa: E402
from sgseg.models.compact.report_encoder import whiten  # noqa: E402
from sgseg.models.interface import Encoded  # noqa: E402
from sgseg.reports import NO_REPORT, parse  # noqa: E402
from sgseg.training import config as configs  # noqa: E402
from sgseg.training import networks, pretrained, run  # noqa: E402
from sgseg.training.augmentation import Augment, flip  # noqa: E402
from sgseg.training.cache import Arrays, decode  # noqa: E402
from sgseg.training.config import Augmentation, Config, Reports  # noqa: E402
from sgseg.training.losses import language_vision_loss, mask_loss, zone_loss  # noqa: E402
from sgseg.training.module import (  # noqa: E402
    StageModule,
    choose_reports,
    distilled,
    standardise,
    zone_index,
)
from sgseg.training.runtime import TorchRuntime  # noqa: E402
from sgseg.training.semi_supervised import (  # noqa: E402
    ContrastiveBatches,
    SemiSupervisedModule,
    most_similar,
)
from sgseg.training.sets import (  # noqa: E402
    Batch,
    Batches,
    loader,
    split_labelled,
    training_sets,
    unlabelled_set,
)
from sgseg.weights import SHIPPED  # noqa: E402

# --- configuration


@pytest.mark.parametrize("name", configs.names())
def test_every_shipped_configuration_is_valid_and_survives_its_dump(name: str, tmp_path: Path) -> None:
    config = configs.load(name)
    (tmp_path / "again.yaml").write_text(config.dump())
    assert configs.load(tmp_path / "again.yaml") == config


def test_overrides_reach_lists_and_sections() -> None:
    config = configs.load("sgseg-compact", ["stages.0.epochs=3", "data.root=/x", "augmentation.flip=0.5"])
    assert (config.stages[0].epochs, config.data.root, config.augmentation.flip) == (3, Path("/x"), 0.5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.rot=x", "did you mean root"),
        ("sed=1", "did you mean seed"),
        ("stages.0.epoch=1", "did you mean epochs"),
        ("stages.2.augmentation.flipp=1", "did you mean flip"),
        ("stages.0.size=100", "multiple of 32"),
        ("stages.7.size=128", "does not fit"),
        ("--epochs", "is not key=value"),
    ],
)
def test_wrong_configurations_name_the_cure(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("sgseg-compact", [override])


def test_unknown_configuration_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="sgseg-compact"):
        configs.load("sgseg-comapct")


# --- augmentation


def _batch(n: int = 16, size: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    masks = torch.zeros(n, 1, size, size)
    for i in range(n):
        top, left = torch.randint(0, size - 12, (2,), generator=generator)
        masks[i, :, top : top + 12, left : left + 12] = 1
    return torch.rand(n, 1, size, size, generator=generator), masks, torch.ones(n, 6)


def test_no_lesion_leaves_the_picture() -> None:
    """With everything but geometry off, each lesion keeps its area, corrected for zoom, within its limits."""
    geometry = Augmentation(rotate=20, zoom=1.5, shift=0.5, gamma=1, blur=0, noise=0, erase=0, border=0)
    augment = Augment(geometry)
    torch.manual_seed(0)
    for _ in range(20):
        images, masks, zones = _batch()
        _, moved, _ = augment(images, masks, zones)
        area = moved.sum((1, 2, 3)) / masks.sum((1, 2, 3))
        assert area.min() > 0.8 / 1.5**2, "a lesion was cut"


def test_image_and_mask_move_together() -> None:
    augment = Augment(Augmentation(gamma=1, blur=0, noise=0, erase=0, border=0))
    torch.manual_seed(1)
    _, masks, zones = _batch()
    images, moved, _ = augment(masks.clone(), masks, zones)
    assert ((images > 0.5).float() - moved).abs().mean() < 1e-3


def test_noise_has_the_deviation_that_is_asked_for() -> None:
    only = {"rotate": 0, "zoom": 1, "stretch": 1, "shift": 0, "gamma": 1, "blur": 0, "erase": 0, "border": 0}
    torch.manual_seed(2)
    _, masks, zones = _batch()
    for deviation in (0.01, 0.03):
        augment = Augment(Augmentation(noise=1, noise_deviation=deviation, **only))
        images, _, _ = augment(torch.full_like(masks, 0.5), masks, zones)
        assert float((images - 0.5).std()) == pytest.approx(deviation, rel=0.05)


def test_augmentation_is_the_seeds() -> None:
    augment, batch = Augment(Augmentation(flip=0.5)), _batch()
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(augment(*batch)[0])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("index", range(64))
def test_flips_swap_the_zones_with_the_pixels(index: int) -> None:
    zones = ZoneSet(index)
    images = torch.zeros(2, 1, 4, 4)
    images[:, :, 0, 0] = 1
    flipped, _, swapped = flip(images, images, torch.tensor([zones.vector] * 2), torch.tensor([True, False]))
    assert flipped[0, 0, 0, 3] == 1 and flipped[1, 0, 0, 0] == 1
    assert tuple(swapped[0].tolist()) == zones.flipped().vector
    assert tuple(swapped[1].tolist()) == zones.vector


def test_mirrored_images_have_mirrored_masks_and_zones() -> None:
    off = {"rotate": 0, "zoom": 1, "stretch": 1, "shift": 0, "gamma": 1, "blur": 0, "noise": 0, "erase": 0}
    left = parse("lower right lung", Laterality.PATIENT)
    masks = torch.zeros(3, 1, 8, 8)
    masks[:, :, 5:7, 1:3] = 1
    zones = torch.tensor([left.vector] * 3).float()
    _, mirrored, swapped = Augment(Augmentation(flip=1, border=0, **off))(masks.clone(), masks, zones)
    torch.testing.assert_close(mirrored, masks.flip(3))
    assert swapped.tolist() == [list(left.flipped().vector)] * 3


# --- losses and reports in training


def test_unknown_zones_have_no_loss_and_no_gradient() -> None:
    logits = torch.randn(4, 6, requires_grad=True)
    zones = torch.randint(0, 2, (4, 6)).float()
    zones[2:] = float("nan")
    loss = zone_loss(logits, zones)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[:2], zones[:2]))
    loss.backward()
    assert logits.grad is not None and not logits.grad[2:].any() and logits.grad[:2].any()


def test_reports_in_training_keep_their_shares() -> None:
    torch.manual_seed(0)
    zones = torch.tensor(ZoneSet(5).vector).float().repeat(4000, 1)
    own = torch.full((4000,), 63)
    chosen = choose_reports(own, zones, Reports(true=0.5, corrupted=0.2))
    assert (chosen == 5).float().mean() == pytest.approx(0.5, abs=0.05)
    assert (chosen == 63).float().mean() == pytest.approx(0.3, abs=0.04)
    zones[:] = float("nan")
    assert (choose_reports(own, zones, Reports()) == own).all()


def test_a_network_that_writes_no_report_gets_none_where_none_is_true() -> None:
    own = torch.full((200,), NO_REPORT)
    zones = torch.ones(200, 6)
    zones[::2] = torch.nan
    chosen = choose_reports(own, zones, Reports(true=0.5, corrupted=0.0))
    assert (chosen[::2] == NO_REPORT).all()
    assert set(chosen[1::2].tolist()) == {63, NO_REPORT}


def test_the_path_without_a_report_learns_from_the_true_report_alone() -> None:
    masks = torch.stack([torch.ones(2, 4, 4), torch.zeros(2, 4, 4)])
    guided = torch.full((2, 1, 4, 4), 2.0, requires_grad=True)
    targets = distilled(masks, guided, torch.tensor([True, False]), 0.25)
    assert not targets.requires_grad
    torch.testing.assert_close(
        targets[0, 0], torch.full((4, 4), 0.75 + 0.25 * float(guided.detach()[0, 0, 0, 0].sigmoid()))
    )
    torch.testing.assert_close(targets[1], masks[1])
    torch.testing.assert_close(targets[0, 1], masks[0, 1])


def test_distillation_changes_what_the_unguided_path_is_asked_for() -> None:
    losses = []
    for share in (0.0, 0.5):
        changes = [f"reports.distil={share}", "reports.true=1", "reports.corrupted=0"]
        config = configs.load("sgseg-compact", changes)
        torch.manual_seed(0)
        network = SGSegCompact().train()
        module = StageModule(network, config, 1, [])
        images, masks = torch.rand(4, 1, 64, 64), (torch.rand(4, 1, 64, 64) > 0.5).float()
        torch.manual_seed(1)
        losses.append(module._segment(images, masks, torch.ones(4, 6))["mask_loss"].item())
    assert losses[0] != losses[1]


def test_losses_have_the_weights_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    module = StageModule(SGSegCompact(), configs.load("sgseg-compact"), 1, [])
    weights = {"zone_weight": 0.25, "language_vision_weight": 0.5}
    monkeypatch.setattr(module, "stage", module.stage.model_copy(update=weights))
    losses = {"mask_loss": 1.0, "zone_loss": 10.0, "language_vision_loss": 100.0}
    monkeypatch.setattr(module, "_segment", lambda *_: {k: torch.tensor(v) for k, v in losses.items()})
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    batch = Batch(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.zeros(2, 1, 32, 32), torch.zeros(2, 6))
    assert module.training_step(batch, 0).item() == 1 + 0.25 * 10 + 0.5 * 100


def test_dice_is_of_the_whole_batch() -> None:
    """An image without lesion counts by its pixels, not as one of two."""
    logits = torch.tensor([[2.0, -1.0], [-3.0, -2.0]]).reshape(2, 1, 1, 2)
    masks = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * masks).sum()) / (p.sum() + masks.sum())
    expected = dice + F.binary_cross_entropy_with_logits(logits, masks)
    assert mask_loss(logits, masks).item() == pytest.approx(expected.item(), abs=1e-4)


def test_healthy_and_synthetic_xrays_are_trained_on(phantoms: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "healthy", {"train": 3}, 9000, size=64)
    healthy = [f"data.negatives={tmp_path / 'healthy'}", "data.negatives_repeat=5"]
    stage = "stages=[{name: one, size: 64, epochs: 1, phantoms: 7}]"
    config = configs.load("sgseg-compact", [f"data.root={phantoms}", *healthy, stage])
    sets = training_sets(config.data, config.stages[0], 0)
    assert [(len(arrays), repeat) for arrays, repeat in sets] == [(40, 1), (3, 5), (7, 1)]
    assert len(list(Batches(sets, 8, 0))) == (40 + 15 + 7) // 8


def test_pretrained_parts_learn_at_a_rate_of_their_own() -> None:
    changes = ["stages.0.learning_rate=1.0e-2", "stages.0.encoder_learning_rate=1.0e-4", "weight_decay=0.5"]
    network = SGSegCompact()
    groups, rates = StageModule(network, configs.load("sgseg-compact", changes), 1, [])._parameter_groups()

    def settings(parameter: torch.nn.Parameter) -> tuple[float, float]:
        (found,) = [i for i, g in enumerate(groups) if any(p is parameter for p in g["params"])]
        return rates[found], groups[found]["weight_decay"]

    kernel = next(p for p in network.encoder.parameters() if p.ndim > 1)
    scale = next(p for p in network.encoder.parameters() if p.ndim == 1)
    assert (settings(kernel), settings(scale)) == ((1e-4, 0.5), (1e-4, 0.0))
    head = network.decoder.head
    assert (settings(head.weight), settings(head.bias)) == ((1e-2, 0.5), (1e-2, 0.0))


def test_drop_connect_leaves_out_late_branches_more_often() -> None:
    encoder = EfficientNetLite().train()
    encoder.set_drop_connect(0.5)
    blocks = [block for block in encoder._blocks if block.residual]
    rates = [block.drop_connect for block in blocks]
    assert rates == sorted(rates) and 0 < rates[0] < rates[-1] < 0.5
    last = blocks[-1]
    x = torch.randn(200, last._bn2.num_features, 4, 4)
    with torch.no_grad():
        last._bn2.weight.zero_().add_(1)
        left_out = (last(x) == x).flatten(1).all(1).float().mean()
        assert left_out == pytest.approx(last.drop_connect, abs=0.12)
        assert not (last.eval()(x) == x).flatten(1).all(1).any()


def test_filling_the_bank_leaves_the_network_in_training(phantoms: Path) -> None:
    stage = "{name: one, objective: contrastive, size: 64, epochs: 1}"
    last = "{name: two, size: 64, epochs: 1}"
    changes = ["model=prototypes", f"data.root={phantoms}", f"stages=[{stage},{last}]"]
    config = configs.load("reproduce/smoke", changes)
    network = networks.build(config)
    assert isinstance(network, PrototypeNetwork)
    before = network.bank.keys.detach().clone()
    run._fill_bank(network, config, config.stages[0])
    assert (network.bank.keys != before).any()
    assert network.training


def test_zone_index_is_the_zoneset() -> None:
    vectors = torch.tensor([ZoneSet(i).vector for i in range(64)])
    assert zone_index(vectors).tolist() == list(range(64))


# --- networks


def test_aggregation_is_equation_1() -> None:
    aggregate, objects = LocationAggregation(8, queries=6), torch.randn(3, 5, 8)
    x, q = objects.numpy(), aggregate.queries.detach().numpy()
    for b in range(3):
        scores = x[b] @ q.T
        weights = np.exp(scores) / np.exp(scores).sum(0)
        expected = weights.T @ x[b]
        np.testing.assert_allclose(aggregate(objects)[b].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "parameters"), [("lite0", 5_314_598), ("lite1", 6_079_270), ("lite2", 6_726_886)]
)
def test_size_and_shapes(encoder: Variant, parameters: int) -> None:
    network = SGSegCompact(encoder).eval()
    assert sum(p.numel() for p in network.parameters()) == parameters
    for size in (64, 128, 224):
        with torch.no_grad():
            logits, zones = network(torch.randn(2, 1, size, size), torch.tensor([NO_REPORT, 3]))
        assert logits.shape == (2, 1, size, size)
        assert zones.shape == (2, 6)


def test_no_report_skips_the_guidance_and_the_empty_report_does_not() -> None:
    network = SGSegCompact().eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        encoded, table = network.encode(image), network.report_encoder()
        without, empty = (
            network.decode(encoded.features, torch.tensor([i]), table) for i in (NO_REPORT, ZoneSet().index)
        )
        for guide in network.decoder.guide:
            guide.scale.zero_()
        unguided = network.decode(encoded.features, torch.tensor([0]), table)
    torch.testing.assert_close(without, unguided)
    assert not torch.allclose(without, empty)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (5, 1)])
def test_fast_depthwise_gradient_is_the_gradient(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(8, 8, kernel, stride, groups=8, bias=False)
    gradients = []
    for fast in (True, False):
        x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            y = conv(x)
        y.float().square().sum().backward()
        assert x.grad is not None and conv.weight.grad is not None
        gradients.append((x.grad, conv.weight.grad.clone()))
    for a, b in zip(*gradients, strict=True):
        assert (a - b).norm() / b.norm() < 0.02


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_encoder_gives_the_librarys_features(variant: Variant) -> None:
    library = pytest.importorskip("efficientnet_lite_pytorch")
    state = pretrained.imagenet_state(variant)
    # Its padding is that of one image size, by default one that is no multiple of 32.
    theirs = library.EfficientNet.from_name(f"efficientnet-{variant}", image_size=64)
    theirs.load_state_dict(state)
    ours = EfficientNetLite(variant)
    ours.load_imagenet(state)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        features = ours.eval()(image)
        x = theirs.eval()._bn0(theirs._conv_stem(image.expand(-1, 3, -1, -1)))
        x = F.relu6(x)
        outputs = []
        for block in theirs._blocks:
            x = block(x)
            outputs.append(x)
    by_shape = {tuple(o.shape): o for o in outputs}  # the last of each shape ends a stage
    assert [f.shape[1] for f in features] == list(channels(variant))
    for feature in features:
        torch.testing.assert_close(feature, by_shape[tuple(feature.shape)], rtol=1e-3, atol=1e-4)


def test_a_tampered_package_file_is_refused() -> None:
    fake = pretrained.Package(**{**vars(pretrained.EFFICIENTNETS["lite0"]), "sha256": "0" * 64})
    with pytest.raises(sgseg.errors.SGSegError, match="reinstall"):
        fake.path()
    absent = pretrained.Package(**{**vars(fake), "name": "sgseg-no-such-package"})
    with pytest.raises(sgseg.errors.MissingExtraError, match=r"sgseg\[pretrained\]"):
        absent.path()


# --- runs


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantoms"
    write_dataset(root, {"train": 40, "valid": 8}, 2000, size=64)
    return root


def _arguments(data: Path, out: Path) -> list[str]:
    stage = "{name: one, size: 64, epochs: 3, batch: 8, learning_rate: 0.001, encoder_learning_rate: 0.0005}"
    return [
        "train",
        "sgseg-compact",
        f"data.root={data}",
        f"stages=[{stage}]",
        "precision=32-true",
        "--out",
        str(out),
    ]


def _train(arguments: list[str], cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "SGSEG_CACHE": str(cache)}
    return subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def unbroken(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    process = _train(_arguments(phantoms, folder), folder.parent / "cache")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return folder


def test_a_run_leaves_what_it_promises(unbroken: Path) -> None:
    stage = unbroken / "1-one"
    for name in ("best.ckpt", "last.ckpt", "metrics.csv", "curves.png", "samples.png"):
        assert (stage / name).is_file(), name
    with (stage / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["train/mask_loss"]) < float(rows[0]["train/mask_loss"])


def test_a_killed_run_goes_on_exactly(unbroken: Path, phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = _train(_arguments(phantoms, folder), tmp_path / "cache")
    metrics = folder / "1-one" / "metrics.csv"
    deadline = time.monotonic() + 300
    while not (folder / "1-one" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert not (folder / run.WEIGHTS).exists()
    resumed = _train(["train", "--resume", str(folder)], tmp_path / "cache")
    output, _ = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, output
    expected, found = (load_file(f / run.WEIGHTS) for f in (unbroken, folder))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)
    rows = (list(csv.DictReader(open(f))) for f in (unbroken / "1-one" / "metrics.csv", metrics))  # noqa: PTH123, SIM115
    for a, b in zip(*rows, strict=True):
        assert {**a, "minutes": ""} == {**b, "minutes": ""}


# --- semi-supervised training

_LABELLED_FIRST = "{name: labelled, size: 64, epochs: 2, batch: 8, learning_rate: 0.01}"
_THEN_ALL = (
    "{name: all, size: 64, epochs: 3, batch: 8, pseudo_label_momentum: 0.5, language_vision_weight: 0.2}"
)


def _semi(data: Path, *more: str) -> Config:
    recipe = (f"data.root={data}", "network.size=cpu", "precision=32-true", "ema=0.9", "data.labelled=0.5")
    return configs.load("lvit-semi", [*recipe, f"stages=[{_LABELLED_FIRST}, {_THEN_ALL}]", *more])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.labelled=1"], "nothing to label"),
        (["data.labelled=0"], "data.labelled"),
        (["stages.0.pseudo_label_momentum=0.9"], "stage labelled cannot label before"),
        (["stages.0.objective=contrastive"], "stage all cannot label before"),
        (["stages.1.objective=contrastive"], "contrastive stages learn no masks"),
        (["stages.1.pseudo_label_momentum=null"], "add pseudo_label_momentum"),
        (["stages.1.pseudo_label_momentum=1"], "pseudo_label_momentum"),
    ],
)
def test_labels_out_of_nothing_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("lvit-semi", overrides)
    configs.load("lvit-semi", ["init=RUN", "stages.0.pseudo_label_momentum=0.9"])  # a run can label


def test_a_share_is_labelled_patient_by_patient() -> None:
    cases = [Case(f"{i}", Path(f"{i}.png"), None, None, f"patient {i % 30}") for i in range(90)]
    labelled, rest = split_labelled(cases, 0.3, seed=1)
    assert len(labelled) == 27 and len(rest) == 63
    assert not {case.patient for case in labelled} & {case.patient for case in rest}
    assert labelled == split_labelled(cases, 0.3, seed=1)[0] != split_labelled(cases, 0.3, seed=2)[0]
    assert split_labelled(cases, 1.0, seed=1) == (cases, [])
    assert len(split_labelled(cases, 1e-6, seed=1)[0]) == 3, "one patient at least"


def test_masks_that_are_not_known_are_never_opened(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGSEG_CACHE", str(tmp_path))
    cases = read_cases(phantoms, "train")
    config = _semi(phantoms)
    labelled, rest = split_labelled(cases, 0.5, config.seed)
    assert len(labelled) == len(rest) == 20
    broken = [replace(case, mask=tmp_path / "gone.png") if case in rest else case for case in cases]
    monkeypatch.setattr("sgseg.training.sets.read_cases", lambda root, split: broken)
    ((known, _),) = training_sets(config.data, config.stages[1], config.seed)
    unlabelled = unlabelled_set(config.data, config.stages[1], config.seed)
    assert list(known.names) == [case.name for case in labelled] and known.masks.any()
    assert list(unlabelled.names) == [case.name for case in rest] and not unlabelled.masks.any()
    assert unlabelled.zones.any(), "their reports stay"


def test_a_run_without_anything_to_label_does_not_begin(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="leaves no patient to label"):
        run.start(_semi(phantoms, "data.labelled=0.999"), tmp_path / "run")
    silent = [replace(case, zones=None) for case in read_cases(phantoms, "train")]
    monkeypatch.setattr("sgseg.training.sets.read_cases", lambda root, split: silent)
    with pytest.raises(ConfigError, match="needs reports"):
        run.start(_semi(phantoms), tmp_path / "run")
    contrastive = configs.load("sgseg", [f"data.root={phantoms}"])
    with pytest.raises(ConfigError, match="needs reports in train and valid"):
        run.start(contrastive, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_judged_by_masks_that_its_network_does_not_make(phantoms: Path, tmp_path: Path) -> None:
    told = ["model=unet", "monitor=self", f"data.root={phantoms}"]
    with pytest.raises(ConfigError, match="no masks under guidance self"):
        run.start(configs.load("reproduce/cpu", told), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_most_similar_report_is_the_same_one() -> None:
    vectors = np.array([ZoneSet(i).vector for i in range(64)], dtype=np.float32)
    unknown = np.full((1, 6), np.nan, dtype=np.float32)
    labelled = np.concatenate([vectors, unknown, vectors[::-1]])
    chosen = most_similar(np.concatenate([vectors, unknown]), labelled, np.random.default_rng(0))
    assert (labelled[chosen[:64]] == vectors).all() and chosen[64] == -1
    assert 10 < (chosen[:64] < 64).sum() < 54, "equal reports are drawn from"
    far = most_similar(vectors[[0b000111]], vectors[[0b000110, 0b111000]], np.random.default_rng(0))
    assert far.tolist() == [0]
    assert most_similar(vectors[:2], unknown, np.random.default_rng(0)).tolist() == [-1, -1]


def test_language_vision_loss_is_of_the_images_with_a_contrastive_label() -> None:
    masks = torch.zeros(3, 1, 4, 4)
    masks[:2, ..., :2] = 1
    predicted = torch.stack([0.3 * masks[0], 1 - masks[0], masks[0]])
    assert float(language_vision_loss(predicted[:1], masks[:1])) == pytest.approx(0, abs=1e-6)
    assert float(language_vision_loss(predicted, masks)) == pytest.approx(0.5)
    predicted.requires_grad_()
    language_vision_loss(predicted, masks).backward()
    assert predicted.grad is not None and predicted.grad[1].any() and not predicted.grad[2].any()
    assert not language_vision_loss(predicted[2:], masks[2:]).any()


def _arrays(n: int, grey: int, first: int = 0) -> Arrays:
    """Images of one grey with some noise; the mask of image i is its first i columns."""
    noise = np.random.default_rng(grey).integers(-20, 20, (n, 64, 64))
    masks = np.stack([np.tile(np.arange(64) < i, (64, 1)) for i in range(first, first + n)])
    zones = np.array([ZoneSet(1 + i % 3).vector for i in range(n)], dtype=np.float32)
    return Arrays(
        (grey + noise).astype(np.uint8), masks.astype(np.uint8), zones, [f"{grey}-{i}" for i in range(n)]
    )


def test_an_unlabelled_image_comes_with_the_mask_of_its_partner_alone() -> None:
    labelled, healthy, rest = _arrays(4, 50, first=1), _arrays(2, 100, first=20), _arrays(5, 200, first=40)
    partners = np.array([3, -1, 0, 2, 2])
    batches = ContrastiveBatches([(labelled, 1), (healthy, 2), (rest, 1)], 4, (0,), partners)
    seen = 0
    for batch in batches:
        for image, (own, contrastive) in zip(batch.images, batch.masks, strict=True):
            row = int((rest.images == image.numpy()).all((1, 2)).argmax())
            unlabelled = image.float().mean() > 150
            seen += int(unlabelled)
            paired = unlabelled and partners[row] >= 0
            expected = labelled.masks[partners[row]] if paired else np.zeros((64, 64))
            assert (contrastive.numpy() == expected).all()
            assert not unlabelled or (own.numpy() == rest.masks[row]).all()
    assert seen >= 4


class _Pixelwise(torch.nn.Module):
    """The smallest network that can be trained."""

    PRETRAINED: tuple[str, ...] = ()
    reads_reports, writes_reports = True, False

    def __init__(self) -> None:
        super().__init__()
        self.convolve = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.dropout = torch.nn.Dropout(0.5)

    def encode(self, images: Tensor) -> Encoded:
        return Encoded((self.dropout(self.convolve(images)),), images.new_full((len(images), 6), torch.nan))

    def report_encoder(self) -> Tensor:
        return torch.zeros(65, 1)

    def decode(self, features: tuple[Tensor, ...], report: Tensor, table: Tensor) -> Tensor:
        return features[0] + report[:, None, None, None] / 100


def _fit(module: SemiSupervisedModule, folder: Path) -> None:
    trainer = run._trainer(module.config, module.stage, folder, "32-true")
    trainer.fit(module, val_dataloaders=loader(Batches([(_arrays(4, 70), 1)], 4, None)))


def _module(folder: Path, *more: str) -> SemiSupervisedModule:
    torch.manual_seed(0)
    still = "augmentation={rotate: 0, zoom: 1, stretch: 1, shift: 0, gamma: 1, noise: 0, erase: 0, border: 0}"
    config = _semi(folder, still, *more)
    return SemiSupervisedModule(_Pixelwise(), config, 2, [(_arrays(12, 50), 1)], _arrays(6, 200, first=40))  # type: ignore[arg-type]


def test_pseudo_labels_keep_their_momentum_and_are_what_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network says 1 at first and 0 ever after: labels 1, 0.6, 0.36, 0.216, of which three are used."""
    answers, used, step = iter([1.0, 0.0, 0.0, 0.0]), [], SemiSupervisedModule.training_step
    module = _module(tmp_path, "stages.1.pseudo_label_momentum=0.6", "stages.1.batch=18")

    def say(module: SemiSupervisedModule, batch: Batch) -> Tensor:
        assert not module.network.training
        return torch.full((len(batch.images), 64, 64), next(answers))

    def watched(module: SemiSupervisedModule, batch: Batch, batch_idx: int) -> Tensor:
        used.append(batch.masks[batch.images.float().mean((1, 2, 3)) > 150, 0].float().mean().item())
        return step(module, batch, batch_idx)

    monkeypatch.setattr(SemiSupervisedModule, "_probabilities", say)
    monkeypatch.setattr(SemiSupervisedModule, "training_step", watched)
    _fit(module, tmp_path)
    assert used == [1, 1, 0]
    torch.testing.assert_close(
        module.pseudo_labels.float(), torch.full((6, 64, 64), 0.216), rtol=0, atol=1e-3
    )


def test_it_is_the_averaged_network_that_labels_under_true_reports(tmp_path: Path) -> None:
    module = _module(tmp_path, "stages.1.pseudo_label_momentum=0", "stages.1.learning_rate=0.1")
    _fit(module, tmp_path)
    network, rest = module.network, module.unlabelled  # the trainer left the averaged weights in it
    assert network.training, "labelling leaves the mode as it was"
    images = standardise(torch.from_numpy(rest.images)[:, None] / 255)
    with torch.no_grad():
        features = network.eval().encode(images).features
        logits = network.decode(features, zone_index(torch.from_numpy(rest.zones)), network.report_encoder())
    torch.testing.assert_close(module.pseudo_labels.float(), logits[:, 0].sigmoid(), rtol=0, atol=1e-3)
    raw = torch.load(tmp_path / "last.ckpt", weights_only=True)["current_model_state"]
    assert not torch.allclose(raw["network.convolve.weight"], network.convolve.weight)


def test_flips_take_the_contrastive_label_along() -> None:
    images, masks, zones = _batch()
    _, both, _ = Augment(Augmentation(flip=0.5))(images, masks.repeat(1, 2, 1, 1), zones)
    assert torch.equal(both[:, :1], both[:, 1:])


def test_a_broken_semi_supervised_run_goes_on_exactly(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "initial", lambda config: (_Pixelwise(), []))
    config = _semi(phantoms)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run.start(config, unbroken)

    def breaks(module: SemiSupervisedModule, batch: Batch, batch_idx: int) -> None:
        if (module.current_epoch, batch_idx) == (2, 1):
            raise RuntimeError("the light went out")
        super(SemiSupervisedModule, module).on_train_batch_start(batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="the light went out"):
        patch.setattr(SemiSupervisedModule, "on_train_batch_start", breaks, raising=False)
        run.start(config, broken)
    run.resume(broken)
    expected, found = (load_file(folder / run.WEIGHTS) for folder in (unbroken, broken))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)
    labels = [
        torch.load(folder / "2-all" / "last.ckpt", weights_only=True)["pseudo_labels"]
        for folder in (unbroken, broken)
    ]
    assert torch.equal(*labels)
    assert 0 < (labels[0] > 0.5).float().mean() < 1, "labels of nothing would prove nothing"
    with (unbroken / "2-all" / "metrics.csv").open() as file:
        assert all(float(row["train/language_vision_loss"]) > 0 for row in csv.DictReader(file))


class _Scores(L.LightningModule):
    """Its epochs have these scores."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.scores, self.weight = scores, torch.nn.Parameter(torch.zeros(()))

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(torch.ones(1, 1))  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[torch.Tensor]:
        return self.train_dataloader()

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return (self.weight * batch).sum()

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.log("score", self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_a_moved_run_remembers_its_best_epoch(tmp_path: Path) -> None:
    def fit(folder: Path, scores: Sequence[float], resume: Path | None = None) -> None:
        callbacks = [
            run.BestCheckpoint(folder, "best", monitor="score", mode="max", enable_version_counter=False),
            ModelCheckpoint(folder, "last", enable_version_counter=False),
        ]
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(accelerator="cpu", max_epochs=len(scores), callbacks=callbacks, **options)
        trainer.fit(_Scores(scores), ckpt_path=resume)

    fit(tmp_path / "here", [0.5, 0.9])
    (tmp_path / "here").rename(tmp_path / "there")
    fit(tmp_path / "there", [0.5, 0.9, 0.1], tmp_path / "there" / "last.ckpt")
    assert torch.load(tmp_path / "there" / "best.ckpt", weights_only=True)["epoch"] == 1
    assert not (tmp_path / "here").exists()


def test_a_finished_folder_is_not_overwritten(unbroken: Path) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        run.start(configs.load("sgseg-compact"), unbroken)


def test_the_artefact_gives_the_networks_probabilities(
    unbroken: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgseg.export import TOLERANCE, export_run, largest_difference
    from sgseg.inference import OnnxRuntime
    from sgseg.inference.runtime import read_card
    from sgseg.training.runtime import TorchRuntime

    negatives = tmp_path / "negatives"
    write_dataset(negatives, {"train": 2, "valid": 5}, 9000, size=64)
    shutil.copytree(unbroken, tmp_path / "run")
    settings = yaml.safe_load((unbroken / "config.yaml").read_text())
    settings["data"]["negatives"] = str(negatives)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    out = export_run(tmp_path / "run", tmp_path / "artefact", phantoms, "test")
    artefact = OnnxRuntime(out)
    network, trained = (
        TorchRuntime(
            networks.load(configs.load("sgseg-compact"), weights),
            64,
            artefact.guidance,
            artefact.identity,
            temperature=read_card(out)["calibration"]["temperature"],
        )
        for weights in (out / "model.safetensors", unbroken / run.WEIGHTS)
    )
    for batch in (1, 2, 5):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64), dtype=np.uint8)
        assert largest_difference(artefact, network, images) <= TOLERANCE
    assert sgseg.load(out).predict(np.asarray(images[0])).mask.shape == (64, 64)
    assert largest_difference(artefact, trained, images) < 0.02, "rounding the weights costs more than that"
    for part in (network.network.decoder.head.bias, network.network.lerg.bias):
        with torch.no_grad():
            part += 0.1
        assert largest_difference(artefact, network, images) > TOLERANCE, "a difference goes unnoticed"
        with torch.no_grad():
            part -= 0.1

    written = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patch, pytest.raises(SGSegError, match="differ by"):
        patch.setattr("sgseg.export.TOLERANCE", -1.0)
        export_run(tmp_path / "run", out, phantoms, "another")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == written, "it was replaced by half"

    finding = read_card(out)["finding"]
    assert artefact.finding_threshold == finding["threshold"]
    lesions = [case for case in read_cases(phantoms, "valid") if load_mask(case, (64, 64)).any()]
    assert 0 < len(lesions) == finding["cases"] and finding["negatives"] == 5
    for cases, rate in ((lesions, "sensitivity"), (read_cases(negatives, "valid"), "false_positive_rate")):
        found = [sgseg.load(out).predict(case.image, force=True).finding for case in cases]
        assert finding[rate] == pytest.approx(np.mean(found), abs=1e-4)
    assert finding["sensitivity"] >= 0.97


@pytest.fixture(scope="module")
def on_both(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on `train` and `valid`."""
    folder = tmp_path_factory.mktemp("runs") / "both"
    stage = "{name: one, size: 64, epochs: 2, batch: 8}"
    changes = [f"data.root={phantoms}", "data.splits=[train,valid]", f"stages=[{stage}]", "init=random"]
    run.start(configs.load("sgseg-compact", changes), folder)
    return folder


def test_valid_is_trained_on_where_it_is_asked_for(on_both: Path) -> None:
    config = configs.load(on_both / "config.yaml")
    ((arrays, repeat),) = training_sets(config.data, config.stages[0], 0)
    assert (len(arrays), repeat) == (48, 1), "40 of train, 8 of valid"
    assert "judge nothing" in json.loads((on_both / "run.json").read_text())["warnings"][-1]


def _chosen_without(checkpoint: str, trained: Path, folder: Path) -> Tensor:
    """The mask head that a finished run chooses anew, this one of its checkpoints being all zeros."""
    shutil.copytree(trained, folder)
    path = folder / "1-one" / checkpoint
    emptied = torch.load(path, weights_only=True)
    emptied["state_dict"] = {name: torch.zeros_like(tensor) for name, tensor in emptied["state_dict"].items()}
    torch.save(emptied, path)
    (folder / run.WEIGHTS).unlink()
    run.resume(folder)
    return load_file(folder / run.WEIGHTS)["decoder.head.weight"]


def test_a_run_on_valid_keeps_its_last_epoch(on_both: Path, tmp_path: Path) -> None:
    chosen = _chosen_without("best.ckpt", on_both, tmp_path / "both")
    last = torch.load(on_both / "1-one" / "last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(chosen, last["network.decoder.head.weight"])
    assert chosen.any()


def test_a_run_that_valid_judges_keeps_its_best_epoch(unbroken: Path, phantoms: Path, tmp_path: Path) -> None:
    chosen = _chosen_without("last.ckpt", unbroken, tmp_path / "judged")
    torch.testing.assert_close(chosen, load_file(unbroken / run.WEIGHTS)["decoder.head.weight"])
    assert chosen.any()

    with (unbroken / "1-one" / "metrics.csv").open() as file:
        scores = [float(row["valid/dice_none"]) for row in csv.DictReader(file)]
    best = torch.load(unbroken / "1-one" / "best.ckpt", weights_only=True)["epoch"]
    assert scores[best] == max(scores)
    arrays = decode(read_cases(phantoms, "valid"), 64)
    player, images = TorchRuntime.of_run(unbroken), np.array(arrays.images)
    found = player.decode(player.encode(images).features, np.full(len(images), NO_REPORT)) > 0.5
    dice = 2 * (found & (arrays.masks > 0)).sum() / (found.sum() + (arrays.masks > 0).sum())
    assert dice == pytest.approx(max(scores), abs=1e-4)


def test_a_run_is_examined_in_place_of_a_model(unbroken: Path, phantoms: Path, tmp_path: Path) -> None:
    line = ["--run", str(unbroken), "--data", str(phantoms), "--threshold", "0.3"]
    scores = ["--limit", "2", "--json", str(tmp_path / "s.json"), "--picture", str(tmp_path / "s.png")]
    for command in (["evaluate", *line, *scores], ["analyse", *line, "--out", str(tmp_path / "analysis")]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    for path in (tmp_path / "s.json", tmp_path / "analysis" / "analysis.json"):
        document = json.loads(path.read_text())
        assert document["model"]["version"] == unbroken.name and document["threshold"] == 0.3


@pytest.mark.parametrize(
    ("objective", "monitor", "mode"),
    [
        ("segmentation", "valid/dice_text", "max"),
        ("zones", "valid/zone_accuracy", "max"),
        ("contrastive", "valid/contrastive_loss", "min"),
    ],
)
def test_what_judges_a_stage(objective: str, monitor: str, mode: str, tmp_path: Path) -> None:
    config = configs.load("sgseg-compact", ["monitor=text"])
    stage = config.stages[0].model_copy(update={"objective": objective, "patience": 3})
    judges = [
        callback
        for callback in run._trainer(config, stage, tmp_path, "32-true").callbacks
        if isinstance(callback, (run.BestCheckpoint, EarlyStopping))
    ]
    assert [(callback.monitor, callback.mode) for callback in judges] == [(monitor, mode)] * 2


def test_patience_needs_a_judge() -> None:
    changes = ["data.splits=[train,valid]", "stages.0.patience=2"]
    with pytest.raises(ConfigError, match="drop patience"):
        configs.load("sgseg-compact", changes)


def test_a_run_on_valid_takes_the_choices_of_another(
    on_both: Path, unbroken: Path, phantoms: Path, tmp_path: Path
) -> None:
    from sgseg.export import export_run
    from sgseg.inference.runtime import read_card

    with pytest.raises(ConfigError, match="--choices MODEL"):
        export_run(on_both, tmp_path / "both", phantoms, "test")
    chosen = export_run(unbroken, tmp_path / "chosen", phantoms, "test")
    with pytest.raises(ConfigError, match="leave out --choices"):
        export_run(unbroken, tmp_path / "again", phantoms, "test", chosen)
    card = read_card(chosen)
    card["finding"]["threshold"], card["guidance"] = 0.123, "self-soft"
    (chosen / "model.json").write_text(json.dumps(card))
    taken = read_card(export_run(on_both, tmp_path / "both", phantoms, "test", chosen))
    assert (taken["finding"]["threshold"], taken["guidance"]) == (0.123, "self-soft")
    assert taken["calibration"] == card["calibration"]
    assert taken["choices"] == {key: card[key] for key in ("name", "version", "sha256")}
    assert "valid_pooled_dice" not in taken and taken["sha256"] != card["sha256"]
    del card["finding"]  # as in weights up to 0.3.0
    (chosen / "model.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match="before models had finding; export it again"):
        export_run(on_both, tmp_path / "both", phantoms, "test", chosen)


def test_a_zones_stage_trains_a_new_lerg_and_nothing_else(phantoms: Path, tmp_path: Path) -> None:
    first = "{name: one, size: 64, epochs: 1, batch: 8}"
    last = "{name: lerg, objective: zones, size: 64, epochs: 2, batch: 8, learning_rate: 0.01}"
    changes = [f"data.root={phantoms}", f"stages=[{first},{last}]", "init=random", "precision=32-true"]
    folder = tmp_path / "run"
    run.start(configs.load("sgseg-compact", changes), folder)
    weights = load_file(folder / "weights.safetensors")
    before = torch.load(folder / "1-one" / "best.ckpt", weights_only=True)["state_dict"]
    changed = {n for n, tensor in weights.items() if not torch.equal(tensor, before[f"network.{n}"])}
    assert {"lerg.objects", "lerg.classify", "lerg.aggregate.queries"} <= changed
    assert all(name.startswith("lerg.") for name in changed)
    with (folder / "2-lerg" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert "train/mask_loss" not in rows[0]
    assert float(rows[1]["train/zone_loss"]) < float(rows[0]["train/zone_loss"])


def test_a_stage_can_keep_a_share_of_the_weights_it_began_with(phantoms: Path, tmp_path: Path) -> None:
    first = "{name: a, size: 64, epochs: 1, batch: 8}"
    second = "{name: b, size: 64, epochs: 1, batch: 8, start_share: 0.25}"
    changes = [f"data.root={phantoms}", f"stages=[{first},{second}]", "init=random"]
    folder = tmp_path / "run"
    run.start(configs.load("sgseg-compact", changes), folder)
    weights = load_file(folder / "weights.safetensors")
    begun, learned = (
        torch.load(folder / stage / "best.ckpt", weights_only=True)["state_dict"] for stage in ("1-a", "2-b")
    )
    for name in ("decoder.head.weight", "lerg.objects", "decoder.up.0.convolve.0.1.running_var"):
        old, new = begun[f"network.{name}"], learned[f"network.{name}"]
        assert not torch.equal(old, new)
        torch.testing.assert_close(weights[name], 0.25 * old + 0.75 * new)
    before = (folder / "weights.safetensors").read_bytes()
    run.resume(folder)
    assert (folder / "weights.safetensors").read_bytes() == before, "mixed again with what it was mixed with"


def test_an_override_changes_one_place_of_what_yaml_shares(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "model: sgseg-compact\n"
        "stages:\n"
        "  - {name: a, epochs: 1, augmentation: &stronger {rotate: 15}}\n"
        "  - {name: b, epochs: 1, augmentation: *stronger}\n"
    )
    config = configs.load(tmp_path / "own.yaml", ["stages.0.augmentation.rotate=5"])
    assert [stage.augmentation and stage.augmentation.rotate for stage in config.stages] == [5, 15]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["stages.0.objective=zones"], "put it last"),
        (
            ["model=unet", "network={}", "stages=[{name: a, epochs: 1, objective: zones}]"],
            "trains as a whole",
        ),
        (
            ["stages=[{name: a, epochs: 1, objective: zones, pseudo_label_momentum: 0.9}]"],
            "zones stages learn no masks",
        ),
        (["stages=[{name: a, epochs: 1, objective: zones, start_share: 0.5}]"], "leave out start_share"),
    ],
)
def test_zones_stages_stand_where_they_make_sense(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configs.load("sgseg-compact", changes)


def test_shipped_artefact_and_torch_give_the_same_masks() -> None:
    from sgseg.export import TOLERANCE, largest_difference
    from sgseg.inference import OnnxRuntime
    from sgseg.inference.runtime import read_card
    from sgseg.training.runtime import TorchRuntime

    artefact = OnnxRuntime(SHIPPED)
    network = networks.load(networks.recipe(SHIPPED), SHIPPED / "model.safetensors")
    temperature = read_card(SHIPPED)["calibration"]["temperature"]
    player = TorchRuntime(
        network, artefact.size, artefact.guidance, artefact.identity, temperature=temperature
    )
    from sgseg.data.phantom import draw

    images = np.stack([draw(seed, artefact.size).pixels for seed in range(3)])
    assert largest_difference(artefact, player, images) <= TOLERANCE


def test_report_table_is_what_bert_gives() -> None:
    """The stored constants of the shipped weights, against BERT run now (stored in float16)."""
    encoder = networks.load(networks.recipe(SHIPPED), SHIPPED / "model.safetensors").report_encoder
    expected = whiten(pretrained.report_embeddings())
    signs = (encoder.embeddings * expected).sum(0).sign()  # an SVD's columns have no sign of their own
    # The last directions are rounding noise of BERT itself, and turn freely within their subspace.
    torch.testing.assert_close(encoder.embeddings[:, :8], (expected * signs)[:, :8], rtol=0.02, atol=0.02)


def test_whitening_makes_the_sides_visible() -> None:
    """The side of each level gets a share of what distinguishes reports that is like that of a zone."""
    vectors = torch.tensor([ZoneSet(i).vector for i in range(64)]).float() * 2 - 1

    def share(embeddings: Tensor, contrast: Tensor) -> float:
        centred = embeddings - embeddings.mean(0)
        return float(((contrast / contrast.norm()) @ centred).square().sum() / centred.square().sum())

    raw = pretrained.report_embeddings()
    for level in range(3):
        side = vectors[:, level] - vectors[:, level + 3]
        assert share(raw, side) < 0.005
        assert share(whiten(raw), side) > 0.25 * share(whiten(raw), vectors[:, level])


def test_zones_of_unseen_reports_can_be_read_from_their_embeddings() -> None:
    embeddings = whiten(pretrained.report_embeddings()).double()
    vectors = torch.tensor([ZoneSet(i).vector for i in range(64)]).double() * 2 - 1
    right = []
    for seed in range(20):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        seen, unseen = order[:52], order[52:]
        kernel = embeddings @ embeddings.T / 63
        weights = torch.linalg.solve(
            kernel[seen][:, seen] + 0.01 * torch.eye(52, dtype=torch.float64), vectors[seen]
        )
        right.append(((kernel[unseen][:, seen] @ weights).sign() == vectors[unseen]).double().mean())
    assert torch.stack(right).mean() > 0.95


def test_fine_tuning_starts_from_the_shipped_weights(phantoms: Path) -> None:
    config = configs.load("sgseg-compact-finetune", [f"data.root={phantoms}"])
    network = networks.initial(config)[0]
    fresh = networks.build(config).state_dict()
    assert not torch.equal(network.state_dict()["decoder.head.weight"], fresh["decoder.head.weight"])


def test_starting_from_weights_of_another_encoder_names_it(tmp_path: Path) -> None:
    shipped = networks.recipe(SHIPPED).network.encoder
    with pytest.raises(ConfigError, match=f"init=shipped has another encoder; add network.encoder={shipped}"):
        networks.initial(configs.load("sgseg-compact-finetune", ["network.encoder=lite1"]))
    config = configs.load("sgseg-compact", ["network.encoder=lite1"])
    (tmp_path / "config.yaml").write_text(config.dump())
    save_file(networks.state(networks.build(config)), tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"add network.encoder=lite1"):
        networks.initial(configs.load("sgseg-compact", [f"init={tmp_path}", "network.encoder=lite0"]))
    continued = configs.load("sgseg-compact", [f"init={tmp_path}", "network.encoder=lite1"])
    started, saved = (
        networks.state(networks.initial(continued)[0]),
        load_file(tmp_path / "weights.safetensors"),
    )
    assert all(torch.equal(started[name], tensor) for name, tensor in saved.items())


def test_a_run_that_cannot_begin_leaves_no_folder(phantoms: Path, tmp_path: Path) -> None:
    changes = [f"data.root={phantoms}", f"init={tmp_path / 'no-such-run'}"]
    with pytest.raises(ConfigError, match="is not there"):
        run.start(configs.load("sgseg-compact", changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_right_in_the_users_words_is_the_left_of_the_training_image(tmp_path: Path) -> None:
    """From a patient-laterality report through the reader to the zones that supervise LERG."""
    from PIL import Image

    pixels = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[45:60, 5:20] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    (tmp_path / "train.csv").write_text("image,mask,report\na.png,m.png,lower right lung\n")
    arrays = decode(read_cases(tmp_path, "train"), 64)
    zones = ZoneSet.from_vector(arrays.zones[0].tolist())
    assert zones == parse("lower left lung", Laterality.IMAGE)
    assert zones.sides == {Side.IMAGE_LEFT}
    assert arrays.masks[0][:, :32].sum() == arrays.masks[0].sum() > 0
