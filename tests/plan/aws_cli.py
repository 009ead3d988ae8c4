"""Executes a command of the AWS CLI with botocore, the library below the CLI. Arguments: the endpoint, the command."""

import shlex
import sys

import botocore.session
from botocore import xform_name

endpoint, command = sys.argv[1:]
program, service, operation, *words = shlex.split(command)
assert (program, service) == ("aws", "elasticache"), command
words = iter(words)
assert next(words) == "--region", command
region = next(words)
client = botocore.session.Session().create_client(
    service, region_name=region, endpoint_url=endpoint, aws_access_key_id="AKIATEST", aws_secret_access_key="test"
)
method = operation.replace("-", "_")
members = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method]).input_shape.members
flags = {xform_name(name, "-"): name for name in members}
parameters = {}
for word in words:
    flag = word.removeprefix("--")
    name = flags.get(flag) or flags[flag.removeprefix("no-")]
    is_switch = members[name].type_name == "boolean"
    parameters[name] = flag in flags if is_switch else next(words)
getattr(client, method)(**parameters)
