#!/usr/bin/env bash
# Ask a server about a picture with curl: an answer as a stream, and closed questions with probabilities.
#
# flashsloth serve &
# examples/serve/ask.sh photo.png "What color is the circle?"
set -euo pipefail
picture=${1:-$(dirname "$0")/../shapes.png}
question=${2:-What color is the circle?}
address=${FLASHSLOTH_URL:-http://127.0.0.1:8000}
model=${FLASHSLOTH_MODEL:-nano}
data="data:image/*;base64,$(base64 <"$picture" | tr -d '\n')"

post() { # the body comes on stdin: a picture is too long for a command line
  curl --silent --show-error --fail-with-body --no-buffer "$address$1" \
    --header "Content-Type: application/json" --header "Authorization: Bearer ${FLASHSLOTH_KEY:-none}" --data @-
}

post /v1/chat/completions <<JSON
{"model": "$model", "stream": true, "messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "$data"}}, {"type": "text", "text": "$question"}]}]}
JSON

post /v1/systemone <<JSON
{"model": "$model", "images": ["$data"], "questions": {
  "color": {"type": "choice", "instructions": "$question", "criteria": {"red": null, "green": null, "blue": null}},
  "star": {"type": "noul", "instructions": "Is there a yellow star?"}}}
JSON
