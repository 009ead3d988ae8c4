"""Simulates ElastiCache with moto, and adds what moto lacks: pending changes, parameters, modifications of transit encryption, errors.

Arguments: one JSON object.
  groups: a list of {"create": parameters of CreateReplicationGroup, "group": fields of the answer that moto lacks,
          "nodes": fields of each cache cluster of the group, "with_tls": fields of the answer once the group accepts TLS}
  clusters: a list of parameters of CreateCacheCluster
  parameters: {name: value}, of every parameter group
  errors: {action: [code, message]}
  allowed: actions; all others are denied
  answers: number of answers until a modification has ended
Prints the port, and exits when its standard input ends. botocore's validators check every field against the service's model.
"""

import json
import sys

import botocore.session
from botocore import xform_name
from botocore.validate import ParamValidator
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, PaginatedResult
from moto.elasticache.models import elasticache_backends
from moto.elasticache.responses import ElastiCacheResponse
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"
spec = json.loads(sys.argv[1])
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
host, port = server.get_host_and_port()
client = botocore.session.Session().create_client(
    "elasticache",
    region_name=REGION,
    endpoint_url=f"http://{host}:{port}",
    aws_access_key_id="AKIATEST",
    aws_secret_access_key="test",
)
model = client.meta.service_model
backend = elasticache_backends["123456789012"][REGION]


def add(target, shape, fields):
    """Sets fields, with the names and shapes of the service's model."""
    members = model.shape_for(shape).members
    for name, value in fields.items():
        report = ParamValidator().validate(value, members[name])
        if report.has_errors():
            raise ValueError(f"{shape}.{name}: {report.generate_report()}")
        setattr(target, xform_name(name), value)


def modify(self):
    # Only those of AWS' rules that pontoon relies on.
    parameters = self._get_params()
    group = backend.describe_replication_groups(parameters["ReplicationGroupId"])[0]
    enabled = self._get_bool_param("TransitEncryptionEnabled")
    mode = parameters.get("TransitEncryptionMode")
    if group.status != "available":
        raise ServiceException("InvalidReplicationGroupState", "Replication group is not available.")
    if group.user_group_ids and not self._get_bool_param("RemoveUserGroups"):
        raise ServiceException(
            "InvalidParameterCombination",
            "Modification of transit encryption is not supported for access control enabled clusters.",
        )
    if mode == "required" and not group.transit_encryption_enabled:
        raise ServiceException("InvalidParameterCombination", "Set the mode to preferred first.")
    if enabled is False and group.transit_encryption_mode != "preferred":
        raise ServiceException("InvalidParameterCombination", "Set the mode to preferred first.")
    pending = {"TransitEncryptionEnabled": enabled}
    if mode:
        pending["TransitEncryptionMode"] = mode
    add(group, "ReplicationGroup", {"PendingModifiedValues": pending})
    if self._get_bool_param("ApplyImmediately"):
        group.status = "modifying"
        group.answers = spec["answers"]
    return ActionResult({"ReplicationGroup": group})


describe = ElastiCacheResponse.describe_replication_groups


def describe_and_go_on(self):
    for group in backend.replication_groups.values():
        if group.status != "modifying" or not hasattr(group, "answers"):
            continue
        if group.answers > 0:
            group.answers -= 1
            continue
        pending = group.pending_modified_values
        group.transit_encryption_enabled = pending["TransitEncryptionEnabled"]
        group.transit_encryption_mode = pending.get("TransitEncryptionMode")
        if group.transit_encryption_enabled:
            [of_spec] = [of_spec for of_spec in spec["groups"] if of_spec["create"]["ReplicationGroupId"] == group.replication_group_id]
            add(group, "ReplicationGroup", of_spec.get("with_tls", {}))
        group.status = "available"
        group.pending_modified_values = {}
    return describe(self)


def describe_parameters(self):
    parameters = [
        {"ParameterName": name, "ParameterValue": value} for name, value in spec.get("parameters", {}).items()
    ]
    return PaginatedResult({"Parameters": parameters})


for group in spec.get("groups", []):
    client.create_replication_group(ReplicationGroupDescription="of a test", **group["create"])
    made = backend.replication_groups[group["create"]["ReplicationGroupId"]]
    add(made, "ReplicationGroup", group.get("group", {}))
    nodes = group.get("nodes", {})
    for member in made.member_clusters:
        client.create_cache_cluster(CacheClusterId=member, CacheNodeType=made.cache_node_type, Engine="redis")
        node = {"ReplicationGroupId": made.replication_group_id, "Engine": made.engine, **nodes}
        add(backend.cache_clusters[member], "CacheCluster", node)
for cluster in spec.get("clusters", []):
    client.create_cache_cluster(**cluster)

ElastiCacheResponse.modify_replication_group = modify
ElastiCacheResponse.describe_replication_groups = describe_and_go_on
ElastiCacheResponse.describe_cache_parameters = describe_parameters

# Check that moto returns the fields that the test has set.
for group in spec.get("groups", []):
    name = group["create"]["ReplicationGroupId"]
    [read] = client.describe_replication_groups(ReplicationGroupId=name)["ReplicationGroups"]
    for field, value in group.get("group", {}).items():
        assert read.get(field) == value, (name, field, value, read.get(field))
    for node in read["MemberClusters"]:
        [read_node] = client.describe_cache_clusters(CacheClusterId=node)["CacheClusters"]
        for field, value in group.get("nodes", {}).items():
            assert read_node.get(field) == value, (node, field, value, read_node.get(field))

errors = spec.get("errors", {})
if "allowed" in spec:
    denied = set(model.operation_names) - set(spec["allowed"])
    errors |= {action: ["AccessDenied", "not in the policy"] for action in denied}
for action, (code, message) in errors.items():

    def refuse(self, code=code, message=message):
        # moto's serializer knows only the errors of the model, which does not have those that all services share.
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        return 400, {"status": 400}, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>"

    setattr(ElastiCacheResponse, xform_name(action), refuse)

print(port, flush=True)
sys.stdin.read()
