"""A proxy that records: live traffic goes through it unchanged, and becomes a trace.

heads.py rewrites the head of a request, relay.py passes one client's bytes on and back, proxy.py
listens and hands what has passed to the scribe, a process of its own: so neither decoding nor
hashing delays a byte. Which requests are recorded is in protocols.py. scribe.py writes a line for
each (lines.py): what was asked (prompts.py, and stored.py where the server has the rest of it),
what came back (answers.py), in which conversation it belongs (conversations.py), and never what was
said, unless the user wants it.
"""
