"""What takes long of a request is done beside the event loop, where it would keep all others waiting."""

from __future__ import annotations

import threading
from typing import Any

import httpx2
import pytest
from served import MODEL, PATIENCE, post, serving

from flashsloth.serving.chat import ChatReply

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


def test_log_probabilities_are_written_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 128 answers take seconds; here they take until somebody else was served."""
    served, writes = threading.Event(), threading.Event()
    whole = ChatReply.whole

    def waits(self: ChatReply, *args: Any) -> dict[str, Any]:
        writes.set()
        assert served.wait(PATIENCE)
        return whole(self, *args)

    monkeypatch.setattr(ChatReply, "whole", waits)
    with serving() as url:
        replies: list[httpx2.Response] = []
        body = {**CHAT, "logprobs": True, "top_logprobs": 2}
        asking = threading.Thread(target=lambda: replies.append(post(f"{url}/v1/chat/completions", body)))
        asking.start()
        assert writes.wait(PATIENCE)
        assert httpx2.get(f"{url}/health/live", timeout=PATIENCE).status_code == 200
        served.set()
        asking.join(PATIENCE)
        assert replies[0].json()["choices"][0]["logprobs"]["content"]
