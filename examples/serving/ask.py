"""Ask a FlashSloth server about a picture with OpenAI's client: whole, as a stream, and with what is beside OpenAI's.

    pip install openai
    python ask.py ../shapes.png "What color is the circle?"

OPENAI_BASE_URL is the server's address, http://127.0.0.1:8000/v1 where it is not set; OPENAI_API_KEY its key, if any.
"""

import base64
import mimetypes
import os
import sys

from openai import OpenAI

picture, question = sys.argv[1:]
kind = mimetypes.guess_type(picture)[0] or "image/png"
with open(picture, "rb") as file:
    url = f"data:{kind};base64,{base64.b64encode(file.read()).decode()}"
content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
messages = [{"role": "user", "content": content}]

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),  # the client wants one even where the server does not
)
model = client.models.list().data[0].id

reply = client.chat.completions.create(
    model=model,
    messages=messages,
    extra_body={"flashsloth": {"attention": "sap"}},  # where it looked: docs/http-interface.md
)
choice = reply.choices[0]
print(choice.message.content)
print(choice.finish_reason, reply.usage.completion_tokens, "tokens")
print("looked at a grid of", choice.flashsloth["attention"]["pictures"][0]["grid"])

for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="", flush=True)
print()
