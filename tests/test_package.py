"""The package itself: cheap to import, and its public names."""

import subprocess
import sys

import pytest

import rockledge


def test_importing_and_running_never_needs_pytorch() -> None:
    code = (
        "import sys, rockledge; assert 'numpy' not in sys.modules;"
        "rockledge.Model, rockledge.Engine;"
        "assert not {'torch', 'scipy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_quantize_is_a_function() -> None:
    code = (
        "import inspect, rockledge; before = rockledge.quantize; import rockledge.quantization.pipeline;"
        "from rockledge import quantize; assert before is quantize is rockledge.quantize;"
        "assert inspect.isfunction(quantize) and 'bits' in inspect.signature(quantize).parameters"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    assert rockledge.__version__
    assert rockledge.Model.__module__ == "rockledge.runtime.model"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(rockledge, "nothing")  # noqa: B009
