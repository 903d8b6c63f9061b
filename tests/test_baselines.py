"""The compared systems: one contract for all of them, their sizes, and what is particular to each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from monai.networks.nets.basic_unet import UpCat  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from sgseg.anatomy import N_ZONESETS, ZONES, ZoneSet  # noqa: E402
from sgseg.errors import ConfigError  # noqa: E402
from sgseg.inference import Identity  # noqa: E402
from sgseg.models import SGSeg, SGSegCompact  # noqa: E402
from sgseg.models.baselines import BASELINES, ImageOnly, build  # noqa: E402
from sgseg.models.baselines.base import LearnedPosition, resize_grid  # noqa: E402
from sgseg.models.baselines.lvit import LViT, PixelLevelAttention  # noqa: E402
from sgseg.models.baselines.prototypes import PrototypeBank, k_means  # noqa: E402
from sgseg.models.baselines.swin_unet import PatchExpand  # noqa: E402
from sgseg.models.baselines.zone_embeddings import ZoneEmbeddings  # noqa: E402
from sgseg.models.interface import Alignable, Network  # noqa: E402
from sgseg.reports import NO_REPORT, Guidance  # noqa: E402
from sgseg.training import config as configs  # noqa: E402
from sgseg.training import networks  # noqa: E402
from sgseg.training.module import StageModule  # noqa: E402
from sgseg.training.runtime import TorchRuntime  # noqa: E402

GUIDED = ("lvit", "languidemedseg", "simple-report", "zone-embeddings")
IMAGE_ONLY = tuple(name for name in BASELINES if name not in GUIDED)
PRETRAINED_ALIGNED = ("clip", "prototypes")
SIDE = 64

# At sizes paper and cpu. The released TransUNet and Swin-Unet have 105,277,081 and 27,168,900, of which
# 7,432 and 3,840 see two more colours and tell eight more classes.
PARAMETERS = {
    "unet": (31_106_177, 1_946_657),  # 31.0 M, from the widths of the paper's Fig. 1
    "unetpp": (9_115_108, 2_280_948),  # 9.04 M: Zhou et al., DLMIA 2018
    "attention-unet": (31_739_185, 1_987_417),  # 34.9 M: Li et al. (LViT), with pooling
    "transunet": (105_269_649, 3_508_977),  # 105.28 M
    "swin-unet": (27_165_060, 3_032_716),  # 27.17 M
    "nnunet": (21_050_401, 5_265_937),  # 19.1 M: Li et al. (LViT), as planned for their data
    "unet-imagenet": (5_007_649, 5_007_649),
    "unetpp-imagenet": (5_735_725, 5_735_725),
    "attention-unet-imagenet": (5_027_922, 5_027_922),
    "image-only": (3_893_664, 3_893_664),
    "clip": (4_214_560, 4_214_560),
    "prototypes": (4_735_776, 4_735_776),
    # 29.7 M: Li et al.; their released code uses 29,908,033 of the 39,933,345 it creates.
    "lvit": (29_909_157, 1_957_917),
    "languidemedseg": (151_807_579, 27_073_493),  # most of them BERT's, frozen: 109.6 M and 22.8 M
    "simple-report": (4_429_990, 4_429_990),
    "zone-embeddings": (5_035_814, 5_035_814),
}
UNREACHED = ("vision.layernorm.",)  # ConvNeXt's norm for classification, which segmentation does not use


def make(name: str, seed: int = 0) -> nn.Module:
    """A small network whose frozen text, which training would fill in, tells the reports apart."""
    torch.manual_seed(seed)
    network = build(name, "cpu", SIDE)
    for buffer_name, buffer in network.named_buffers():
        if buffer_name.endswith(("words", "embeddings")):
            buffer.normal_()
        elif buffer_name.endswith("input_ids"):
            buffer.random_(1, 30_000)
        elif buffer_name.endswith("attention_mask"):
            buffer.fill_(1)
    return network.eval()


def noise(batch: int, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    return torch.randn(batch, 1, height, width, generator=torch.Generator().manual_seed(1))


class Contract:
    """What holds for every network; inherited below for those that read reports and those that do not."""

    network: nn.Module
    name: str

    def test_it_is_a_network(self) -> None:
        assert isinstance(self.network, Network)
        assert self.network.report_encoder().shape[0] == N_ZONESETS + 1

    @pytest.mark.parametrize("shape", [(SIDE, SIDE), (96, 64)])
    def test_shapes(self, shape: tuple[int, int]) -> None:
        with torch.no_grad():
            logits, zones = self.network(noise(2, *shape), torch.tensor([5, NO_REPORT]))
        assert logits.shape == (2, 1, *shape)
        assert logits.isfinite().all()
        assert zones.shape == (2, len(ZONES))
        assert zones.isnan().all() != self.network.writes_reports

    def test_the_same_image_gives_the_same_mask(self) -> None:
        with torch.no_grad():
            first, second = (self.network(noise(2), torch.tensor([5, 9]))[0] for _ in range(2))
        assert torch.equal(first, second)

    def test_images_of_a_batch_do_not_see_each_other(self) -> None:
        images, reports = noise(2), torch.tensor([5, NO_REPORT])
        with torch.no_grad():
            both = self.network(images, reports)[0]
            alone = [self.network(images[i : i + 1], reports[i : i + 1])[0] for i in range(2)]
        torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)

    def test_every_parameter_learns(self) -> None:
        self.network.zero_grad()
        images, reports = noise(2), torch.tensor([5, 40])
        logits, zones = self.network(images, reports)
        loss = logits.square().mean() + zones.nan_to_num().square().mean()
        if self.name in PRETRAINED_ALIGNED:
            assert isinstance(self.network, Alignable)
            image, report = self.network.align(images, reports, self.network.report_encoder())
            assert image.shape == report.shape
            loss = loss + (image * report).mean()
        loss.backward()
        still = [
            name
            for name, p in self.network.named_parameters()
            if p.requires_grad and not name.startswith(UNREACHED) and (p.grad is None or not p.grad.any())
        ]
        self.network.zero_grad()
        assert still == []

    def test_weights_survive_a_file(self, tmp_path: Path) -> None:
        save_file(networks.state(self.network), tmp_path / "weights.safetensors")
        found = load_file(tmp_path / "weights.safetensors")
        other = make(self.name, seed=1)
        assert found.keys() == networks.state(other).keys()
        other.load_state_dict(found, strict=False)
        reports = torch.tensor([5, 9])
        with torch.no_grad():
            assert torch.equal(self.network(noise(2), reports)[0], other(noise(2), reports)[0])

    def test_training_takes_it(self) -> None:
        module = StageModule(self.network, configs.load("sgseg-mini", ["data.root=."]), 2, [])
        with torch.no_grad():
            losses = module._segment(noise(2), torch.ones(2, 1, SIDE, SIDE), torch.eye(6)[:2])
        assert losses.keys() == ({"mask_loss", "zone_loss"} if self.network.writes_reports else {"mask_loss"})
        assert all(loss.isfinite() for loss in losses.values())
        grouped = [p for group in module._parameter_groups()[0] for p in group["params"]]
        assert len(grouped) == sum(p.requires_grad for p in self.network.parameters())

    def test_it_can_be_played(self) -> None:
        player = TorchRuntime(self.network, SIDE, Guidance.NONE, Identity(self.name, "test", ""))
        encoded = player.encode(np.zeros((1, SIDE, SIDE), dtype=np.uint8))
        assert player.decode(encoded.features, np.array([NO_REPORT])).shape == (1, SIDE, SIDE)

    def _under(self, report: int) -> torch.Tensor:
        with torch.no_grad():
            return self.network(noise(2), torch.tensor([report, report]))[0]


@pytest.fixture(scope="class")
def _network(request: pytest.FixtureRequest) -> None:
    request.cls.name, request.cls.network = request.param, make(request.param)


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("_network", IMAGE_ONLY, indirect=True, scope="class")
class TestImageOnly(Contract):
    def test_no_report_changes_the_mask(self) -> None:
        assert isinstance(self.network, ImageOnly)
        assert not self.network.reads_reports
        assert torch.equal(self._under(5), self._under(40))
        assert torch.equal(self._under(5), self._under(NO_REPORT))


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize("_network", GUIDED, indirect=True, scope="class")
class TestGuided(Contract):
    def test_reports_change_the_mask(self) -> None:
        assert self.network.reads_reports
        assert not torch.equal(self._under(5), self._under(40))
        assert not torch.equal(self._under(5), self._under(NO_REPORT))

    def test_without_a_report_the_words_have_no_effect(self) -> None:
        with torch.no_grad():
            features, table = self.network.encode(noise(2)).features, self.network.report_encoder()
            assert not table[NO_REPORT].any()
            none = torch.full((2,), NO_REPORT)
            changed = table + 1
            assert torch.equal(
                self.network.decode(features, none, table), self.network.decode(features, none, changed)
            )


# --- sizes and registry


@pytest.mark.parametrize("name", BASELINES)
def test_sizes(name: str) -> None:
    with torch.device("meta"):
        built = [BASELINES[name]("paper", 224), BASELINES[name]("cpu", 128)]
    assert tuple(sum(p.numel() for p in network.parameters()) for network in built) == PARAMETERS[name]
    trained = sum(p.numel() for p in built[1].parameters() if p.requires_grad)
    assert 1.9e6 < trained < 6e6


@pytest.mark.parametrize("name", ["unet", "unetpp", "transunet", "unet-imagenet", "unetpp-imagenet"])
def test_upsampling_stays_in_bfloat16(name: str) -> None:
    network, seen = build(name, "cpu", SIDE), []
    for module in network.modules():
        if isinstance(module, UpCat):
            module.convs.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network.encode(noise(1))
    assert seen and set(seen) == {torch.bfloat16}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unett.*swin-unet"):
        build("unett", "cpu", SIDE)


def test_our_networks_keep_the_contract_too() -> None:
    assert isinstance(SGSegCompact(), Network)
    mini = SGSeg.mini()
    assert isinstance(mini, Network)
    assert isinstance(mini, Alignable)


# --- parts


def test_grids_are_resized_row_by_row() -> None:
    rows = torch.arange(4.0).repeat_interleave(4)[None, :, None]  # 4 × 4, each token its row's number
    assert torch.equal(resize_grid(rows, 4, 4), rows)
    halved = resize_grid(rows, 2, 6).unflatten(1, (2, 6))[0, ..., 0]
    torch.testing.assert_close(halved, torch.tensor([[0.5], [2.5]]).expand(2, 6))
    assert LearnedPosition(4, 8)(3, 5).shape == (1, 15, 8)


def test_patch_expanding_spreads_a_token_over_its_own_square() -> None:
    expand = PatchExpand(8, 4, 2)
    x = torch.randn(1, 8, 3, 3)
    changed = x.clone()
    changed[0, :, 1, 2] += 1
    moved = (expand(x) != expand(changed)).any(1)[0]
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[2:4, 4:6] = True
    assert torch.equal(moved, expected)


def test_pixel_level_attention_weighs_pixels_and_not_channels() -> None:
    x = torch.randn(2, 8, 5, 5)
    ratio = PixelLevelAttention(8)(x) / x
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)


def test_every_word_of_a_report_reaches_lvit() -> None:
    network = make("lvit")
    assert isinstance(network, LViT)
    with torch.no_grad():
        features, table = network.encode(noise(1)).features, network.report_encoder()
        report = torch.tensor([5])
        before = network.decode(features, report, table)
        for word in (0, 12, 23):
            changed = table.clone()
            changed[5, word] += 1
            assert not torch.equal(network.decode(features, report, changed), before)


def test_zone_embeddings_are_six_symbols_and_a_common_one() -> None:
    table = ZoneEmbeddings(16)()
    for index in (0, 5, 63):
        for zone, named in enumerate(ZoneSet(index).vector):
            torch.testing.assert_close(table[index, zone], table[63 if named else 0, zone])
    assert len({tuple(row.tolist()) for row in table[0]}) == 1
    assert len({tuple(row.tolist()) for row in table[63]}) == 6


def test_k_means_finds_what_lies_apart() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    points = centres.repeat_interleave(20, 0) + 0.1 * torch.randn(40, 2)
    found = k_means(points, 2)
    torch.testing.assert_close(found[found[:, 0].argsort()], centres, atol=0.2, rtol=0)
    assert torch.equal(k_means(points[:1], 3), points[:1].expand(3, 2))


def test_an_image_is_answered_with_the_report_of_its_like() -> None:
    """Images of two zones, whose reports differ: each query is answered by its own zone's prototypes."""
    torch.manual_seed(0)
    bank = PrototypeBank(8, per_zone=4, candidates=2)
    queries = torch.eye(8)[[0, 1]].repeat_interleave(20, 0) + 0.01 * torch.randn(40, 8)
    reports = torch.eye(8)[[2, 3]].repeat_interleave(20, 0)
    zones = torch.eye(6)[[0, 5]].repeat_interleave(20, 0)
    random = bank.values[4:20].clone()
    bank.distil(queries, reports, zones)
    assert torch.equal(bank.values[4:20], random)
    answers = bank(torch.eye(8)[[1, 0]])
    assert answers.shape == (2, 2, 8)
    assert answers.sum(1).argmax(1).tolist() == [3, 2]
