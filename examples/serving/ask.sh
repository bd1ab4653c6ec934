#!/bin/sh
# Ask a FlashSloth server about a picture with curl.
#
#     sh ask.sh ../shapes.png "What color is the circle?"
#
# OPENAI_BASE_URL is the server's address, http://127.0.0.1:8000/v1 where it is not set; OPENAI_API_KEY its key, if any.
set -eu
picture=$1
question=$(printf '%s' "$2" | sed 's/[\\"]/\\&/g')
base=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}
model=${MODEL:-nano}

# The body comes from a pipe: a picture is longer than a command line may be.
{
  printf '{"model": "%s", "messages": [{"role": "user", "content": [' "$model"
  printf '{"type": "image_url", "image_url": {"url": "data:image/png;base64,'
  base64 < "$picture" | tr -d '\n'
  printf '"}}, {"type": "text", "text": "%s"}]}]}' "$question"
} | curl --silent --show-error --fail-with-body "$base/chat/completions" \
  -H "Content-Type: application/json" -H "Authorization: Bearer ${OPENAI_API_KEY:-none}" --data-binary @-
echo
