"""The six zones, their two lateralities, the report grammar and the probabilities of reports."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgseg.anatomy import N_ZONESETS, ZONES, Laterality, Level, Side, Zone, ZoneSet
from sgseg.errors import ReportError
from sgseg.reports import NO_INFECTION, likeliest_reports, parse, report_probabilities, write

IMAGE, PATIENT = Laterality.IMAGE, Laterality.PATIENT

zonesets = st.builds(ZoneSet, st.integers(0, N_ZONESETS - 1))
lateralities = st.sampled_from(Laterality)
GRAMMAR = [
    *(level.word for level in Level),
    "all",
    "left",
    "right",
    "lung",
    "and",
    ",",
    ".",
    "two",
    "bilateral",
    "no",
    "infection",
]
probabilities = st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6)


def zones(bits: str) -> ZoneSet:
    return ZoneSet.from_vector([int(bit) for bit in bits])


# --- anatomy


def test_canonical_order() -> None:
    names = ["upper left", "middle left", "lower left", "upper right", "middle right", "lower right"]
    assert [zone.name(IMAGE) for zone in ZONES] == names
    assert [zone.position for zone in ZONES] == list(range(6))


@given(st.sampled_from(Side), lateralities)
def test_side_and_its_word(side: Side, laterality: Laterality) -> None:
    assert Side.from_word(side.word(laterality), laterality) is side
    assert side.word(IMAGE) != side.word(PATIENT)
    assert side.opposite.opposite is side


def test_patients_right_lung_is_at_the_images_left() -> None:
    assert Side.from_word("right", PATIENT) is Side.IMAGE_LEFT
    assert Side.from_word("left", IMAGE) is Side.IMAGE_LEFT


def test_word_that_is_no_side() -> None:
    with pytest.raises(ValueError, match="not a side: 'top'"):
        Side.from_word("top", IMAGE)


@given(zonesets)
def test_zoneset_vector_and_index(z: ZoneSet) -> None:
    assert ZoneSet.from_vector(z.vector) == z
    assert ZoneSet.of(z) == z
    assert ZoneSet(z.index) == z
    assert sum(bit << i for i, bit in enumerate(z.vector)) == z.index
    assert len(z) == sum(z.vector) == len(list(z))
    assert [zone in z for zone in ZONES] == [bool(bit) for bit in z.vector]
    assert z.sides == {side for side in Side if z.levels(side)}


@given(zonesets)
def test_flip_swaps_the_lungs(z: ZoneSet) -> None:
    assert z.flipped().vector == z.vector[3:] + z.vector[:3]
    assert z.flipped().flipped() == z


@pytest.mark.parametrize("index", [-1, 64])
def test_index_out_of_range(index: int) -> None:
    with pytest.raises(ValueError, match=f"not {index}"):
        ZoneSet(index)


def test_vector_of_another_length() -> None:
    with pytest.raises(ValueError, match="6 entries, not 5"):
        ZoneSet.from_vector([0] * 5)


def test_repeated_zones_count_once() -> None:
    zone = Zone(Side.IMAGE_LEFT, Level.LOWER)
    assert len(ZoneSet.of([zone, zone])) == 1
    assert "lower left" not in ZoneSet.of([zone])


# --- the grammar


@pytest.mark.parametrize("laterality", Laterality)
@pytest.mark.parametrize("index", range(N_ZONESETS))
def test_what_is_written_is_parsed_back(index: int, laterality: Laterality) -> None:
    assert parse(write(ZoneSet(index), laterality), laterality) == ZoneSet(index)


@given(zonesets)
def test_the_other_laterality_is_the_mirror_image(z: ZoneSet) -> None:
    assert write(z, PATIENT) == write(z.flipped(), IMAGE)
    assert parse(write(z, IMAGE), PATIENT) == z.flipped()


@pytest.mark.parametrize(
    ("bits", "laterality", "text"),
    [
        ("000000", IMAGE, "no infection."),
        ("001000", IMAGE, "unilateral pulmonary infection, one infected area, lower left lung."),
        ("001000", PATIENT, "unilateral pulmonary infection, one infected area, lower right lung."),
        ("000110", IMAGE, "unilateral pulmonary infection, two infected areas, upper middle right lung."),
        (
            "001001",
            IMAGE,
            "bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.",
        ),
        (
            "111011",
            PATIENT,
            "bilateral pulmonary infection, five infected areas, "
            "middle lower left lung and upper middle lower right lung.",
        ),
    ],
)
def test_exact_wording(bits: str, laterality: Laterality, text: str) -> None:
    assert write(zones(bits), laterality) == text


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("lower left lung", "001000"),
        ("Lower LEFT", "001000"),
        ("right lower zone", "000001"),
        ("upper and middle left lung", "110000"),
        ("upper, middle and lower left lung", "111000"),
        ("all left lung and upper right lung", "111100"),
        ("all left lung and all right lung.", "111111"),
        ("  lower   left lung ;  lower right lung ", "001001"),
        ("infection of the lower left lung", "001000"),
        ("2 infected areas, lower left lung and lower right lung", "001001"),
        (
            "Bilateral pulmonary infection, two infected areas, upper left lung and upper right lung.",
            "100100",
        ),
        ("lower left lung and lower left lung", "001000"),
        ("No pulmonary infection", "000000"),
        ("no infected areas.", "000000"),
    ],
)
def test_what_people_type(text: str, bits: str) -> None:
    assert parse(text, IMAGE) == zones(bits)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no zone"),
        (" ., ", "names no zone"),
        ("pulmonary infection", "names no zone"),
        ("bilateral pulmonary infection, two infected areas", "names no zone"),
        ("lower left lug", "unknown word, 'lug'"),
        ("trilateral infection, lower left lung", "unknown word, 'trilateral'"),
        ("no lower left lung", "unknown word, 'no'"),
        ("bilateral pulmonary infection, lower left lung", "it says 'bilateral' but names 1 zone"),
        ("unilateral, lower left lung and lower right lung", "it says 'unilateral' but names 2 zone"),
        ("three infected areas, lower left lung", "it says 'three' but names 1 zone"),
        ("7 infected areas, lower left lung", "it says '7' but names 1 zone"),
        ("lower lung", "does not say left or right"),
        ("lower zone and upper left lung", "does not say left or right"),
        ("upper left lung, lower", "does not say left or right"),
        ("left lung", "does not say upper, middle or lower"),
        ("left lung lower zone", "does not say upper, middle or lower"),
        ("lower right lung and left", "does not say upper, middle or lower"),
        ("lower left right lung", "two sides in one phrase"),
        ("left and right lower lung", "does not say upper, middle or lower"),
    ],
)
def test_what_is_not_understood(text: str, message: str) -> None:
    with pytest.raises(ReportError) as caught:
        parse(text, IMAGE)
    assert message in str(caught.value)
    assert repr(text) in str(caught.value)


def test_the_cure_is_an_example_that_works() -> None:
    with pytest.raises(ReportError) as caught:
        parse("", IMAGE)
    example = str(caught.value).split('"')[1]
    assert len(parse(example, IMAGE)) == 3
    assert NO_INFECTION in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_zones_or_a_report_error(text: str) -> None:
    try:
        parse(text, IMAGE)
    except ReportError as error:
        assert repr(text) in str(error)


@given(st.lists(st.sampled_from(GRAMMAR), max_size=8))
def test_any_words_of_the_grammar_are_zones_or_a_report_error(words: list[str]) -> None:
    try:
        found = parse(" ".join(words), IMAGE)
    except ReportError:
        return
    assert parse(write(found, IMAGE), IMAGE) == found


# --- probabilities of reports


def literal(p: np.ndarray) -> list[float]:
    """The product over zones, written out; the six taken as independent."""
    p = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return [
        prod(p[i] if bit else 1 - p[i] for i, bit in enumerate(ZoneSet(index).vector))
        for index in range(N_ZONESETS)
    ]


@given(st.lists(probabilities, min_size=1, max_size=4))
def test_probability_of_a_report_is_the_product_over_its_zones(rows: list[list[float]]) -> None:
    p = np.array(rows, dtype=np.float32)
    joint = report_probabilities(p)
    assert joint.shape == (len(rows), N_ZONESETS)
    assert joint.dtype == np.float32
    np.testing.assert_allclose(joint.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(joint, [literal(row) for row in p], rtol=1e-4, atol=1e-7)


def away_from_half(p: float) -> bool:
    return abs(p - 0.5) > 1e-3


@given(st.lists(st.floats(0, 1, width=32).filter(away_from_half), min_size=6, max_size=6), st.integers(1, 64))
def test_likeliest_report_is_the_zones_above_one_half(row: list[float], k: int) -> None:
    p = np.array([row], dtype=np.float32)
    order, weights = likeliest_reports(p, k)
    assert order.shape == weights.shape == (1, k)
    assert ZoneSet(int(order[0, 0])) == ZoneSet.from_vector([q > 0.5 for q in row])
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(weights[0]) <= 0).all()
    assert len(set(order[0].tolist())) == k


def test_certain_zones_are_certain_reports() -> None:
    z = zones("101001")
    joint = report_probabilities(np.array([z.vector], dtype=np.float32))
    assert joint[0, z.index] == pytest.approx(1, abs=1e-4)
    assert np.isfinite(joint).all()


def test_a_side_does_not_wait_for_its_level() -> None:
    """ "left, upper and lower right" could mean two things."""
    with pytest.raises(ReportError, match="does not say upper, middle or lower"):
        parse("left, upper and lower right", Laterality.PATIENT)


def test_an_absurd_count_is_a_contradiction() -> None:
    with pytest.raises(ReportError, match="contradicts itself"):
        parse("9" * 5000 + " areas, lower left lung", Laterality.PATIENT)
