"""Websockets on which models are called: what is said there, and in which protocol.

`_talk` is what the protocols share; `_live` (Gemini's), `_mistral`, `_openai_live`, `_realtime`, `_responses`
and `_tasks` are one each. The wires of the websocket libraries report to them.
"""
