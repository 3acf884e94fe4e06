"""DICOM images are the same picture as in other formats; without pydicom they are named with the way out."""

import builtins
import sys

import cv2
import numpy as np
import pytest

from bccd_d2.errors import InputError
from bccd_d2.io.images import open_source, page_count, read_image, read_image_size

HEIGHT, WIDTH = 40, 60


def rgb():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([40 + 3 * x, 220 - 2 * y, 30 + x + y], axis=2).astype(np.uint8)


def write(path, pixels, photometric, bits=8, **elements):
    """One frame (height, width[, 3]) or several."""
    pydicom = pytest.importorskip("pydicom", reason="extra 'dicom' is not installed")
    from pydicom.uid import ExplicitVRLittleEndian, VLMicroscopicImageStorage, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = VLMicroscopicImageStorage, generate_uid()
    data.Rows, data.Columns = HEIGHT, WIDTH
    data.PhotometricInterpretation = photometric
    data.SamplesPerPixel = 3 if photometric in ("RGB", "YBR_FULL") else 1
    data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, 0
    for key, value in elements.items():
        setattr(data, key, value)
    data.PixelData = pixels.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def test_colours_and_the_size_of_a_pixel(tmp_path):
    path = write(tmp_path / "a.dcm", rgb(), "RGB", PixelSpacing=[0.00025, 0.00025])
    np.testing.assert_array_equal(read_image(path, "RGB"), rgb())
    assert read_image_size(path) == (HEIGHT, WIDTH)
    with open_source(path) as source:
        assert source.microns_per_pixel == pytest.approx(0.25)
        np.testing.assert_array_equal(source.read(5, 7, 20, 10), rgb()[7:17, 5:25, ::-1])


def test_luminance_and_chrominance_become_colours(tmp_path):
    ybr = cv2.cvtColor(rgb(), cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    path = write(tmp_path / "a", np.ascontiguousarray(ybr), "YBR_FULL")
    assert np.abs(read_image(path, "RGB").astype(int) - rgb()).max() <= 3


@pytest.mark.parametrize(("photometric", "reverse"), [("MONOCHROME2", False), ("MONOCHROME1", True)])
def test_grey_levels_of_twelve_bits(tmp_path, photometric, reverse):
    grey = np.tile(np.linspace(0, 2000, WIDTH).round().astype(np.uint16), (HEIGHT, 1))
    path = write(tmp_path / "a.dcm", 4095 - grey if reverse else grey, photometric, 12)
    np.testing.assert_array_equal(read_image(path)[..., 1], np.rint(grey / 4095 * 255))


def test_frames_are_pages(tmp_path):
    frames = np.stack([rgb(), rgb()[::-1]])
    path = write(tmp_path / "a.dcm", frames, "RGB", NumberOfFrames=2)
    assert page_count(path) == 2
    with open_source(path, page=1) as source:
        np.testing.assert_array_equal(source.read(0, 0, WIDTH, HEIGHT), frames[1, ..., ::-1])
    with pytest.raises(InputError, match="page 2 does not exist, found pages 0 to 1"):
        open_source(path, page=2)


def test_broken_files_and_those_without_an_image_are_refused(tmp_path):
    whole = write(tmp_path / "a.dcm", rgb(), "RGB")
    cut, empty = tmp_path / "cut.dcm", write(tmp_path / "report.dcm", rgb(), "RGB", Rows=0)
    cut.write_bytes(whole.read_bytes()[:-2000])
    for path in (cut, empty):
        with pytest.raises(InputError, match=path.name):
            read_image(path)
    with pytest.raises(InputError, match="more than the limit of 100 pixels"):
        open_source(whole, max_pixels=100)


def test_without_pydicom_the_way_out_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(100))
    import_module = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pydicom"):
            raise ImportError(name)
        return import_module(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for read in (read_image, read_image_size, page_count, open_source):
        with pytest.raises(InputError, match=r"a DICOM file, which needs pydicom.*OME-TIFF"):
            read(path)


def write_slide(folder, image, levels=1):
    """A whole slide in tiles of 32 pixels, each level half as large in a file of its own."""
    pydicom = pytest.importorskip("pydicom", reason="extra 'dicom' is not installed")
    series, paths = pydicom.uid.generate_uid(), []
    for level in range(levels):
        shown = image[:: 2**level, :: 2**level]
        height, width = shown.shape[:2]
        padded = np.pad(shown, ((0, -height % 32), (0, -width % 32), (0, 0)))
        tiles = padded.reshape(padded.shape[0] // 32, 32, -1, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
        spacing, shared = pydicom.Dataset(), pydicom.Dataset()
        spacing.PixelSpacing, spacing.SliceThickness = [0.00025 * 2**level] * 2, 0.001
        shared.PixelMeasuresSequence = [spacing]
        path = write(
            folder / f"level{level}.dcm", np.ascontiguousarray(tiles), "RGB",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6", SeriesInstanceUID=series, Modality="SM",
            StudyInstanceUID="1.2.3", FrameOfReferenceUID="1.2.4", DimensionOrganizationType="TILED_FULL",
            ImageType=["DERIVED" if level else "ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED" if level else "NONE"],
            Rows=32, Columns=32, NumberOfFrames=len(tiles), TotalPixelMatrixRows=height,
            TotalPixelMatrixColumns=width, SharedFunctionalGroupsSequence=[shared],
        )  # fmt: skip
        paths.append(path)
    return paths


@pytest.mark.parametrize("levels", [1, 2])
def test_a_whole_slide_is_one_image(tmp_path, levels, caplog):
    pytest.importorskip("openslide", reason="extra 'slides' is not installed")
    image = np.tile(rgb(), (3, 2, 1))
    for path in write_slide(tmp_path, image, levels):
        assert page_count(path) == 1
        with open_source(path) as source:
            assert (source.height, source.width) == image.shape[:2]
            assert source.microns_per_pixel == pytest.approx(0.25)
            np.testing.assert_array_equal(source.read(20, 30, 70, 60), image[30:90, 20:90, ::-1])
    assert ("give one file of a slide only" in caplog.text) == (levels > 1)


@pytest.mark.parametrize("read", [read_image, read_image_size, page_count, open_source])
def test_without_openslide_the_tiles_of_a_slide_are_no_images(tmp_path, read, monkeypatch):
    (path,) = write_slide(tmp_path, rgb())
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(
        InputError, match=r"level0\.dcm: a whole slide of 4 tiles.*bccd_d2\[slides\].*OME-TIFF"
    ):
        read(path)
