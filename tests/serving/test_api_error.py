"""What is told of an error is short and one line, whatever a client wrote."""

from __future__ import annotations

from flashsloth.serving.api_error import MOST_MESSAGE, MOST_PARAM, invalid


def test_a_short_one_stays_as_it_is() -> None:
    error = invalid("n is 0; expected more", "n", "invalid_value")
    told = {"message": "n is 0; expected more", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}
    assert error.body == {"error": told}
    assert invalid("something").param is None


def test_a_long_one_is_cut_and_stays_one_line() -> None:
    error = invalid("a\n" * MOST_MESSAGE, "b" * (MOST_PARAM + 1))
    assert len(error.message) == MOST_MESSAGE
    assert "\n" not in error.message
    assert error.message.endswith("…")
    assert error.param == "b" * (MOST_PARAM - 1) + "…"
    assert len(invalid("a" * MOST_MESSAGE).message) == MOST_MESSAGE
    assert "…" not in invalid("a" * MOST_MESSAGE).message
