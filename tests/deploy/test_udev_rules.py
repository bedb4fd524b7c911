"""The udev rules, held against a recorded sysfs tree by the semantics of udev(7)."""

import re
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pytest

RULES = Path(__file__).parents[2] / "deploy/udev/60-rockledge-npu.rules"
TREE = Path(__file__).with_name("sysfs_tree.txt")
OF_THE_NPU = {"card1", "renderD129", "accel0"}
OWN, PARENTS = {"KERNEL", "SUBSYSTEM"}, {"KERNELS": "KERNEL", "SUBSYSTEMS": "SUBSYSTEM", "DRIVERS": "DRIVER"}


def tree():
    """Every device by its path: the values that rules can match."""
    lines = [line.split() for line in TREE.read_text().splitlines() if line and not line.startswith("#")]
    return {
        PurePosixPath(path): {
            "KERNEL": PurePosixPath(path).name,
            "SUBSYSTEM": subsystem.strip("-"),
            "DRIVER": "" if driver == "-" else driver,
        }
        for path, subsystem, driver in lines
    }


def rules(text):
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield re.findall(r'(\w+)(==|=)"([^"]*)"', line)


def reaches(rule, path, devices):
    """Whether a rule is applied: keys in the plural must all match at one device, this or one above it."""
    matches = [(key, pattern) for key, operator, pattern in rule if operator == "=="]
    assert {key for key, _ in matches} <= OWN | set(PARENTS)
    if not all(fnmatchcase(devices[path][key], pattern) for key, pattern in matches if key in OWN):
        return False
    chain = [devices[place] for place in (path, *path.parents) if place in devices]
    above = [(PARENTS[key], pattern) for key, pattern in matches if key in PARENTS]
    return any(all(fnmatchcase(device[key], pattern) for key, pattern in above) for device in chain)


def opened(text):
    devices = tree()
    return {
        path.name
        for path in devices
        for rule in rules(text)
        if ("GROUP", "=", "render") in rule and reaches(rule, path, devices)
    }


def test_the_nodes_of_the_npu_and_no_others_belong_to_the_group():
    assert opened(RULES.read_text()) == OF_THE_NPU


@pytest.mark.parametrize(
    "keys, expected",
    [
        ('DRIVERS=="rocket"', set()),  # bound to the cores, which are not above the node
        ('KERNELS=="rknn", SUBSYSTEMS=="accel"', set()),  # each matches, at different devices
        ('KERNELS=="rknn", SUBSYSTEMS=="platform"', {"accel0"}),
        ('SUBSYSTEMS=="accel"', {"accel0", "accel1"}),  # the device itself counts
    ],
)
def test_what_stands_above_a_node_must_match_at_one_device(keys, expected):
    assert opened(f'SUBSYSTEM=="accel", KERNEL=="accel*", {keys}, GROUP="render"') == expected
