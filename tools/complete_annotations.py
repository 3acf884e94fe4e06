"""Complete the annotations of a converted data set with a trained model.

--outlines draws the masks of annotated boxes (annotations marked "weak") with the model's mask head, which learned real
masks. --ignore-score marks cells that the model finds and no annotation covers as regions to ignore, so that training
does not take them for background. The new annotations name the same images; no image is copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bccd_d2  # noqa: F401  prepares Detectron2 and torch before they are imported

# isort: split
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bccd_d2.commands import CommandParser, refuse_to_replace, run_command
from bccd_d2.errors import InputError
from bccd_d2.files import write_json
from bccd_d2.inference.arguments import add_model_arguments, model_from
from bccd_d2.inference.completion import complete_annotations
from bccd_d2.inference.predictor import BCCDPredictor
from bccd_d2.io.coco_images import image_path, image_root, written_root
from bccd_d2.io.images import read_image
from bccd_d2.structures.coco import read_coco
from bccd_d2.structures.dataset_files import dataset_files

EXAMPLE = """example:
  python tools/convert_bccd.py --root BCCD --output datasets/voc_boxes --spec bccd_voc --official
  python tools/complete_annotations.py --data-root datasets/voc_boxes --output datasets/sources/voc --outlines \\
      --ignore-score 0.1
"""


def main(arguments: list[str] | None = None) -> None:
    """Write the completed parts."""
    parser = CommandParser(__doc__, EXAMPLE)
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="folder that tools/convert_bccd.py wrote"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the completed data set"
    )
    parser.add_argument("--outlines", action="store_true", help="draw weak masks again, from their boxes")
    parser.add_argument(
        "--ignore-score", type=float, metavar="S",
        help="predictions from this score on that no annotation covers become regions to ignore",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace annotations in --output")
    add_model_arguments(parser)
    given = parser.parse_args(arguments)
    if not given.outlines and given.ignore_score is None:
        raise InputError("nothing to do: expected --outlines, --ignore-score or both")
    sources = dataset_files(given.data_root)
    targets = {name: given.output / source.relative_to(given.data_root) for name, source in sources.items()}
    for target in targets.values():
        refuse_to_replace(target, given.overwrite)
    model = model_from(given)
    predictor = BCCDPredictor(model.config, model.weights, device=given.device)
    for name, source in sources.items():
        target, document = targets[name], read_coco(source)
        folder = image_root(document, source)
        with tqdm(total=len(document["images"]), desc=name, unit="image") as bar:

            def read(file_name: str, folder: Path = folder, bar: Any = bar) -> NDArray[np.uint8]:
                bar.update()
                return read_image(image_path(folder, file_name))

            document, counts = complete_annotations(
                document, read, predictor, outlines=given.outlines, ignore_score=given.ignore_score
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        info = {**document.get("info", {}), "image_root": written_root(folder, target.parent.parent)}
        write_json(target, {**document, "info": info})
        print(
            f"{name}: {counts['outlines']} outlines drawn, {counts['ellipses']} of them ellipses, "
            f"{counts['ignore']} regions to ignore: {target}"
        )


if __name__ == "__main__":
    run_command(main)
