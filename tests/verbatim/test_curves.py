import xml.etree.ElementTree as ET

import pytest

from verbatim import curves

SVG = "{http://www.w3.org/2000/svg}"
ROWS = [
    {"epoch": e, "train_loss": 2 / e, "validation_loss": 3 / e, "validation_accuracy": e / 9, "lr": 0.1}
    for e in range(1, 9)
]


def drawn(path):
    return ET.parse(path).getroot()


def test_each_column_is_a_line_in_the_panel_of_its_kind(tmp_path):
    curves.write(tmp_path / "c.svg", ROWS, title="a & b")
    root = drawn(tmp_path / "c.svg")
    lines = list(root.iter(f"{SVG}polyline"))
    texts = [e.text for e in root.iter(f"{SVG}text")]

    assert [len(line.get("points").split()) for line in lines] == [8, 8, 8]
    assert {"a & b", "train loss", "validation loss", "validation accuracy", "epoch"} <= set(texts)
    assert len(list(root.iter(f"{SVG}rect"))) == 1 + 2


@pytest.mark.parametrize("rows", [[], ROWS[:1], [{"epoch": 1, "loss": 0.0}, {"epoch": 2, "loss": 0.0}]])
def test_few_or_flat_values_are_still_a_picture(tmp_path, rows):
    curves.write(tmp_path / "c.svg", rows, title="t")

    assert drawn(tmp_path / "c.svg").tag == f"{SVG}svg"
    assert "nan" not in (tmp_path / "c.svg").read_text()


def test_larger_values_are_drawn_higher(tmp_path):
    curves.write(tmp_path / "c.svg", [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 2.0}], title="t")
    (line,) = drawn(tmp_path / "c.svg").iter(f"{SVG}polyline")
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.get("points").split())

    assert x1 < x2
    assert y1 > y2
