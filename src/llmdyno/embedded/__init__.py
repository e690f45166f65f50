"""The embedded engine: OpenVINO GenAI on the CPU behind an OpenAI-compatible server of our own.

It is there so that every part of llmdyno works on any machine, without a GPU and without a network.
A request goes down this list and its tokens come back up:

    server.py      HTTP: `python -m llmdyno.embedded.server`
    openai_api.py  what a request may ask for, and how the answer is written
    engine.py      the server's end of the worker (metrics.py counts what passes)
    messages.py    what the two processes say to each other
    worker.py      the engine, in a process of its own because a step holds Python's lock
    pipeline.py    the library: token ids in, token ids out (Triton's engine model is here too)
    pieces.py      token ids → text that never ends inside a character or a stop string

    model.py       before all that: a model's name → files (written here, on disk, or fetched)
"""
