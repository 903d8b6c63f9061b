"""SGSeg as published: shapes, the report table, explanations, pre-training, hub weights, a training run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from transformers import (  # noqa: E402
    BertTokenizer,
    ConvNextConfig,
    ConvNextModel,
    RTDetrForObjectDetection,
)

from sgseg.anatomy import N_ZONESETS, Laterality, ZoneSet  # noqa: E402
from sgseg.batch import describe  # noqa: E402
from sgseg.data.phantom import write_dataset  # noqa: E402
from sgseg.errors import ConfigError, ReportError  # noqa: E402
from sgseg.export import export_run  # noqa: E402
from sgseg.formats import zone_grid  # noqa: E402
from sgseg.inference import Identity, Predictor  # noqa: E402
from sgseg.models import SGSeg, SGSegCompact, repeat_features  # noqa: E402
from sgseg.models.sgseg.cxr_bert import REPORT_LENGTH, CXRBert, CXRBertConfig  # noqa: E402
from sgseg.models.sgseg.guided_decoder import (  # noqa: E402
    MIXED_TOKENS,
    GuidedDecoder,
    GuideLayer,
    StageAttention,
    sinusoids,
)
from sgseg.models.sgseg.rtdetr import mini as mini_detector  # noqa: E402
from sgseg.reports import NO_REPORT, Guidance, write  # noqa: E402
from sgseg.training import config as configs  # noqa: E402
from sgseg.training import hub, networks, run  # noqa: E402
from sgseg.training.losses import contrastive_loss, mask_words  # noqa: E402
from sgseg.training.module import StageModule  # noqa: E402
from sgseg.training.pretrained import minilm_tokenizer  # noqa: E402
from sgseg.training.runtime import TorchRuntime  # noqa: E402

REPORTS = [write(ZoneSet(index), Laterality.IMAGE) for index in range(N_ZONESETS)]
SMALL = ["data.root=.", "network.size=mini", "init=random"]


@pytest.fixture(scope="module")
def network() -> SGSeg:
    torch.manual_seed(0)
    mini, _ = networks.initial(configs.load("sgseg", SMALL))
    assert isinstance(mini, SGSeg)
    return mini.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(1))


# --- the network


def test_full_size() -> None:
    full = SGSeg()
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in full.named_children()}
    assert sizes == {
        "vision": 27_820_128,
        "text": 109_629_498,
        "report_table": 0,
        "decoder": 14_357_953,
        "lerg": 42_802_322,
    }
    with torch.no_grad():
        found = full.eval().explain(torch.randn(1, 1, 224, 224), torch.tensor([9]))
    assert found.logits.shape == (1, 1, 224, 224)
    assert found.zone_logits.shape == (1, 6)
    assert found.objects is not None and found.boxes is not None
    assert [stage.weights.shape[1:] for stage in found.stages] == [(24, 7, 7), (12, 14, 14), (9, 28, 28)]
    assert found.objects.shape == (1, 300)
    assert found.boxes.shape == (1, 300, 4)
    assert found.words().shape == (1, REPORT_LENGTH)


def test_the_longest_report_fits() -> None:
    lengths = [len(ids) for ids in minilm_tokenizer()(REPORTS)["input_ids"]]
    assert max(lengths) <= REPORT_LENGTH


def test_the_report_table_is_what_bert_says(network: SGSeg, images: torch.Tensor) -> None:
    ids, mask = networks.tokenize(minilm_tokenizer(), REPORTS)
    with torch.no_grad():
        features = network.encode(images).features
        table = network.report_encoder()
        assert table.shape == (N_ZONESETS + 1, REPORT_LENGTH, 128)
        for index in (0, 21, 63):
            looked_up = network.decode(features, torch.tensor([index, index]), table).sigmoid()
            rows = slice(index, index + 1)
            read = network.decode_text(features, ids[rows].expand(2, -1), mask[rows].expand(2, -1)).sigmoid()
            assert (looked_up - read).abs().max() <= 1e-5


def test_words_outside_the_grammar_guide_too(network: SGSeg, images: torch.Tensor) -> None:
    ids, mask = networks.tokenize(minilm_tokenizer(), ["opacity at the left base", "clear lungs"])
    with torch.no_grad():
        features = network.encode(images).features
        one = network.decode_text(features, ids, mask)
        other = network.decode_text(features, ids.flip(0), mask.flip(0))
    assert one.shape == (2, 1, 128, 128)
    assert not torch.equal(one, other)


def test_without_a_report_the_words_have_no_effect(network: SGSeg, images: torch.Tensor) -> None:
    with torch.no_grad():
        features = network.encode(images).features
        table = network.report_encoder()
        none = torch.full((2,), NO_REPORT)
        changed = table.clone()
        changed[NO_REPORT] = 7.0
        assert torch.equal(network.decode(features, none, table), network.decode(features, none, changed))
        guided = network.decode(features, torch.tensor([5, 5]), table)
    assert not torch.equal(network.decode(features, none, table), guided)


def test_mixed_guidance_in_one_batch_is_that_of_single_images(network: SGSeg, images: torch.Tensor) -> None:
    with torch.no_grad():
        features, table = network.encode(images).features, network.report_encoder()
        reports = torch.tensor([3, 3, NO_REPORT, NO_REPORT])
        both = network.decode(repeat_features(features, 2), reports, table)
        torch.testing.assert_close(both[:2], network.decode(features, reports[:2], table), atol=1e-5, rtol=0)
        torch.testing.assert_close(both[2:], network.decode(features, reports[2:], table), atol=1e-5, rtol=0)


def test_a_frozen_bert_is_read_once_and_drops_nothing_out() -> None:
    frozen = SGSeg(
        ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64]),
        CXRBertConfig(
            hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=99
        ),
        mini_detector(),
        freeze_text=True,
    ).train()
    assert not frozen.text.training
    assert frozen.vision.training
    assert not any(p.requires_grad for p in frozen.text.parameters())
    table = frozen.report_encoder()
    assert frozen.report_encoder() is table
    state = {name: tensor + 1 if name.startswith("text.bert") else tensor for name, tensor in
             frozen.state_dict().items()}  # fmt: skip
    frozen.load_state_dict(state)
    assert not torch.equal(frozen.report_encoder(), table)


def test_without_lerg_no_report_is_written(images: torch.Tensor) -> None:
    network = networks.build(configs.load("sgseg", ["network.lerg=false", "data.root=."]))
    assert isinstance(network, SGSeg)
    assert not network.writes_reports
    with torch.no_grad():
        assert network.eval().encode(images[:1]).zone_logits.isnan().all()
        explanation = network.explain(images, torch.tensor([1, 2]))
    assert explanation.zone_logits.isnan().all()
    assert (explanation.objects, explanation.boxes) == (None, None)
    torch.testing.assert_close(explanation.words().sum(1), torch.ones(2))


def test_a_model_without_lerg_never_says_no_infection() -> None:
    """What it does not know it must not write: neither "no infection." nor zones, and self is refused."""
    vision = ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64])
    text = CXRBertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
    network = SGSeg(vision, text, lerg=False)
    player = TorchRuntime(network, 64, Guidance.NONE, Identity("languidemedseg", "test", ""))
    predictor = Predictor(player)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    prediction = predictor.predict(pixels)
    assert (prediction.report, prediction.zones) == ("", None)
    assert np.isnan(prediction.zone_probabilities).all()
    assert np.isnan(prediction.finding_probability)
    entry = describe(prediction, Laterality.PATIENT)
    assert prediction.finding is entry["finding"] is entry["finding_probability"] is None
    assert predictor.predict(pixels, report="lower right lung").report.endswith("lower right lung.")
    for guidance in ("self", "self-soft"):
        with pytest.raises(ReportError, match="writes no report"):
            predictor.predict(pixels, guidance=guidance)
    zone_grid(prediction.zone_probabilities, 120)


def test_weights_that_know_transposed_images_are_played_upright() -> None:
    torch.manual_seed(0)
    network = SGSeg.mini()
    who = Identity("sgseg", "test", "")
    upright, turned = (TorchRuntime(network, 64, Guidance.SELF, who, transposed=t) for t in (False, True))
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64), dtype=np.uint8)
    report = np.array([5])
    a = turned.encode(image)
    b = upright.encode(image.transpose(0, 2, 1).copy())
    np.testing.assert_allclose(a.zones, b.zones, atol=1e-6)
    mask = turned.decode(a.features, report)
    np.testing.assert_allclose(mask.transpose(0, 2, 1), upright.decode(b.features, report), atol=1e-5)
    assert np.abs(mask - upright.decode(upright.encode(image).features, report)).max() > 1e-4


# --- the guided decoder


def test_sinusoids() -> None:
    positions = sinusoids(5, 6, torch.device("cpu")).numpy()
    for i in range(5):
        for c in range(3):
            angle = i / 10_000 ** (2 * c / 6)
            np.testing.assert_allclose(
                positions[i, 2 * c : 2 * c + 2], [np.sin(angle), np.cos(angle)], atol=1e-6
            )


def test_guidance_starts_as_a_whisper() -> None:
    layer = GuideLayer(16, 32, 12)
    assert layer.scale.item() == pytest.approx(0.01)
    assert [stage.guide.mix.out_channels for stage in GuidedDecoder((8, 16, 24, 32), 32).stages] == [
        *MIXED_TOKENS
    ]


def test_attention_is_handed_back_to_the_words_that_were_mixed() -> None:
    """Two mixed tokens: one is word 5, the other words 2 (three quarters) and 7 (one quarter)."""
    mixing = torch.zeros(2, REPORT_LENGTH)
    mixing[0, 5], mixing[1, 2], mixing[1, 7] = -2.0, 0.3, 0.1
    weights = torch.stack([torch.full((4, 4), 0.6), torch.full((4, 4), 0.4)])[None]
    words = StageAttention(weights, mixing).words()[0]
    expected = torch.zeros(REPORT_LENGTH)
    expected[5], expected[2], expected[7] = 0.6, 0.3, 0.1
    torch.testing.assert_close(words, expected)


def test_the_word_that_steers_is_the_important_one() -> None:
    """A layer that is built to listen to word 3 alone says that word 3 matters."""
    torch.manual_seed(0)
    layer = GuideLayer(16, 8, mixed_tokens=4)
    with torch.no_grad():
        layer.mix.weight.zero_()
        layer.mix.bias.zero_()
        for token, word in enumerate((3, 9, 11, 14)):
            layer.mix.weight[token, word] = 1
        # Keys are the projected tokens; make the first one the only key that the queries like.
        layer.cross_attn.in_proj_weight[16:32].zero_()
        layer.project.weight.zero_()
        layer.project.bias.zero_()
        layer.project.weight[:, 0] = 1
        layer.cross_attn.in_proj_weight[16:32] = torch.eye(16) * 50
        layer.cross_attn.in_proj_weight[:16].zero_()
        layer.cross_attn.in_proj_bias[:16] = 1
    report = torch.zeros(1, REPORT_LENGTH, 8)
    report[0, 3, 0] = 5.0
    _, weights = layer(torch.randn(1, 9, 16), report, torch.ones(1), need_weights=True)
    seen = StageAttention(weights.transpose(1, 2).unflatten(2, (3, 3)), layer.mix.weight[:, :, 0])
    assert seen.words().argmax() == 3
    assert seen.words()[0, 3] > 0.9


def test_explanations_sum_to_one_and_change_no_mask(network: SGSeg, images: torch.Tensor) -> None:
    reports = torch.tensor([3, 40])
    with torch.no_grad():
        explanation = network.explain(images, reports)
        logits, zones = network(images, reports)
    torch.testing.assert_close(explanation.logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(explanation.zone_logits, zones)
    for stage in explanation.stages:
        torch.testing.assert_close(stage.weights.sum(1), torch.ones_like(stage.weights[:, 0]))
    torch.testing.assert_close(explanation.words().sum(1), torch.ones(2))
    assert explanation.objects is not None and explanation.boxes is not None
    torch.testing.assert_close(explanation.objects.sum(1), torch.ones(2))
    assert (explanation.boxes >= 0).all()
    assert (explanation.boxes <= 1).all()


# --- pre-training


def test_contrastive_loss_of_distinct_reports_is_the_released_codes() -> None:
    image, report = torch.randn(6, 8), torch.randn(6, 8)
    a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (image, report))
    scores = 10 * a @ b.T
    expected = 0.0
    for s in (scores, scores.T):
        expected += -np.mean(np.diag(s) - np.log(np.exp(s).sum(1))) / 2
    assert float(contrastive_loss(image, report, torch.arange(6))) == pytest.approx(expected, abs=1e-5)


def test_contrastive_loss_of_no_image_is_nothing() -> None:
    none = torch.zeros(0, 8, requires_grad=True)
    loss = contrastive_loss(none, none, torch.zeros(0))
    loss.backward()
    assert loss.item() == 0


def test_contrastive_loss_takes_equal_reports_for_positives() -> None:
    report = torch.eye(4)[[0, 0, 1, 1]]
    same = torch.tensor([7, 7, 9, 9])
    right, wrong = report * 3, torch.eye(4)[[1, 1, 0, 0]] * 3
    assert contrastive_loss(right, report, same) < contrastive_loss(wrong, report, same) - 5
    # Sure of its two positives, the loss is that of choosing between them: log 2.
    assert float(contrastive_loss(right, report, same)) == pytest.approx(np.log(2), abs=1e-3)


def test_masked_words() -> None:
    tokenizer = minilm_tokenizer()
    ids, mask = networks.tokenize(tokenizer, REPORTS * 20)
    torch.manual_seed(0)
    special = tokenizer.all_special_ids
    hidden, labels = mask_words(ids, mask, special, tokenizer.mask_token_id, len(tokenizer))
    chosen = labels != -100
    words = mask.bool() & ~torch.isin(ids, torch.tensor(special))
    assert not (chosen & ~words).any()
    assert float(chosen[words].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert torch.equal(labels[chosen], ids[chosen])
    assert torch.equal(hidden[~chosen], ids[~chosen])
    assert float((hidden[chosen] == tokenizer.mask_token_id).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((hidden[chosen] == ids[chosen]).float().mean()) == pytest.approx(0.1, abs=0.03)


def test_cxr_bert_learns_the_words_of_reports() -> None:
    torch.manual_seed(0)
    tokenizer = minilm_tokenizer()
    ids, mask = networks.tokenize(tokenizer, REPORTS)
    bert = CXRBert(
        CXRBertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
    )
    optimizer = torch.optim.AdamW(bert.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        hidden, labels = mask_words(
            ids, mask, tokenizer.all_special_ids, tokenizer.mask_token_id, len(tokenizer)
        )
        loss = bert(input_ids=hidden, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 9  # of 30,522 words, none is known
    assert np.mean(losses[-5:]) < 3
    embedded = bert.embed(ids, mask)
    assert embedded.shape == (N_ZONESETS, 128)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(N_ZONESETS))


# --- hub weights


def _vocabulary(folder: Path) -> None:
    words = sorted({word.strip(",.") for report in REPORTS for word in report.split()})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, ",", "."]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints in the hub's own formats: safetensors, and CXR-BERT's pytorch_model.bin."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("hub")
    vision = ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64])
    ConvNextModel(vision).save_pretrained(root / "convnext-tiny-224")
    RTDetrForObjectDetection(mini_detector()).save_pretrained(root / "rtdetr_r50vd")
    text = root / "BiomedVLP-CXR-BERT-specialized"
    text.mkdir()
    _vocabulary(text)
    config = CXRBertConfig(
        vocab_size=len((text / "vocab.txt").read_text().split("\n")) - 1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    # As on the hub: its own class, with code that must not be run.
    published = config.to_dict() | {
        "auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"},
        "architectures": ["CXRBertModel"],
    }
    (text / "config.json").write_text(json.dumps(published))
    (text / "modeling_cxrbert.py").write_text("raise SystemExit('remote code was run')")
    torch.save(CXRBert(config).state_dict(), text / "pytorch_model.bin")
    return root


def test_hub_files_load(hub_folder: Path) -> None:
    stored = load_file(hub_folder / "convnext-tiny-224" / "model.safetensors")
    vision = hub.convnext(hub_folder).state_dict()
    assert all(torch.equal(vision[name], tensor) for name, tensor in stored.items())
    tokenizer, bert = hub.cxr_bert(hub_folder)
    assert isinstance(tokenizer, BertTokenizer)
    published = torch.load(
        hub_folder / "BiomedVLP-CXR-BERT-specialized" / "pytorch_model.bin", weights_only=True
    )
    assert all(torch.equal(bert.state_dict()[name], tensor) for name, tensor in published.items())
    ids, mask = networks.tokenize(tokenizer, REPORTS)
    assert tokenizer.unk_token_id not in ids
    with torch.no_grad():
        assert bert.read(ids, mask).shape == (N_ZONESETS, REPORT_LENGTH, 64)


def test_hub_weights_reach_the_network(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SGSeg(hub.convnext(hub_folder).config, hub.cxr_bert(hub_folder)[1].config, mini_detector())
    monkeypatch.setattr(networks, "build", lambda config: small)
    config = configs.load("sgseg", ["data.root=.", f"hub={hub_folder}"])
    network, said = networks.initial(config)
    assert said == []
    assert isinstance(network, SGSeg)
    assert network.lerg is not None
    for part, loaded in (
        (network.vision, hub.convnext(hub_folder)),
        (network.text, hub.cxr_bert(hub_folder)[1]),
        (network.lerg.detector, hub.rt_detr(hub_folder)),
    ):
        state = loaded.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in part.state_dict().items())
    ids, _ = networks.tokenize(hub.cxr_bert(hub_folder)[0], REPORTS)
    assert torch.equal(network.report_table.input_ids, ids)


def test_a_cache_of_the_hub_loads(hub_folder: Path, tmp_path: Path) -> None:
    cached = tmp_path / "models--facebook--convnext-tiny-224"
    snapshot = cached / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123456789abcdef")
    for file in (hub_folder / "convnext-tiny-224").iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    assert hub.convnext(tmp_path).config.hidden_sizes == [16, 32, 48, 64]


@pytest.mark.parametrize(
    ("load", "name", "file"),
    [
        (hub.convnext, "facebook/convnext-tiny-224", "model.safetensors"),
        (hub.cxr_bert, "microsoft/BiomedVLP-CXR-BERT-specialized", "vocab.txt"),
        (hub.rt_detr, "PekingU/rtdetr_r50vd", "model.safetensors"),
    ],
)
def test_missing_hub_files_are_named_with_their_place(load, name: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(hub.HubError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert f"https://huggingface.co/{name}" in message
    assert file in message
    assert str(tmp_path / name.split("/")[1]) in message


def test_cxr_bert_without_its_vocabulary_is_refused(hub_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "BiomedVLP-CXR-BERT-specialized"
    folder.mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (folder / name).write_bytes((hub_folder / folder.name / name).read_bytes())
    with pytest.raises(hub.HubError, match=r"vocab\.txt"):
        hub.cxr_bert(tmp_path)


def test_damaged_hub_files_are_an_error_of_ours(hub_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "convnext-tiny-224"
    folder.mkdir()
    (folder / "config.json").write_bytes((hub_folder / "convnext-tiny-224" / "config.json").read_bytes())
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(hub.HubError, match="convnext-tiny-224"):
        hub.convnext(tmp_path)


def test_offline_the_paper_model_starts_random_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise hub.HubError("the weights of facebook/convnext-tiny-224 cannot be loaded; download …")

    for name in ("convnext", "cxr_bert", "rt_detr"):
        monkeypatch.setattr(hub, name, unreachable)
    monkeypatch.setattr(networks, "build", lambda config: SGSeg.mini())
    _, said = networks.initial(configs.load("sgseg", ["data.root=."]))
    assert len(said) == 3
    assert all(line.startswith("RANDOM WEIGHTS") for line in said)
    with pytest.raises(hub.HubError):
        networks.initial(configs.load("sgseg", ["data.root=.", "hub=/nowhere"]))


# --- training


def test_configurations_that_make_no_sense_are_refused() -> None:
    for name, overrides, words in (
        ("sgseg-compact", ["network.size=mini"], "leave out the rest"),
        ("sgseg-mini", ["network.encoder=lite2"], "cannot be chosen"),
        ("sgseg", ["network.size=cpu"], "size"),
        ("sgseg", ["model=u-nett"], "unet"),
        ("sgseg", ["init=shipped"], "shipped"),
        ("sgseg", ["stages.1.objective=contrastive"], "last stage"),
    ):
        with pytest.raises(ConfigError, match=words):
            configs.load(name, [*overrides, "data.root=."])


def test_every_parameter_that_learns_is_in_one_group() -> None:
    for name, network in (("sgseg-mini", SGSeg.mini()), ("sgseg-compact", SGSegCompact())):
        config = configs.load(name, ["data.root=."])
        groups, rates = StageModule(network, config, 1, [])._parameter_groups()
        assert len(groups) == len(rates) == 4
        grouped = [id(p) for group in groups for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_only_some_networks_can_be_warmed_up(tmp_path: Path) -> None:
    write_dataset(tmp_path / "phantoms", {"train": 4, "valid": 2, "test": 0}, 10_000, 64)
    options = [f"data.root={tmp_path / 'phantoms'}", "stages.0.objective=contrastive"]
    with pytest.raises(ConfigError, match="no contrastive pre-training"):
        run.start(configs.load("sgseg-compact", options), tmp_path / "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sgseg-mini, trained on phantoms by the project's own command."""
    root = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGSEG_CACHE", str(root / "cache"))
        write_dataset(root / "phantoms", {"train": 160, "valid": 40, "test": 0}, 10_000, 96)
        overrides = [
            f"data.root={root / 'phantoms'}",
            "stages.0.size=64",
            "stages.0.epochs=2",
            "stages.1.size=64",
            "stages.1.epochs=14",
        ]
        run.start(configs.load("sgseg-mini", overrides), root / "run")
    return root / "run"


def test_the_paper_model_learns_phantoms(trained: Path) -> None:
    with (trained / "2-128px" / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["valid/dice_self"]) > 0.55
    assert float(last["valid/dice_text"]) > 0.6
    assert float(last["valid/zone_accuracy"]) > 0.6


def test_the_warm_up_draws_images_to_their_reports(trained: Path) -> None:
    with (trained / "1-warm-up" / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/contrastive_loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


def test_what_was_trained_can_be_played(trained: Path) -> None:
    player = TorchRuntime.of_run(trained)
    assert player.identity.name == "sgseg"
    encoded = player.encode(np.zeros((1, 64, 64), dtype=np.uint8))
    assert encoded.zones.shape == (1, 6)
    probability = player.decode(encoded.features, np.array([3]))
    assert probability.shape == (1, 64, 64)
    assert ((probability >= 0) & (probability <= 1)).all()


def test_export_says_that_it_is_for_the_compact_model(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--run"):
        export_run(trained, tmp_path / "artefact", tmp_path, "dev")
