"""The page over HTTP: what is found and corrected, who sees what, and what is refused."""

import csv
import io
import json
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from roifile import roiread

pytest.importorskip("uvicorn", reason="the page's server is absent")

from soak_page import Client, png

from bccd_d2.inference.app.server import EXAMPLES
from bccd_d2.inference.app.sessions import Limits, clean_name, safe_suffix
from bccd_d2.inference.writers import FORMATS
from bccd_d2.structures.coco import read_coco
from tests.inference.drawn_cells import NAMES
from tests.inference.page_server import LIMITS, TypesByClass, serving
from tools.convert_bccd import main as convert

RBC, WBC, PLATELET = range(3)
DOWNLOAD = f"/api/download?images=1&formats={','.join(FORMATS)}"


def squares(*sides):
    """Dark squares on a pale image of 150x100 pixels, 10 + 40 k from the left and 20 from above."""
    image = np.full((100, 150, 3), 220, np.uint8)
    for index, side in enumerate(sides):
        image[20 : 20 + side, 10 + 40 * index : 10 + 40 * index + side] = 40
    return image


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    limits = Limits(
        **vars(LIMITS) | {"sessions_per_client": 60, "requests_per_minute": 100_000, "sessions": 100}
    )
    with serving(tmp_path_factory.mktemp("page"), limits) as found:
        yield found


@pytest.fixture
def client(served):
    return Client(served[0])


@pytest.fixture
def field(client):
    """Path of a field with a square of 9x9 (class 0), of 20x20 (1) and of 30x30 pixels (2)."""
    (number,) = client.upload("my smear.png", png(squares(9, 20, 30))).json["fields"]
    assert client.wait()[str(number)]["state"] == "done"
    return f"/api/fields/{number}"


def cells_of(client, field):
    return client.get(f"{field}/cells").json["cells"]


def unzip(answer, folder):
    assert answer.status == 200, answer.content
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(folder)
        return archive.namelist()


