"""What a Triton model repository of ours is made of.

The front (fronts/triton.py) writes a repository and starts tritonserver on it; everything else is
here. In the order of a request:

    preprocessing.py    text → token ids
    openvino.py         token ids → token ids, streamed: the embedded engine as a Triton model
    postprocessing.py   token ids → text
    bls.py              the three in a row, called by a Python model instead of an ensemble
    wire.py             tensors of a request to values, values to tensors

and for the server itself:

    repository.py       which models, with which config and files; writes them
    chain.py            the configs of the models of ours
    backends/NAME.py    what an engine needs: its repository, its container
    install.py          the tritonserver
    pbtxt.py            configs → config.pbtxt through Triton's own protobuf schema
    launcher.py         keeps an eye on the server and its Python processes

A model directory holds one line that imports its class from here, so these files are linted, typed
and tested as all others. What they import of Triton they import late: it is there in a Triton
process only.
"""
