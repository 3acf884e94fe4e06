import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from bccd_d2.errors import InputError
from bccd_d2.notebook import execute, write_page


@pytest.fixture(autouse=True)
def no_settings_of_the_user(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_parameters_are_replaced_and_a_command_that_fails_ends_the_run(tmp_path):
    (tmp_path / "command.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    cells = [
        new_code_cell("status = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("%run command.py {status}\nprint('status', status)"),
    ]
    path = tmp_path / "notebook.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    assert execute(path).cells[-1].outputs[0].text == "status 0\n"
    with pytest.raises(InputError, match="SystemExit 3"):
        execute(path, {"status": 3})
    assert path.read_bytes() == before
    nbformat.write(new_notebook(cells=cells[1:]), path)
    with pytest.raises(InputError, match="'parameters'"):
        execute(path, {"status": 3})


def test_a_page_shows_text_code_what_was_printed_and_figures(tmp_path):
    picture = b"\xff\xd8 a picture"
    outputs = [
        new_output("stream", name="stdout", text="1 of 2\r2 of 2\n"),
        new_output("stream", name="stderr", text="progress"),
        new_output("stream", name="stdout", text="[11/24 12:57:55 d2.data.build]: a message\n"),
        new_output("stream", name="stdout", text="\x1b[32mdone\x1b[0m\n"),
        new_output("display_data", {"image/jpeg": base64.b64encode(picture).decode()}),
        new_output("execute_result", {"text/markdown": "| a |\n|---|", "text/plain": "<Markdown>"}),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# Title"), new_code_cell("work()", outputs=outputs)])
    old = tmp_path / "figures" / "9.jpg"
    old.parent.mkdir()
    old.write_bytes(b"")
    write_page(notebook, tmp_path / "page.md", tmp_path / "figures")
    assert (tmp_path / "page.md").read_text().split("\n\n") == [
        "# Title",
        "```python\nwork()\n```",
        "```text\n2 of 2\ndone\n```",
        "![figure](figures/1.jpg)",
        "| a |\n|---|\n",
    ]
    assert (tmp_path / "figures" / "1.jpg").read_bytes() == picture
    assert not old.exists()