def test_a_field_is_counted_and_its_cells_are_measured(client, field):
    (entry,) = client.fields().values()
    assert entry["name"] == "my smear" and entry["cells"] == dict(zip(NAMES, (1, 1, 1)))
    assert entry["edge"] == dict.fromkeys(NAMES, 0)
    small = next(cell for cell in cells_of(client, field) if cell["class"] == RBC)
    assert small["px"] == pytest.approx(2 * 9 / np.pi**0.5, abs=0.1) and small["um"] is None
    picture = cv2.imdecode(np.frombuffer(client.get(f"{field}/picture").content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (100, 150, 3)
    assert client.get(f"{field}/thumbnail").headers["content-type"] == "image/jpeg"


def test_filters_decide_what_counts_and_corrected_cells_always_do(client, field):
    assert client.fields("?smallest=15&largest=25")["1"]["cells"] == dict(zip(NAMES, (0, 1, 0)))
    large = next(cell for cell in cells_of(client, field) if cell["class"] == PLATELET)
    client.ask("PATCH", f"{field}/cells/{large['number']}", {"class": RBC})
    assert client.fields("?smallest=15&largest=25")["1"]["cells"] == dict(zip(NAMES, (1, 1, 0)))


@pytest.mark.parametrize(
    ("kind", "folder"), [("coco", "coco"), ("geojson", "geojson"), ("imagej", "roi"), ("labels", "labels")]
)
def test_what_was_corrected_is_read_back_from_the_download(client, field, tmp_path, kind, folder):
    by_class = {cell["class"]: f"{field}/cells/{cell['number']}" for cell in cells_of(client, field)}
    assert client.ask("PATCH", by_class[RBC], {"deleted": True}).json["cell"]["deleted"]
    assert client.ask("PATCH", by_class[WBC], {"class": PLATELET}).json["cell"]["corrected"]
    drawn = {"outline": [60, 60, 80, 60, 80, 75, 60, 75], "class": WBC}
    assert client.ask("POST", f"{field}/cells", drawn).json["cell"]["drawn"]
    assert client.fields()["1"]["corrected"] == 3
    names = unzip(client.get(DOWNLOAD), tmp_path / "zip")
    assert {"images/my smear.png", "predictions.json", "cells.csv", "counts.csv", "quality.csv"} <= set(names)
    assert (tmp_path / "zip/images/my smear.png").read_bytes() == png(squares(9, 20, 30))

    arguments = ["--root", tmp_path / "zip" / folder, "--images", tmp_path / "zip/images", "--from", kind]
    assert convert([*map(str, arguments), "--output", str(tmp_path / "data"), "--ratios", "1", "0", "0"]) == 0
    document = read_coco(tmp_path / "data/annotations/instances_train.json")
    classes = {category["id"]: category["name"] for category in document["categories"]}
    found = sorted((classes[a["category_id"]], a["area"]) for a in document["annotations"])
    expected = [("Platelet", 400), ("Platelet", 900), ("WBC", 300)]
    assert found == expected


def test_a_correction_can_be_undone_and_a_bad_one_is_refused(client, field):
    number = cells_of(client, field)[0]["number"]
    before = client.fields()
    for change in (
        {"deleted": True},
        {"deleted": False},
        {"class": 2},
        {"class": cells_of(client, field)[0]["class"]},
    ):
        assert client.ask("PATCH", f"{field}/cells/{number}", change).status == 200
    after = client.fields()
    assert after.pop("1") == before.pop("1") | {"version": 4}
    for bad in ({"class": 3}, {"class": "RBC"}, {"class": -1}, {"class": True}, {"class": [0]}):
        assert client.ask("PATCH", f"{field}/cells/{number}", bad).status == 400
    assert client.ask("PATCH", f"{field}/cells/99", {"deleted": True}).status == 400
    for outline in (
        [1, 2],
        [1, 2, 3, 4],
        "text",
        None,
        [0, 0, 1e300, 0, 5, 5],
        [1, 1, 2, 2, None, 3],
        [[1]],
        [500, 500, 600, 500, 600, 600],
    ):
        answer = client.ask("POST", f"{field}/cells", {"outline": outline, "class": 0})
        assert answer.status == 400 and answer.json["error"], outline
    assert client.ask("POST", f"{field}/cells", b"no json").status == 400
    assert client.ask("POST", f"{field}/cells", b"[" * 100_000).status == 400
    large = {"Content-length": "2000000"}  # refused before it is read
    assert client.ask("POST", f"{field}/cells", b" ", **large).status == 413
    assert client.fields()["1"]["cells"] == dict(zip(NAMES, (1, 1, 1)))


def test_fields_of_one_name_are_told_apart(client):
    """Names of files that look like pages, as the download has them, and pages of a file of that name."""
    stack = io.BytesIO()
    tifffile.imwrite(stack, np.stack([squares(20)[..., ::-1]] * 2), photometric="rgb")
    for name, content in (
        *[("a.page001.png", png(squares(20)))] * 2,
        ("A.tif", stack.getvalue()),
        ("a.png", png(squares(20))),
    ):
        assert client.upload(name, content).status == 201
    names = [entry["name"] for entry in client.wait().values()]
    assert names == ["a.page001", "a.page001 (2)", "A (2).page001", "A (2).page002", "a"]


def test_several_fields_and_their_variation(client):
    for sides in ((20, 20), (20, 20, 20, 20)):
        client.upload("same name.png", png(squares(*sides)))
    client.wait()
    state = client.get("/api/state").json
    assert [entry["name"] for entry in state["fields"].values()] == ["same name", "same name (2)"]
    wbc = state["total"][WBC]
    assert (wbc["cells"], wbc["mean"], wbc["sd"]) == (6, 3, pytest.approx(2**0.5))
    assert wbc["edge"] == 1  # the fourth square ends where the image does
    client.ask("DELETE", "/api/fields/1")
    assert [entry["name"] for entry in client.fields().values()] == ["same name (2)"]


def test_a_zip_and_the_pages_of_a_tiff_are_fields(client, tmp_path):
    stack, archive = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(stack, np.stack([squares(20)[..., ::-1], squares(20, 20)[..., ::-1]]), photometric="rgb")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("patient A/field 1.png", png(squares(20)))
        file.writestr("field 1.png", png(squares(20, 20)))
        file.writestr("stack.tif", stack.getvalue())
        file.writestr("__MACOSX/._field 1.png", b"clutter")
        file.writestr("notes.txt", b"these are notes")
    client.upload("slides.zip", archive.getvalue())
    fields = {entry["name"]: entry for entry in client.wait().values()}
    numbers = {name: entry["cells"]["WBC"] for name, entry in fields.items() if entry["state"] == "done"}
    assert numbers == {"patient A - field 1": 1, "field 1": 2, "stack.page001": 1, "stack.page002": 2}
    assert fields["notes"]["state"] == "failed" and fields["notes"]["error"].startswith("notes")
    names = unzip(client.get(DOWNLOAD), tmp_path)
    assert {"images/stack.page001.png", "images/patient A - field 1.png"} <= set(names)


def test_files_that_are_no_images_have_a_message(client, served):
    content = {
        "notes.png": b"these are notes",
        "empty.png": b"",
        "noise.tif": np.random.default_rng(0).bytes(5000),
        "cut.png": png(squares(20))[:200],
        "large.png": png(np.full((400, 400, 3), 200, np.uint8)),
    }
    for name, data in content.items():
        assert client.upload(name, data).status == 201
    for entry in client.wait().values():
        assert entry["state"] == "failed"
        assert entry["error"].startswith(entry["name"]) and str(served[1].folder) not in entry["error"]
    assert "400x400 pixels" in client.fields()["5"]["error"]
    for path in (DOWNLOAD, "/api/report"):
        assert client.get(path).json == {"error": "no field is finished yet"}


def zipped(compression=zipfile.ZIP_DEFLATED, **entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("_png", ".png").replace("_zip", ".zip"), content)
    return file.getvalue()


def test_zip_bombs_and_damaged_zips_are_refused_whole(client, served):
    bomb = zipped(good_png=png(squares(20)), bomb_png=b"\0" * 5_000_000)
    assert len(bomb) < 20_000
    lying = bomb.replace((5_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    encrypted = bytearray(zipped(a_png=b"x"))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    damaged = bytearray(zipped(zipfile.ZIP_LZMA, a_png=bytes(1000)))
    damaged[45:60] = b"\xff" * 15
    for content, message in (
        (bomb, "bomb.png: this page accepts images of 0.4 MB"),
        (lying, ""),
        (zipped(**{"../a_png": b"x"}), "a path out of the zip"),
        (zipped(inner_zip=zipped(a_png=b"x")), "a zip in a zip"),
        (zipped(**{f"f{k}_png": b"x" for k in range(7)}), "holds 7 files, this page accepts 6"),
        (zipped(), "holds no files"),
        (bomb[:-40], "cannot be read"),
        (bytes(encrypted), "encrypted"),
        (bytes(damaged), "the zip cannot be read"),
    ):
        answer = client.upload("images.zip", content)
        assert answer.status in (400, 413) and message in answer.json["error"]
    assert client.fields() == {}
    assert not [path for path in served[1].folder.rglob("*") if path.is_file() and path.suffix == ".zip"]


def test_each_client_sees_its_own_fields_alone(served):
    """Four clients at once, whose fields have the same numbers."""
    address, _ = served
    sides = {"anna": (20,), "ben": (20, 20), "cleo": (20, 20, 20), "dora": ()}

    def use(name):
        client = Client(address)
        for index in range(3):
            assert client.upload(f"{name} {index}.png", png(squares(*sides[name]))).status == 201
        fields = client.wait()
        counts = {entry["name"]: entry["cells"]["WBC"] for entry in fields.values()}
        assert counts == {f"{name} {index}": len(sides[name]) for index in range(3)}
        with zipfile.ZipFile(io.BytesIO(client.get(DOWNLOAD).content)) as archive:
            content = "".join(archive.namelist()) + archive.read("cells.csv").decode()
        report = client.get("/api/report").content.decode()
        for other in sides:
            assert (other in content) == (other in report) == (other == name)
        return client

    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(use, sides))
    (cookie,) = clients[0].cookies
    assert len(cookie.value) > 40 and cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite").lower() == "strict"
    for forged in ("", "x" * 43, "../..", cookie.value[:-1], cookie.value.swapcase()):
        stranger = Client(address)
        for path in ("", "/cells", "/picture", "/thumbnail"):
            answer = stranger.ask(
                "DELETE" if not path else "GET", f"/api/fields/1{path}", Cookie=f"bccd_d2_session={forged}"
            )
            assert answer.status == 404
    assert len(clients[0].fields()) == 3


def test_no_path_leads_out_of_the_page(client, field):
    for path in (
        "/..%2f..%2fetc%2fpasswd",
        "/app.html",
        "/smear_report.html",
        "/%2e%2e/setup.py",
        "/api/fields/..%2f1/picture",
    ):
        assert client.get(path).status == 404
    headers = client.get("/").headers
    assert (
        "default-src 'self'" in headers["content-security-policy"] and headers["cache-control"] == "no-store"
    )
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("name", "clean", "suffix"),
    [
        ("smear 1.PNG", "smear 1", ".png"),
        ("../../etc/passwd", "etc - passwd", ""),
        ("C:\\images\\a.tif", "C_ - images - a", ".tif"),
        ("..", "image", ""),
        ("", "image", ""),
        ("x" * 300 + ".jpg", "x" * 100, ".jpg"),
        ("Ärzte 5 µm (2).tiff", "Ärzte 5 µm (2)", ".tiff"),
        ("ä" * 90 + "/" + "b" * 90 + ".png", "ä" * 28 + " - " + "b" * 90, ".png"),
    ],
)
def test_names_are_made_safe(name, clean, suffix):
    assert (clean_name(name), safe_suffix(name)) == (clean, suffix)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("./\\: ")), max_size=40))
