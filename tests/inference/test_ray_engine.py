"""A batch on two Ray workers, one of which is killed half-way."""

import os
import threading
import time
from dataclasses import replace

import cv2
import pytest

from bccd_d2.inference.batch import prepare_job, run_job
from bccd_d2.inference.collect import collect
from bccd_d2.inference.model_files import ModelFiles
from bccd_d2.inference.options import PredictionOptions
from bccd_d2.inference.ray_engine import run_job_on_ray
from bccd_d2.synthetic import draw_smear
from tests.inference.tiny_network import write_tiny_run

FORMATS = ("coco", "csv", "labels", "overlay")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight images, one of them broken, and a model."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "in").mkdir()
    for index in range(7):
        cv2.imwrite(str(folder / "in" / f"{index}.png"), draw_smear(index, 400, 300).image)
    (folder / "in" / "broken.png").write_bytes(b"\x89PNG\r\n")
    write_tiny_run(folder)
    return folder


def prepare(folder, output):
    model = ModelFiles(str(folder / "config.yaml"), str(folder / "model_final.pth"))
    return prepare_job([folder / "in"], folder / output, model, PredictionOptions(0.4), FORMATS)


def files(folder):
    """Content of every result, without the records, which say how long it took."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if "records" not in path.parts
    }


def kill_a_worker_after_the_first_image(output, killed):
    """Kill one of this process's own workers as soon as the first record is there."""
    import psutil

    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and not killed:
        if any((output / "records").glob("*.json")):
            for child in psutil.Process().children(recursive=True):
                if "PredictionWorker" in " ".join(child.cmdline()):
                    child.kill()
                    killed.append(child.pid)
                    break
        time.sleep(0.02)


def test_killed_workers_change_nothing_and_what_is_finished_stays(folder, monkeypatch):
    pytest.importorskip("ray", reason="Ray is absent: pip install 'bccd_d2[ray]'")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = prepare(folder, "alone")
    run_job(alone)
    expected = collect(alone.images, alone.outputs)

    together = prepare(folder, "together")
    assert len(together.pending) == 8
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker_after_the_first_image, args=(folder / "together", killed))
    killer.start()
    run_job_on_ray(together, workers=2)
    killer.join()
    assert len(killed) == 1 and killed[0] != os.getpid()
    found = collect(together.images, together.outputs)
    assert (found.counts, found.images) == (expected.counts, 7)
    assert sum(found.counts.cells.values()) > 20
    assert len(found.failures) == 1 and "broken.png" in found.failures[0]
    assert files(folder / "together") == files(folder / "alone")

    again = prepare(folder, "together")
    assert [name for _, name in again.pending] == ["broken.png"]
    run_job_on_ray(replace(again, pending=[]))  # nothing to do: no cluster is started
