"""Reads a platform's file from standard input, checks it against the platform's own schemas, and writes it as JSON. For Kubernetes, the JSON
is a list of the file's documents.

    schemas.py kubernetes|compose|ecs|policy|terraform|workflow
"""
import importlib.resources, json, os, subprocess, sys, tempfile

# Versions of Kubernetes: the first with native sidecars, and the newest one that kubernetes-validate has.
FIRST, NEWEST = "1.29", "1.37"
# Kinds that other projects define. Only clusters that have them have their schemas.
CUSTOM = {"PodMonitor", "PrometheusRule"}


def kubernetes(text):
    import kubernetes_validate, yaml

    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        for version in () if document["kind"] in CUSTOM else (FIRST, NEWEST):
            kubernetes_validate.validate(document, version, strict=True)
    return documents


def vendored(text, name):
    import jsonschema, yaml

    schema = importlib.resources.files("check_jsonschema.builtin_schemas.vendor") / f"{name}.json"
    # A workflow's key "on" is true in YAML 1.1.
    document = {"on" if key is True else key: value for key, value in yaml.safe_load(text).items()}
    jsonschema.validate(document, json.loads(schema.read_text()))
    return document


def compose(text):
    return vendored(text, "compose-spec")


def workflow(text):
    return vendored(text, "github-workflows")


def ecs(text):
    """Checks against the model of AWS' clients, and with AWS' linter for CloudFormation, whose rules also check values."""
    import botocore.session, botocore.validate

    document = json.loads(text)
    model = botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
    if problems := botocore.validate.ParamValidator().validate(document, model.input_shape).generate_report():
        sys.exit(problems)
    linted("AWS::ECS::TaskDefinition", capitalised(document))
    return document


def policy(text):
    """Checks a policy of AWS IAM. One with a principal says who may take a role."""
    document = json.loads(text)
    if "Principal" in document["Statement"][0]:
        linted("AWS::IAM::Role", {"AssumeRolePolicyDocument": document})
    else:
        linted("AWS::IAM::ManagedPolicy", {"PolicyDocument": document})
    return document


def linted(kind, properties):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"It": {"Type": kind, "Properties": properties}}}, file)
        file.flush()
        lint = subprocess.run([os.path.join(os.path.dirname(sys.executable), "cfn-lint"), file.name], capture_output=True, text=True)
    if lint.returncode:
        sys.exit(lint.stdout + lint.stderr)


def terraform(text):
    """Parses Terraform's language. References and calls stay text, in the form ${…}."""
    import hcl2

    def plain(value):
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, dict):
            return {plain(key): plain(item) for key, item in value.items() if not key.startswith("__")}
        return json.loads(value) if isinstance(value, str) and value.startswith('"') else value

    return plain(hcl2.loads(text))


# Keys that differ in more than their first letter.
CLOUDFORMATION = {"efsVolumeConfiguration": "EFSVolumeConfiguration", "fileSystemId": "FilesystemId", "iam": "IAM"}


def capitalised(value):
    """Names keys as CloudFormation does. Does not change the options of a log driver."""
    if isinstance(value, list):
        return [capitalised(item) for item in value]
    if isinstance(value, dict):
        named = {key: CLOUDFORMATION.get(key, key[0].upper() + key[1:]) for key in value}
        return {named[key]: item if key == "options" else capitalised(item) for key, item in value.items()}
    return value


if __name__ == "__main__":
    platforms = [kubernetes, compose, ecs, policy, terraform, workflow]
    read = {platform.__name__: platform for platform in platforms}[sys.argv[1]]
    json.dump(read(sys.stdin.read()), sys.stdout)
