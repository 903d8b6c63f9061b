"""RT-DETR and LERG, in full and in small: sizes, what flows through them, what learns."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from transformers import RTDetrConfig  # noqa: E402

from sgseg.models.compact.lerg import CompactLERG, _on_fine_grid  # noqa: E402
from sgseg.models.compact.network import SGSegCompact  # noqa: E402
from sgseg.models.sgseg.lerg import LERG  # noqa: E402
from sgseg.models.sgseg.rtdetr import RTDETR, hgnetv2_l, mini, resnet50  # noqa: E402


@pytest.fixture
def lerg() -> LERG:
    torch.manual_seed(0)
    return LERG(mini())


@pytest.mark.parametrize(("config", "parameters"), [(resnet50(), 42_802_322), (hgnetv2_l(), 32_828_434)])
def test_full_size(config: RTDetrConfig, parameters: int) -> None:
    with torch.device("meta"):
        lerg = LERG(config).eval()
        features, boxes = lerg.detector(torch.zeros(2, 3, 224, 224))
    assert sum(p.numel() for p in lerg.parameters()) == parameters
    assert (features.shape, boxes.shape) == ((2, 300, 256), (2, 300, 4))


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_shapes_and_ranges(lerg: LERG, size: tuple[int, int]) -> None:
    found = lerg.explain(torch.randn(2, 3, *size))
    assert found.zone_logits.shape == (2, 6)
    assert (found.weights.shape, found.boxes.shape) == ((2, 30), (2, 30, 4))
    torch.testing.assert_close(found.weights.sum(1), torch.ones(2))
    assert found.boxes.min() >= 0 and found.boxes.max() <= 1


def test_one_look_runs_the_detector_once(lerg: LERG) -> None:
    runs = []
    lerg.detector.model.register_forward_hook(lambda *_: runs.append(1))
    lerg(torch.randn(2, 3, 64, 64))
    assert len(runs) == 1


def test_zones_are_drawn_from_the_weighted_objects(lerg: LERG) -> None:
    lerg.eval()
    images = torch.randn(2, 3, 64, 64)
    found = lerg.explain(images)
    location = torch.einsum("bn,bnd->bd", found.weights, lerg.detector(images).features)
    torch.testing.assert_close(found.zone_logits, lerg.classify(location))
    torch.testing.assert_close(lerg.aggregate(lerg.detector(images).features)[:, 0], location)
    torch.testing.assert_close(lerg(images), found.zone_logits)


def test_an_image_too_small_for_the_queries_says_so() -> None:
    detector = RTDETR(mini())
    with pytest.raises(ValueError, match="32×32 have 21 positions for 30 object queries"):
        detector(torch.zeros(1, 3, 32, 32))


def test_untrained_it_is_neither_silent_nor_frozen(lerg: LERG) -> None:
    norms = [module for module in lerg.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() and norm.weight.requires_grad for norm in norms)
    assert not any("Frozen" in type(module).__name__ for module in lerg.modules())
    widths = lerg.explain(torch.randn(1, 3, 64, 64)).boxes[..., 2:].unique()
    assert {round(width, 4) for width in widths.tolist()} <= {0.05, 0.1, 0.2}


def test_gradients_reach_everything_that_learns(lerg: LERG) -> None:
    lerg(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in lerg.parameters())
    kept = {name.split(".")[2] for name, p in lerg.named_parameters() if not p.requires_grad}
    assert kept == {"enc_output", "enc_score_head", "enc_bbox_head", "decoder"}
    assert {
        n.split(".")[3] for n, p in lerg.named_parameters() if not p.requires_grad and "decoder" in n
    } == {"bbox_embed"}


def test_it_learns_where_something_is(lerg: LERG) -> None:
    images = torch.zeros(6, 3, 64, 64)
    for zone in range(6):  # image-left then image-right; upper, middle, lower
        row, column = zone % 3, zone // 3
        images[zone, :, 21 * row : 21 * row + 20, 32 * column : 32 * column + 31] = 2.0
    target = torch.eye(6)
    optimizer = torch.optim.AdamW(lerg.parameters(), lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(lerg(images), target)
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.fixture
def compact() -> CompactLERG:
    """With objects and queries so large that they differ from each other, and zones too."""
    torch.manual_seed(0)
    lerg = CompactLERG((12, 20), dim=32, objects=5)
    nn.init.normal_(lerg.objects)
    nn.init.normal_(lerg.aggregate.queries)
    return lerg.eval()


FINE, COARSE = torch.randn(3, 12, 4, 6), torch.randn(3, 20, 2, 3)


def test_the_maps_cost_no_number(compact: CompactLERG) -> None:
    """The last layer, written out, is PyTorch's own."""
    found = compact.explain(FINE, COARSE).zone_logits
    torch.testing.assert_close(found, compact(FINE, COARSE), rtol=0, atol=1e-6)


def test_a_zones_map_is_the_objects_looks_by_their_weight_for_the_zone(compact: CompactLERG) -> None:
    maps = compact.explain(FINE, COARSE).attention
    assert maps.shape == (3, 6, 4, 6) and maps.min() >= 0
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(3, 6))
    assert (maps[:, 0] - maps[:, 1]).abs().max() > 1e-3
    with torch.no_grad():
        compact.aggregate.queries.zero_()  # now every zone draws on all objects alike
    alike = compact.explain(FINE, COARSE).attention
    torch.testing.assert_close(alike, alike.mean(1, keepdim=True).expand_as(alike))


def test_a_map_follows_what_draws_the_look(compact: CompactLERG) -> None:
    """All objects look for one direction of the memory; the position that has it gets the map."""
    last = compact.decoder[-1]
    query, key, _ = last.multihead_attn.in_proj_weight.chunk(3)
    with torch.no_grad():
        query.zero_()
        key.copy_(torch.eye(32))
        last.multihead_attn.in_proj_bias.zero_()
        last.multihead_attn.in_proj_bias[:32] = 10
        memory = torch.zeros(1, 30, 32)
        memory[0, 2 * 6 + 5] = 5
        compact.fusion.forward = lambda fine, coarse: memory  # type: ignore[method-assign]
        maps = compact.explain(FINE[:1], COARSE[:1]).attention
    assert maps[0, :, 2, 5].min() > 0.99


def test_a_coarse_tokens_share_goes_to_its_four_cells() -> None:
    attention = torch.zeros(1, 1, 4 * 6 + 2 * 3)
    attention[0, 0, 1 * 6 + 2], attention[0, 0, 24 + 1 * 3 + 2] = 0.25, 0.75  # row 1 and column 2 of either
    found = _on_fine_grid(attention, FINE, COARSE)[0, 0]
    expected = torch.zeros(4, 6)
    expected[1, 2] = 0.25
    expected[2:, 4:] = 0.75 / 4
    torch.testing.assert_close(found, expected)


def test_training_makes_no_maps() -> None:
    network = SGSegCompact().train()
    assert network.encode(torch.randn(2, 1, 64, 64)).attention is None
    assert network.eval().encode(torch.randn(2, 1, 64, 96)).attention.shape == (2, 6, 4, 6)
