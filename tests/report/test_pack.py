import base64
import gzip
from importlib import resources

import pytest

from defectgen.report.pack import packed, packed_json, packed_viewer


def unpacked(text: str) -> str:
    """As a page's script does it."""
    return gzip.decompress(base64.b64decode(text)).decode("utf-8")


@pytest.mark.parametrize("text", ["", "v_S \u00c5\n", "</script><!--" * 50])
def test_texts_come_back(text: str) -> None:
    found = packed(text)
    assert unpacked(found) == text
    assert not set(found) & set("<>&\"'")
    assert packed(text) == found


def test_json_has_no_numbers_that_are_none() -> None:
    assert unpacked(packed_json({"a": [1.5, "\u00c5"]})) == '{"a":[1.5,"\u00c5"]}'
    with pytest.raises(ValueError, match="Out of range"):
        packed_json({"a": float("nan")})


def test_the_viewer_comes_with_its_licence_and_is_small() -> None:
    source = unpacked(packed_viewer())
    library = resources.files("defectgen.report").joinpath("assets", "3dmol", "3Dmol-min.js").read_text("utf-8")
    assert source.startswith("/*!\n")
    licence, _, rest = source.partition("\n*/\n")
    assert rest == library
    assert "Redistribution and use in source and binary forms" in licence
    assert "University of Pittsburgh" in licence
    assert len(packed_viewer()) < 250_000
