"""load() draws no bar, and leaves transformers' bars as the user has them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from transformers.utils import logging

import flashsloth
from flashsloth.inference.load import no_progress_bar


@pytest.fixture(autouse=True)
def _hook_as_it_was() -> Iterator[None]:
    before = logging.set_tqdm_hook(None)
    yield
    logging.set_tqdm_hook(before)


def drawn(capfd: pytest.CaptureFixture[str], title: str) -> bool:
    list(logging.tqdm([1, 2], desc=title))
    return title in capfd.readouterr().err


def test_load_draws_nothing_and_changes_no_setting(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)
    assert drawn(capfd, "before")
    flashsloth.load(device="cpu")
    assert "Loading" not in "".join(capfd.readouterr())
    assert logging.is_progress_bar_enabled()
    assert drawn(capfd, "after")


def test_other_threads_keep_their_bars_and_hooks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "_tqdm_active", True)
    seen: list[Any] = []

    def users(factory: Any, args: Any, settings: Any) -> Any:
        seen.append(settings["desc"])
        return factory(*args, **settings)

    logging.set_tqdm_hook(users)
    with no_progress_bar(), no_progress_bar():
        assert not drawn(capfd, "inside")
        other = threading.Thread(target=lambda: list(logging.tqdm([1], desc="other")))
        other.start()
        other.join()
        assert "other" in capfd.readouterr().err
    assert drawn(capfd, "outside")
    assert seen == ["other", "outside"]
    with no_progress_bar():
        logging.set_tqdm_hook(None)  # the user's last word
    assert logging.set_tqdm_hook(None) is None
