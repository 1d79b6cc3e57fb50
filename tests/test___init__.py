import subprocess
import sys

import pytest

import unetkit


@pytest.mark.parametrize("name", unetkit.__all__)
def test_every_public_name_loads(name):
    assert getattr(unetkit, name).__name__ == name


def test_importing_is_light_until_a_name_is_used():
    program = (
        "import sys, unetkit\n"
        "heavy = {'torch', 'zarr', 'dask', 'numba', 'numpy', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "unetkit.open_image\n"
        "assert 'zarr' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = unetkit.nothing


def test_the_names_are_listed_before_they_are_loaded():
    assert set(unetkit.__all__) <= set(dir(unetkit))
    assert unetkit.__version__
