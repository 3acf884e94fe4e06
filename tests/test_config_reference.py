from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from bccd_d2.config import get_bccd_cfg
from bccd_d2.config_reference import configuration_keys, reference_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"


def leaves(node: CfgNode, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, CfgNode):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def test_every_key_of_ours_is_in_the_reference_with_its_default():
    ours, stock = leaves(get_bccd_cfg()), leaves(get_cfg())
    changed = {key for key, value in ours.items() if key not in stock or stock[key] != value}
    listed = {key.name: key.default for key in configuration_keys() if key.default}
    assert changed <= set(listed)
    assert set(listed) <= set(ours)
    for name, default in listed.items():
        assert eval(default) == ours[name], name


def test_the_committed_page_is_that_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run: python tools/config_reference.py"
