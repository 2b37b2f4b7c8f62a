"""One Label Studio server for all tests that need one."""

import pytest

from tests.label_studio import ADMIN, label_studio, second_user
from tests.review_world import ANNOTATORS


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    """The server, and the token of each user by e-mail: the administrator and three more."""
    with label_studio(tmp_path_factory.mktemp("label-studio")) as server:
        others = (ANNOTATORS[1], "cat@example.com", "dan@example.com")
        yield server, {ADMIN: server.token} | {email: second_user(server, email) for email in others}
