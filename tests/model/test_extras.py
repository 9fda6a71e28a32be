"""Optional packages: what is reported when one is missing."""

import pytest

from polymodal.model.errors import ModelError
from polymodal.model.extras import import_optional


def test_a_missing_package_is_reported_with_what_installs_it():
    message = "the package absent_package is not installed; pip install 'polymodal\\[speech\\]' brings it"
    with pytest.raises(ModelError, match=message):
        import_optional("absent_package", "polymodal[speech]")
