"""Runs a notebook, and writes what it shows as a page of the documentation."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bccd_d2.errors import InputError
from bccd_d2.files import replacing

if TYPE_CHECKING:
    from nbformat import NotebookNode

PARAMETERS = "parameters"
"""Tag of the cell whose values a run may replace, as papermill has it."""


def execute(path: Path, parameters: Mapping[str, object] | None = None, timeout: int = 3600) -> NotebookNode:
    """Run a notebook from top to bottom in a kernel of this interpreter.

    Args:
        path: of the notebook, which is left as it is; its folder is the kernel's working directory.
        parameters: values by variable, assigned after the cell with the tag ``parameters``; what ``repr`` gives of
            them must be Python.
        timeout: seconds that a cell may take.

    Returns:
        The notebook with its outputs.

    Raises:
        InputError: nbclient or ipykernel is not installed, there are parameters and no cell of that tag, or a command
            that a cell started with ``%run`` failed.
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    try:
        import ipykernel  # noqa: F401
        import nbformat
        from jupyter_client.kernelspec import KernelSpecManager
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient
    except ModuleNotFoundError as error:
        raise InputError(f'{error}; running notebooks needs pip install "bccd_d2[docs]"') from error
    notebook = nbformat.read(path, as_version=4)
    if parameters:
        place = [i for i, cell in enumerate(notebook.cells) if PARAMETERS in cell.metadata.get("tags", [])]
        if not place:
            raise InputError(f"{path}: expected a cell with the tag {PARAMETERS!r}, found none")
        values = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        notebook.cells.insert(place[0] + 1, nbformat.v4.new_code_cell(values))
    # Without the kernels that a user has installed: one of them may be another interpreter under the same name.
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_spec_manager=specs, kernel_name="python3")
    client = NotebookClient(
        notebook, km=manager, timeout=timeout, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    # A command that ends with a status other than 0 shows an error and lets the notebook go on.
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise InputError(f"{path}: {output.ename} {output.evalue} of a command in:\n{cell.source}")
    return notebook


def write_page(notebook: NotebookNode, page: Path, figures: Path) -> None:
    """Write an executed notebook as Markdown: its text, its code, what it printed and showed.

    Left out are lines of Detectron2's log, which carry a time, and what goes to the standard error, such as progress.

    Args:
        notebook: with its outputs.
        page: Markdown file.
        figures: folder of its pictures, beside or below the page; they are numbered, and earlier ones removed.
    """
    for old in figures.glob("*.jpg"):
        old.unlink()
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if printed := _printed(cell):
            parts.append(f"```text\n{printed}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/jpeg" in data:
                path = figures / f"{1 + len(list(figures.glob('*.jpg')))}.jpg"
                with replacing(path) as temporary:
                    temporary.write_bytes(b64decode(data["image/jpeg"]))
                parts.append(f"![figure]({path.relative_to(page.parent).as_posix()})")
            elif "text/markdown" in data:
                parts.append(data["text/markdown"])
    with replacing(page) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _printed(cell: NotebookNode) -> str:
    """What a cell wrote to the standard output, without colours, lines that were overwritten, and the log."""
    text = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"[^\n]*\r", "", text)
    return re.sub(r"^\[\d\d/\d\d [\d:]+ [\w.]+\]: .*\n?", "", text, flags=re.M).strip("\n")
