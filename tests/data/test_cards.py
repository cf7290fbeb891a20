import pytest
import yaml

from defectgen.data.asset_cards import get_card, load_cards, package_folder, parse_card, safe_relative_path
from defectgen.errors import DefectgenError, UsageError

SMALL = {
    "name": "small",
    "kind": "dataset",
    "title": "a data set",
    "licence": "MIT",
    "citations": [{"text": "A work", "doi": "10.1000/182"}],
    "source": "a test",
    "files": ["a.csv"],
    "get": {"how": "folder", "advice": "Ask."},
}


def card_text(**changes: object) -> str:
    return yaml.safe_dump(SMALL | changes)


def test_installed_cards_describe_the_known_assets() -> None:
    cards = load_cards()
    assert list(cards) == ["2dmd", "2dmd-pilot", "materials-project", "mp20", "smollm2-135m"]
    assert [card.kind for card in cards.values()] == ["dataset", "dataset", "dataset", "dataset", "model"]
    assert {path.stem for path in package_folder("defectgen_datasets").glob("*.yaml")} == set(cards)


def test_2dmd_has_eight_sets_of_seven_files_and_an_object_for_each_folder_and_target() -> None:
    card = load_cards()["2dmd"]
    expected = card.expected_files()
    assert len(expected) == 8 * 7
    assert "csv_cif/low_density_defects/MoS2/unit_cells/*.cif" in expected
    assert card.get.how == "store"
    folders = [entry.path for entry in card.get.objects if entry.is_folder]
    targets = [entry.path for entry in card.get.objects if not entry.is_folder]
    assert folders == [f"csv_cif/{part}" for part in card.sets]
    assert targets == [f"processed/{part}/targets.csv.gz" for part in card.sets]
    assert len({entry.md5 for entry in card.get.objects}) == 16


def test_expected_files_without_sets_are_the_patterns() -> None:
    assert parse_card(card_text(files=["b.csv", "a.csv"]), "small.yaml").expected_files() == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"license": "MIT"}, "license"),
        ({"kind": "text"}, "kind"),
        ({"citations": [{"text": "A work", "doi": "182"}]}, "citations.0.doi"),
        ({"citations": []}, "citations"),
        ({"files": ["../a.csv"]}, "files.0"),
        ({"get": {"how": "mail"}}, "get"),
        ({"get": {"how": "folder"}}, "get.folder.advice"),
        ({"sets": ["x"]}, "the whole card"),
    ],
)
def test_a_broken_card_is_one_line_with_card_and_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(DefectgenError) as error:
        parse_card(card_text(**changes), "small.yaml")
    assert str(error.value).startswith(f"card small.yaml, {field}: ")
    assert "\n" not in str(error.value)


def test_a_card_that_is_not_yaml_or_has_another_name_is_refused() -> None:
    with pytest.raises(DefectgenError, match=r"^card small\.yaml is not valid YAML"):
        parse_card("name: [", "small.yaml")
    with pytest.raises(DefectgenError, match=r"card other\.yaml, name: got 'small'"):
        parse_card(card_text(), "other.yaml")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"expected one of 2dmd, 2dmd-pilot, materials-project, mp20, smollm2-135m"):
        get_card("2DMD")


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../x", "a//x", "", "./x", "C:/x", "a\\..\\x", "a/\nx"])
def test_a_path_that_leaves_its_folder_is_not_safe(path: str) -> None:
    with pytest.raises(ValueError, match="expected a relative one"):
        safe_relative_path(path)


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(DefectgenError, match="defectgen_nothing is missing"):
        package_folder("defectgen_nothing")
