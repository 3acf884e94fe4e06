"""Time and memory of a training step of the models in configs/, against Mask R-CNN R50-FPN.

A step is forward, backward and SGD on a crop of 512x512 with 25 cells of 90 px, on one thread of the CPU. The time is
the CPU's, of the shortest of several steps; the memory is what the process took at most beyond what it had before the
model was built. Each model has a process of its own. Alone it compares masks of 28x28 and 56x56; --all compares every
model.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
Row = tuple[str, list[str]]
REFERENCE: Row = ("mask_rcnn_R_50_FPN", [])
FINE: Row = ("mask_rcnn_R_50_FPN_fine_masks", [])
OTHERS: list[Row] = [
    ("mask_rcnn_R_18_FPN_lite", []),
    ("mask_rcnn_slim_FPN_lite", []),
    ("mask_rcnn_R_50_FPN_scratch", []),
    ("cascade_mask_rcnn_R_50_FPN", []),
    ("mask_rcnn_R_101_FPN", []),
    ("mask_rcnn_X_101_32x8d_FPN", []),
    ("mask_rcnn_ConvNeXt_T_FPN", []),
    ("mask_rcnn_UNI_ViT_L_SFP", []),
]
SIDE, CELL = 512, 90


def measure(name: str, options: list[str], steps: int) -> dict[str, float]:
    """Build a model in this process and take training steps."""
    import bccd_d2.modeling  # registers its backbones

    # isort: split
    import torch
    from detectron2.modeling import build_model
    from detectron2.structures import BitMasks, Instances
    from detectron2.utils.events import EventStorage

    from bccd_d2.config import load_config

    assert bccd_d2.modeling
    torch.manual_seed(0)
    torch.set_num_threads(1)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    centres = [50 + 100 * k for k in range(5)]
    masks = torch.stack([(x - cx) ** 2 + (y - cy) ** 2 < (CELL / 2) ** 2 for cx in centres for cy in centres])
    image = torch.randint(180, 255, (3, SIDE, SIDE), dtype=torch.uint8)
    image[:, masks.any(0)] //= 2
    instances = Instances((SIDE, SIDE))
    instances.gt_masks = BitMasks(masks)
    instances.gt_boxes = BitMasks(masks).get_bounding_boxes()
    instances.gt_classes = torch.zeros(len(masks), dtype=torch.long)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = build_model(load_config(CONFIGS / f"{name}.yaml", ["MODEL.DEVICE", "cpu", *options]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    seconds = []
    with EventStorage():
        for _ in range(steps):
            start = time.process_time()
            optimizer.zero_grad()
            torch.stack(list(model([{"image": image, "instances": instances}]).values())).sum().backward()
            optimizer.step()
            seconds.append(time.process_time() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters / 1e6, "seconds": min(seconds), "memory": memory / 1024**2}


def main() -> None:
    """Measure each model in a process of its own and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="every model, not only the finer masks")
    parser.add_argument("--steps", type=int, default=3, help="of each model (default 3)")
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], options.one[1:], options.steps)))
        return
    rows = []
    for name, changes in [REFERENCE, FINE, *(OTHERS if options.all else [])]:
        command = [sys.executable, __file__, "--steps", str(options.steps), "--one", name, *changes]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append((" ".join([name, *changes]), *json.loads(output.splitlines()[-1]).values()))
    first = rows[0]
    table = [(*row, row[2] / first[2], row[3] / first[3]) for row in rows]
    headers = ("model", "M parameters", "CPU s a step", "GB", "time ratio", "memory ratio")
    print(tabulate(table, headers=headers, floatfmt=("", ".1f", ".2f", ".2f", ".2f", ".2f")))


if __name__ == "__main__":
    main()
