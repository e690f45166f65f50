"""Configs → config.pbtxt, through Triton's own protobuf schema.

Run as a script by the Python of an environment that has tritonclient, so that the schema, and
protobuf with it, need not be installed beside llmdyno itself. A key that Triton does not know or a
value of a wrong type is an error here, not a riddle in the server's log.

    python pbtxt.py write REPOSITORY < {"MODEL": {config}, …}
    python pbtxt.py read REPOSITORY > {"MODEL": {config}, …}
"""

import json
import sys
from pathlib import Path


def write(repository: Path) -> None:
    """Write a config.pbtxt into each model's folder."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    for name, config in json.load(sys.stdin).items():
        message = json_format.ParseDict(config, model_config_pb2.ModelConfig())
        text = text_format.MessageToString(message)
        (repository / name / "config.pbtxt").write_text(text, "utf-8")


def read(repository: Path) -> None:
    """Print the configs of all models of a repository as one JSON object, by model."""
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    found = {}
    for file in sorted(repository.glob("*/config.pbtxt")):
        message = text_format.Parse(file.read_text("utf-8"), model_config_pb2.ModelConfig())
        found[file.parent.name] = json_format.MessageToDict(
            message, preserving_proto_field_name=True
        )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]))
