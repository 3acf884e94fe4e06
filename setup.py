"""Packaging of bccd_d2.

The base installation is what converting data sets needs and contains no torch; ``train`` adds what Detectron2
needs; Detectron2 itself comes from ``bccd-setup`` (``tools/install_detectron2.py``) because no package index carries
it under its own name. A wheel holds tools/, configs/ and weights/ inside the package.
"""

from pathlib import Path

from setuptools import find_packages, setup

BASE = [
    "numpy>=2",
    "opencv-python-headless>=4.9",
    "scikit-image>=0.22",
    "scipy>=1.11",
    "pycocotools>=2.0.7",
    "Pillow>=10",
    "PyYAML>=6",
    "defusedxml>=0.7",
    "tifffile>=2023.7",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "tqdm>=4.66",
    "tabulate>=0.9",
    "fsspec>=2023.6",
]
TRAIN = [
    "torch>=2.3",
    "torchvision>=0.18",
    # The last release under MIT; its successor AlbumentationsX is AGPL.
    "albumentations==2.0.8",
    "timm>=1.0.9",
    "safetensors>=0.4",
    "shapely>=2",
    # Predictions: ImageJ's regions, the compressions of TIFF.
    "roifile>=2023.5",
    "imagecodecs>=2023.7",
    # What Detectron2 itself imports at run time.
    "fvcore>=0.1.5.post20221221",
    "iopath>=0.1.10",
    "yacs>=0.1.8",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
    "termcolor>=2",
    "cloudpickle>=2",
    "tensorboard>=2.12",
    "packaging>=23",
]
# OpenSlide itself (LGPL) comes with openslide-bin.
SLIDES = ["openslide-python>=1.3", "openslide-bin>=4"]
DICOM = ["pydicom>=3"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18"]
OPENVINO = ["onnx>=1.16", "openvino>=2024.4"]
# What tests a package of the BioImage Model Zoo, and runs it; bioimageio.spec 0.5.12 fails with pydantic 2.14.
BIOIMAGEIO = ["bioimageio.core>=0.9", "pydantic<2.14", *ONNX]
APP = ["starlette>=0.40", "uvicorn>=0.30"]
RAY = ["ray>=2.9"]
# PySide6 (LGPL) is Qt for napari; PyQt6 would be GPL. napari says which of its releases it cannot use.
NAPARI = ["napari>=0.5.6", "PySide6>=6.7,!=6.11.0,!=6.11.1", "pandas>=2.1"]
DOCS = ["zensical>=0.0.73", "mkdocstrings-python>=2"]
TEST = [
    *SLIDES,
    *DICOM,
    *ONNX,
    *OPENVINO,
    *APP,
    *RAY,
    # The page in a browser, which is Chromium or Chrome on the path; a worker to be killed, the memory of the page.
    "playwright>=1.40",
    "psutil>=5.9",
    # What reads our tables back.
    "pandas>=2.1",
    "pytest>=8",
    "pytest-timeout>=2.2",
    "pytest-xdist>=3.5",
    "hypothesis>=6.100",
]
LINT = [
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
    "types-tabulate",
    "types-tqdm",
    "types-defusedxml",
]

# Packages with the templates of a page.
PAGES = [
    "bccd_d2.audit",
    "bccd_d2.drawing",
    "bccd_d2.inference",
    "bccd_d2.inference.app",
    "bccd_d2.reporting",
]
# Folders beside the package that are installed inside it; bccd_d2.files.shipped_folder finds them in both places.
SHIPPED = ["configs", "configs/ablations", "configs/datasets", "configs/types", "tools", "weights"]
COMMANDS = ["app", "convert", "evaluate", "predict", "setup", "train"]

setup(
    name="bccd_d2",
    version="0.1.0",
    description="Instance segmentation of blood cells in stained smears with Detectron2",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["bccd_d2", "bccd_d2.*"])
    + [f"bccd_d2.{name.replace('/', '.')}" for name in SHIPPED],
    package_dir={f"bccd_d2.{name.replace('/', '.')}": name for name in SHIPPED},
    package_data={"": ["*.yaml", "*.safetensors", "*.md"]} | {name: ["templates/*"] for name in PAGES},
    entry_points={
        "console_scripts": [f"bccd-{name} = bccd_d2.commands:main" for name in COMMANDS],
        "napari.manifest": ["bccd_d2 = bccd_d2:napari.yaml"],
    },
    install_requires=BASE,
    extras_require={
        "train": TRAIN,
        "kaggle": ["kagglehub>=0.3"],
        "slides": SLIDES,
        "dicom": DICOM,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "bioimageio": BIOIMAGEIO,
        "app": APP,
        "ray": RAY,
        "napari": NAPARI,
        "docs": DOCS,
        "test": TEST,
        "lint": LINT,
        "dev": [*TEST, *LINT],
    },
)
