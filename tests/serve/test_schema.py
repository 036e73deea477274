"""Every operation that the server's OpenAPI document offers, with what the document allows and what it does not."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from longtake.serve.app import ServerSettings, create_app
from tests.serve.serving import listening
from tests.tiny import write_model

pytestmark = [
    pytest.mark.slow,
    # the server's threads draw random numbers of their own, which hypothesis takes for the test's
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    model = write_model(tmp_path_factory.mktemp("model"))
    app = create_app(ServerSettings(folder=tmp_path_factory.mktemp("kept"), model=str(model), max_video_s=2.0))
    with listening(app) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


POLITE = (501, 503)  # not offered; no room
UNHURRIED = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
ASKED = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=UNHURRIED)


def test_no_request_is_a_fault_of_the_server(document: Any) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:

        @ASKED
        @given(case=operation.as_strategy())
        def asked(case: schemathesis.Case) -> None:
            answer = case.call()
            if answer.status_code in POLITE:
                assert answer.json()["error"]["message"]
            else:
                case.validate_response(answer, checks=[not_a_server_error])

        asked()
