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


def test_reports_show_what_they_print(tmp_path):
    net = model()
    net.compile("sgd", "mse")
    net.save_weights(tmp_path / "w.npz")
    for report in (
        net.load_weights(tmp_path / "w.npz"),
        net.memory(2),
        net.export(tmp_path / "m.onnx"),
        fc.check_gradients(layers.Dense(2, name="<b>"), input_shape=(3,)),
    ):
        assert repr(report) == str(report)
        tree = ElementTree.fromstring(report._repr_html_())
        assert tree.tag == "pre"
        assert "".join(tree.itertext()) == str(report)


def test_learning_rates_show_some_of_them():
    net = model()
    net.compile("sgd", "mse")
    found = fc.find_learning_rate(net, np.ones((64, 4, 4, 1)), np.ones((64, 2)), steps=20)
    rows = rows_of(found._repr_html_())
    assert rows[0] == ["learning rate", "loss", "smoothed"]
    assert (len(rows), rows[1][0], rows[-1][0]) == (11, "1e-06", f"{found.rates[-1]:.3g}")
    assert f"suggestion: {found.suggestion:.2g}" in found._repr_html_()


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


NET = (
    "import numpy as np\nimport fastconv as fc\nfrom fastconv import layers, visualize\n"
    "net = fc.Sequential([layers.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, "
    "activation='softmax')])\n"
    "net.compile('adam', 'sparse_categorical_crossentropy', metrics=['accuracy'])\n"
    "x, y = np.eye(4).reshape(1, 4, 4, 1).repeat(8, 0), [0, 1] * 4"
)


def run(*cells):
    """A notebook in which these cells have been run."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    new = nbformat.v4
    notebook = new.new_notebook(cells=[new.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbclient.NotebookClient(notebook, timeout=120).execute()
    return notebook


def text_of(outputs):
    assert not [o for o in outputs if o.get("name") == "stderr"], outputs
    return "".join(o.get("text", "") for o in outputs)


def test_a_notebook_runs_with_pictures_and_bars_of_text():
    pytest.importorskip("matplotlib")
    notebook = run(
        "import sys\nsys.modules['ipywidgets'] = None\n" + NET,
        "net",
        "net.fit(x, y, epochs=2, validation_data=(x, y))",
        "visualize.confusion_matrix([0, 1], [0, 1])",
    )
    imported, shown, trained, drawn = [cell.outputs for cell in notebook.cells]
    assert imported == []
    assert "<table>" in shown[0].data["text/html"]
    lines = text_of(trained).replace("\r", "\n").splitlines()
    assert "Epoch 2/2" in lines
    last = [line for line in lines if line.startswith("1/1")][-1]
    assert re.search(r" - loss: .* - val_loss: \d\.\d{4}", last), lines
    assert max(map(len, lines)) <= 100
    assert "<table>" in trained[-1].data["text/html"]
    assert drawn[0].data["image/png"]


def test_a_notebook_with_widgets_shows_a_bar():
    pytest.importorskip("ipywidgets")
    notebook = run(NET, "net.fit(x, y, epochs=1, batch_size=2, verbose=1);",
                   "net.evaluate((x[i:i+1], y[i:i+1]) for i in range(3));")  # fmt: skip
    _, trained, evaluated = [cell.outputs for cell in notebook.cells]
    assert text_of(trained).split() == ["Epoch", "1/1"]
    assert text_of(evaluated) == ""
    view = "application/vnd.jupyter.widget-view+json"
    states = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    for outputs, count in ((trained, 4), (evaluated, 3)):
        (box,) = [o["data"][view]["model_id"] for o in outputs if view in o.get("data", {})]
        left, bar, right = [
            states[child.removeprefix("IPY_MODEL_")]["state"]
            for child in states[box]["state"]["children"]
        ]
        assert bar["_model_name"] == "FloatProgressModel"
        assert (bar["value"], bar["max"], bar["bar_style"]) == (count, count, "success")
        assert left["value"].split() == [f"{count}/{count}"]
        assert re.search(r"ms/step.*accuracy:.*loss:.*images/s", right["value"])
        assert "━" not in left["value"] + right["value"]
