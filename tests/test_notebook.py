"""What a notebook shows: tables as HTML, and a whole notebook that runs."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import fastconv as fc
from fastconv import layers
from fastconv.history import History
from fastconv.tables import html_table


def rows_of(html):
    """The cells of a table that is well-formed XML, as rows of text."""
    tree = ElementTree.fromstring(html.replace("<br>", "<br/>"))
    return [["".join(cell.itertext()) for cell in row] for row in tree.iter("tr")]


def model():
    return fc.Sequential(
        [layers.Input((4, 4, 1)), layers.Flatten(name="<b>&"), layers.Dense(2, name="out")], "net"
    )


def test_a_table_is_text_alone():
    html = html_table("<i>", ["a", "b"], [["<script>", "1.5"]], ["x\ny"])
    assert "<script>" not in html
    assert "<i>" not in html
    assert rows_of(html) == [["a", "b"], ["<script>", "1.5"]]
    assert html.count("text-align: right") == 2  # numbers, as in a table of text


def test_a_model_shows_its_summary(capsys):
    net = model()
    net.summary()
    text = capsys.readouterr().out
    rows = rows_of(net._repr_html_())
    assert rows[0][:3] == ["Layer (type)", "Output shape", "Parameters"]
    assert [row[0] for row in rows[1:]] == ["<b>& (Flatten)", "out (Dense)"]
    for row in rows[1:]:
        assert all(cell in text for cell in row)
    assert "trainable 34" in net._repr_html_()
    assert "not known yet" in fc.Sequential([layers.Dense(2)], "a<b")._repr_html_()


def test_a_history_shows_its_epochs():
    history = History()
    for epoch in range(50):
        history.on_epoch_end(epoch, {"loss": 1 / (epoch + 1), **({"v": 0.5} if epoch > 47 else {})})
    rows = rows_of(history._repr_html_())
    assert rows[0] == ["epoch", "loss"]
    assert rows[1] == ["1", "1"]
    assert rows[11][0] == "…"
    assert rows[-1] == ["50", "0.02"]
    assert "v: 0.5, 0.5" in history._repr_html_()


def test_a_profile_shows_its_layers():
    net = model()
    profile = net.profile(np.zeros((2, 4, 4, 1)), repeat=2)
    rows = rows_of(profile._repr_html_())
    assert rows[0][0] == "layer"
    assert rows[-1][0] == "total"
    assert {row[0] for row in rows} >= {"out"}
    assert len(profile.table().splitlines()) == len(rows) + 4


def test_a_notebook_runs_with_bars_and_pictures():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    cells = [
        "import numpy as np\nimport fastconv as fc\nfrom fastconv import layers, visualize\n"
        "net = fc.Sequential([layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, "
        "activation='softmax')])\nnet.compile('adam', 'sparse_categorical_crossentropy')",
        "net",
        "net.fit(np.eye(4).reshape(1, 4, 4, 1).repeat(8, 0), [0, 1] * 4, epochs=2)",
        "visualize.confusion_matrix([0, 1], [0, 1])",
    ]
    new = nbformat.v4
    notebook = new.new_notebook(cells=[new.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbclient.NotebookClient(notebook, timeout=120).execute()
    imported, shown, trained, drawn = [cell.outputs for cell in notebook.cells]
    assert imported == []
    assert "<table>" in shown[0].data["text/html"]
    streams = "".join(o.get("text", "") for o in trained)
    assert "Epoch 2/2" in streams
    assert not [o for o in trained if o.get("name") == "stderr"], streams
    widgets = [
        o for o in trained if "application/vnd.jupyter.widget-view+json" in o.get("data", {})
    ]
    assert widgets or re.search(r"1/1 .*loss: ", streams)
    assert "<table>" in trained[-1].data["text/html"]
    assert drawn[0].data["image/png"]
