"""How a conversation is written: the published prompt as a chat template.

In: messages (`role` user, assistant or system; `content` text or a list of `{"type": "image"}` and
`{"type": "text", "text": ...}`). Out: the prompt's text, in which placeholders stand by structure:

    <image>        one picture
    <learnable>    one turn's query tokens
    QUESTION_START an invisible mark: from here to the turn's queries is the question. It becomes no token.

    {system} USER: <image>\\n{question}<learnable> ASSISTANT: {answer}</s>USER: {question}<learnable> ASSISTANT:

The first turn's question begins after the newline behind the picture; where no picture stands first, it begins after
`USER:`, with the third token after the previous answer's `</s>`, as the published training code counts.
"""

from __future__ import annotations

IMAGE_TOKEN = "<image>"
QUERY_TOKEN = "<learnable>"
QUESTION_START = "\ue0f0"
"""A private-use character: marks where a question begins; never tokenized."""
ESCAPE = "\ue0f1"
"""A private-use character: the character after it is the user's own, whatever it would mean otherwise."""

SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

_TEMPLATE = """\
{%- set system = '@SYSTEM@' -%}
{%- set turns = messages -%}
{%- if messages and messages[0]['role'] == 'system' -%}
  {%- set turns = messages[1:] -%}
  {%- if messages[0]['content'] is string -%}
    {%- set system = messages[0]['content'] -%}
  {%- else -%}
    {%- set system = messages[0]['content'] | map(attribute='text') | join -%}
  {%- endif -%}
{%- endif -%}
{{- '@BOS@' -}}
{%- if system -%}{{- system + ' ' -}}{%- endif -%}
{%- for message in turns -%}
  {%- if message['role'] == 'user' -%}
    {%- if message['content'] is string -%}
      {%- set parts = [{'type': 'text', 'text': message['content']}] -%}
    {%- else -%}
      {%- set parts = message['content'] -%}
    {%- endif -%}
    {%- set place = namespace(marked=false) -%}
    {{- 'USER:' -}}
    {%- if not parts or parts[0]['type'] != 'image' -%}
      {{- '@QUESTION_START@' -}}
      {%- set place.marked = true -%}
    {%- endif -%}
    {{- ' ' -}}
    {%- for part in parts -%}
      {%- if part['type'] == 'image' -%}
        {{- '@IMAGE@\\n' -}}
      {%- elif part['type'] == 'text' -%}
        {%- if not place.marked -%}
          {{- '@QUESTION_START@' -}}
          {%- set place.marked = true -%}
        {%- endif -%}
        {{- part['text'] -}}
      {%- else -%}
        {{- raise_exception('content of type ' ~ part['type'] ~ ': expected image or text') -}}
      {%- endif -%}
    {%- endfor -%}
    {%- if not place.marked -%}{{- '@QUESTION_START@' -}}{%- endif -%}
    {%- if space_before_queries is defined and space_before_queries -%}{{- ' ' -}}{%- endif -%}
    {{- '@QUERY@' -}}
  {%- elif message['role'] == 'assistant' -%}
    {{- ' ASSISTANT:' -}}
    {%- generation -%}
      {%- if message['content'] is string -%}
        {{- ' ' + message['content'] -}}
      {%- else -%}
        {{- ' ' + (message['content'] | map(attribute='text') | join) -}}
      {%- endif -%}
      {{- eos_token -}}
    {%- endgeneration -%}
  {%- else -%}
    {{- raise_exception('role ' ~ message['role'] ~ ': expected user, assistant, or system as the first') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- ' ASSISTANT:' -}}{%- endif -%}
"""

PLAIN_TEMPLATE = """\
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}
    {%- for part in message['content'] if part['type'] == 'image' -%}{{- '@IMAGE@' -}}{%- endfor -%}
  {%- elif message['role'] == 'assistant' -%}
    {%- generation -%}
      {%- if message['content'] is string -%}
        {{- message['content'] -}}
      {%- else -%}
        {{- message['content'] | map(attribute='text') | join -}}
      {%- endif -%}
      {{- '\\n' -}}
    {%- endgeneration -%}
  {%- endif -%}
{%- endfor -%}
""".replace("@IMAGE@", IMAGE_TOKEN)
"""Stage 1's: `<image>{caption}\\n`, no words of the user's, no query tokens (they stand nowhere they could learn)."""


def chat_template(system_prompt: str = SYSTEM_PROMPT, bos_token: str = "") -> str:
    """The conversation template, a Jinja text.

    Args:
        system_prompt: what opens a conversation that brings no system message of its own; may be empty.
        bos_token: what the language model expects before everything; empty for most.
    """
    values = {
        "@SYSTEM@": system_prompt.replace("\\", "\\\\").replace("'", "\\'"),
        "@BOS@": bos_token,
        "@QUESTION_START@": QUESTION_START,
        "@IMAGE@": IMAGE_TOKEN,
        "@QUERY@": QUERY_TOKEN,
    }
    template = _TEMPLATE
    for name, value in values.items():
        template = template.replace(name, value)
    return template