def test_no_name_leads_elsewhere(name):
    clean = clean_name(name) + safe_suffix(name)
    assert Path(clean).name == clean and clean[0] not in ". " and not set('/\\:<>"|?*\0\n') & set(clean)


def test_limits_of_uploads_requests_and_sessions(tmp_path):
    limits = Limits(**vars(LIMITS) | {"sessions_per_client": 2, "requests_per_minute": 120})
    image = png(squares(20))
    with serving(tmp_path, limits) as (address, sessions):
        client = Client(address)
        heavy = client.upload("heavy.bmp", b"\0" * 500_000)
        assert heavy.status == 413 and heavy.json["error"].startswith("heavy.bmp: larger than the 0.4 MB")
        assert chunked(address, b"\0" * 500_000) == 413
        client = Client(address)
        assert [client.upload("a.png", image).status for _ in range(7)] == [201] * 6 + [413]
        client.ask("DELETE", "/api/session")
        assert [Client(address).upload("a.png", image).status for _ in range(3)] == [201, 201, 413]
        assert sum(path.is_file() for path in sessions.folder.rglob("image*")) == 2
        time.sleep(1)
        answers = [client.get("/app.css").status for _ in range(60)]
        assert answers[0] == 200 and answers[-1] == 429


def chunked(address, body):
    """Status of an upload that does not say how long it is."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /api/files?name=a.png HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        return int(connection.recv(100).split()[1])


def test_what_was_uploaded_is_deleted(tmp_path):
    with serving(tmp_path) as (address, sessions):
        client, other = Client(address), Client(address)
        for one in (client, other):
            one.upload("a.png", png(squares(20)))
            one.wait()
        client.ask("DELETE", "/api/session")
        assert client.fields() == {} and len(list(tmp_path.iterdir())) == 1
        session = sessions.get(next(iter(other.cookies)).value)
        sessions.expire()
        assert len(other.fields()) == 1
        session.used -= 60 * LIMITS.minutes_kept + 1
        sessions.expire()
        assert other.fields() == {} and not list(tmp_path.iterdir())


def test_a_password_opens_the_page_and_nothing_else_does(tmp_path):
    with serving(tmp_path, secret="open sesame") as (address, _):
        client = Client(address)
        assert b'name="password"' in client.get("/").content
        for method, path in (
            ("GET", "/api/state"),
            ("POST", "/api/examples"),
            ("POST", "/api/files"),
            ("GET", "/api/fields/1/cells"),
            ("GET", "/api/download"),
            ("GET", "/api/report"),
            ("DELETE", "/api/session"),
        ):
            assert client.ask(method, path, b"" if method == "POST" else None).status == 401
        assert client.ask("POST", "/login", b"password=sesame").status == 403
        assert client.get("/?token=open").status == 403
        assert not list(client.cookies)
        assert b"Add images" in client.ask("POST", "/login", b"password=open+sesame").content
        assert client.upload("a.png", png(squares(20))).status == 201
        other = Client(address)
        assert b"Add images" in other.get("/?token=open%20sesame").content and other.fields() == {}
        guesses = [Client(address).ask("POST", "/login", b"password=x").status for _ in range(12)]
        assert guesses[0] == 403 and guesses[-1] == 429


def test_the_smear_report_has_all_fields_and_their_flags(client, field):
    client.upload("empty field.png", png(squares()))
    client.wait()
    assert "mostly empty" in client.fields()["2"]["flags"]
    number = cells_of(client, field)[0]["number"]
    client.ask("PATCH", f"{field}/cells/{number}", {"deleted": True})
    answer = client.get("/api/report?score=0.4")
    text = answer.content.decode()
    assert answer.status == 200 and "my smear" in text and "empty field" in text and "mostly empty" in text
    assert "1 cells" in text and "dark things" in text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_types_are_shown_and_follow_the_class(tmp_path):
    with serving(tmp_path, typer=TypesByClass()) as (address, _):
        client = Client(address)
        client.upload("a.png", png(squares(9, 20, 30)))
        client.wait()
        assert client.get("/api/state").json["total"][WBC]["types"] == {"monocyte": 1}
        cells = {cell["class"]: cell for cell in cells_of(client, "/api/fields/1")}
        assert (cells[WBC]["type"], cells[WBC]["probability"], cells[PLATELET]["type"]) == (
            "monocyte",
            0.9,
            "",
        )
        changed = client.ask("PATCH", f"/api/fields/1/cells/{cells[WBC]['number']}", {"class": RBC}).json[
            "cell"
        ]
        drawn = client.ask(
            "POST", "/api/fields/1/cells", {"outline": [60, 60, 80, 60, 80, 75], "class": WBC}
        ).json["cell"]
        assert (changed["type"], drawn["type"]) == ("normal", "monocyte")
        names = unzip(client.get("/api/download?formats=coco,csv"), tmp_path / "zip")
        assert "differential.csv" in names and "images/a.png" not in names
        document = json.loads((tmp_path / "zip/coco/a.json").read_text())
        assert sorted(a.get("attributes", {}).get("type", "") for a in document["annotations"]) == [
            "",
            "monocyte",
            "normal",
            "normal",
        ]


def test_a_type_that_a_visitor_says_is_in_every_format(tmp_path):
    with serving(tmp_path, typer=TypesByClass()) as (address, _):
        client = Client(address)
        client.upload("a.png", png(squares(9, 20, 30)))
        client.wait()
        classes = client.get("/api/state").json["classes"]
        finest = "immature granulocyte: myelocyte"
        assert classes[WBC]["types"] == ["monocyte", "immature granulocyte", finest, "other"]
        assert classes[PLATELET]["types"] == []
        before = client.fields()["1"]
        numbers = {cell["class"]: cell["number"] for cell in cells_of(client, "/api/fields/1")}

        def say(name, **change):
            return client.ask("PATCH", f"/api/fields/1/cells/{numbers[name]}", change)

        cell = say(WBC, type=finest).json["cell"]
        assert (cell["type"], cell["probability"], cell["typed"], cell["corrected"]) == (
            finest,
            1,
            True,
            True,
        )
        assert client.fields()["1"]["types"]["WBC"] == {"immature granulocyte": 1}
        # As the classifier had it; a new class has no use for a type that was of the old one.
        assert say(WBC, type=None).json["cell"]["type"] == "monocyte"
        assert client.fields()["1"] == before | {"version": 2}
        assert say(WBC, type=finest).json["cell"]["type"] != say(WBC, **{"class": RBC}).json["cell"]["type"]
        assert say(WBC, **{"class": WBC, "type": finest}).json["cell"]["type"] == finest
        for name, bad in ((WBC, "teardrop"), (WBC, ""), (WBC, 3), (WBC, [finest]), (PLATELET, "monocyte")):
            answer = say(name, type=bad)
            assert answer.status == 400 and "expected" in answer.json["error"]

        unzip(client.get("/api/download?formats=coco,csv,geojson,roi"), tmp_path / "zip")
        with (tmp_path / "zip/cells.csv").open(newline="") as file:
            (row,) = (row for row in csv.DictReader(file) if row["class"] == "WBC")
        said = {"type": "immature granulocyte", "type_probability": 1.0, "subtype": "myelocyte"}
        assert {name: row[name] for name in said} == {name: str(value) for name, value in said.items()}
        document = json.loads((tmp_path / "zip/coco/a.json").read_text())
        assert said in [a.get("attributes") for a in document["annotations"]]
        features = json.loads((tmp_path / "zip/geojson/a.geojson").read_text())["features"]
        names = [feature["properties"]["classification"]["name"] for feature in features]
        assert "WBC: immature granulocyte" in names
        regions = [roi.name for roi in roiread(tmp_path / "zip/roi/a.zip")]
        assert f"WBC-{int(row['id']):04d} (immature granulocyte)" in regions
        assert "immature granulocyte: myelocyte" in (tmp_path / "zip/differential.csv").read_text()


def test_a_page_without_types_refuses_one(client, field):
    answer = client.ask("PATCH", f"{field}/cells/0", {"type": "monocyte"})
    assert answer.status == 400 and "--types" in answer.json["error"]


def test_examples_are_synthetic_smears(client, monkeypatch):
    monkeypatch.setattr("bccd_d2.inference.app.server.example_image", lambda name: png(squares(20)))
    assert len(client.ask("POST", "/api/examples", b"").json["fields"]) == len(EXAMPLES)
    assert [entry["name"] for entry in client.wait().values()] == list(EXAMPLES)
