//! Asks AWS, and converts the SDK's types to [`GroupFacts`]. Every request is a Describe, so none changes anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_elasticache::Client;
use aws_sdk_elasticache::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_elasticache::types::{
    CacheCluster, Endpoint, ReplicationGroup, ReplicationGroupPendingModifiedValues, TransitEncryptionMode,
};

use super::error::PlanError;
use super::facts::{
    EndpointUse, EngineVersion, GlobalDatastore, GroupEndpoint, GroupFacts, PendingChanges, TransitEncryption,
};
use crate::credentials::iam::explain;
use crate::printable::printable;

/// AWS' maximum page size.
const PAGE: i32 = 100;

/// Timeout for one attempt.
const AWS_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for a request with its retries.
const AWS_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const DESCRIBE_GROUPS: &str = "elasticache:DescribeReplicationGroups";
const DESCRIBE_CLUSTERS: &str = "elasticache:DescribeCacheClusters";
const DESCRIBE_PARAMETERS: &str = "elasticache:DescribeCacheParameters";

/// ElastiCache in one region.
pub struct Aws {
    client: Client,
    region: String,
    parameters: BTreeMap<String, Option<String>>,
}

impl Aws {
    /// Creates a client with credentials from AWS' default chain, and fails if that has none. Without a `region`, AWS' default chain names it.
    pub async fn connect(region: Option<&str>) -> Result<Self, PlanError> {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(AWS_ATTEMPT_TIMEOUT)
            .operation_timeout(AWS_REQUEST_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).timeout_config(timeouts);
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let config = loader.load().await;
        let region = config.region().map(ToString::to_string).filter(|region| !region.is_empty());
        let region = region.ok_or(PlanError::NoRegion)?;
        let none = || PlanError::NoCredentials("no source is configured".into());
        let provider = config.credentials_provider().ok_or_else(none)?;
        // Fetched before the first request, because the SDK would report missing credentials as a failed request.
        provider.provide_credentials().await.map_err(|error| PlanError::NoCredentials(explain(&error)))?;
        Ok(Self { client: Client::new(&config), region, parameters: BTreeMap::new() })
    }

    /// Returns the region that is asked.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns the group `id`, or all groups of the region.
    pub async fn groups(&mut self, id: Option<&str>) -> Result<Vec<GroupFacts>, PlanError> {
        let groups = self.described(id).await?;
        let clusters = if groups.is_empty() { Vec::new() } else { self.clusters().await? };
        let mut all = Vec::with_capacity(groups.len());
        for group in &groups {
            let nodes: Vec<&CacheCluster> = clusters
                .iter()
                .filter(|cluster| cluster.replication_group_id() == group.replication_group_id())
                .collect();
            let mut endpoint_types = BTreeSet::new();
            if group.cluster_enabled() == Some(true) {
                for name in nodes.iter().filter_map(|node| parameter_group(node)).collect::<BTreeSet<_>>() {
                    endpoint_types.extend(self.endpoint_type(name).await?);
                }
            }
            all.push(facts(&self.region, group, &nodes, endpoint_types));
        }
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(all)
    }

    /// Returns the group `id` without the facts that only its nodes report. Takes one request.
    pub async fn status(&self, id: &str) -> Result<GroupFacts, PlanError> {
        let groups = self.described(Some(id)).await?;
        let group = groups.first().ok_or_else(|| self.unknown(id))?;
        Ok(facts(&self.region, group, &[], BTreeSet::new()))
    }

    async fn described(&self, id: Option<&str>) -> Result<Vec<ReplicationGroup>, PlanError> {
        let request =
            self.client.describe_replication_groups().set_replication_group_id(id.map(str::to_owned));
        let mut pages = request.into_paginator().page_size(PAGE).items().send();
        let mut groups = Vec::new();
        while let Some(group) = pages.next().await {
            match (group, id) {
                (Ok(group), _) => groups.push(group),
                (Err(error), Some(id)) if error.code() == Some("ReplicationGroupNotFoundFault") => {
                    return Err(self.no_group(id).await);
                }
                (Err(error), _) => return Err(self.error(DESCRIBE_GROUPS, &error)),
            }
        }
        Ok(groups)
    }

    /// Returns why there is no group `id`. It may be the id of a node or of a cache cluster.
    async fn no_group(&self, id: &str) -> PlanError {
        match self.client.describe_cache_clusters().cache_cluster_id(id).send().await {
            Ok(found) => match found.cache_clusters() {
                [] => self.unknown(id),
                [cluster, ..] => match (cluster.replication_group_id(), cluster.engine()) {
                    (Some(group), _) => PlanError::IsNode { node: id.to_owned(), group: group.to_owned() },
                    (None, Some("memcached")) => PlanError::IsMemcached(id.to_owned()),
                    (None, _) => PlanError::IsLone(id.to_owned()),
                },
            },
            // This request only makes the error more precise, so its own failure does not matter.
            Err(_) => self.unknown(id),
        }
    }

    fn unknown(&self, id: &str) -> PlanError {
        PlanError::NoSuchGroup { region: self.region.clone(), group: id.to_owned() }
    }

    /// Returns all cache clusters of the region, because AWS cannot list those of one group.
    async fn clusters(&self) -> Result<Vec<CacheCluster>, PlanError> {
        let pages = self.client.describe_cache_clusters().into_paginator().page_size(PAGE).items().send();
        pages.try_collect().await.map_err(|error| self.error(DESCRIBE_CLUSTERS, &error))
    }

    /// Returns `cluster-preferred-endpoint-type` of a parameter group. Engines before 7 have none.
    async fn endpoint_type(&mut self, parameter_group: &str) -> Result<Option<String>, PlanError> {
        if let Some(known) = self.parameters.get(parameter_group) {
            return Ok(known.clone());
        }
        let request = self.client.describe_cache_parameters().cache_parameter_group_name(parameter_group);
        let mut pages = request.into_paginator().page_size(PAGE).items().send();
        let mut found = None;
        while let Some(parameter) = pages.next().await {
            let parameter = parameter.map_err(|error| self.error(DESCRIBE_PARAMETERS, &error))?;
            if parameter.parameter_name() == Some("cluster-preferred-endpoint-type") {
                found = parameter.parameter_value().map(clean);
            }
        }
        self.parameters.insert(parameter_group.to_owned(), found.clone());
        Ok(found)
    }

    fn error<E, R>(&self, action: &'static str, error: &SdkError<E, R>) -> PlanError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let region = self.region.clone();
        let Some(code) = error.code() else {
            return match error {
                SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
                    let code = "not an answer from ElastiCache".into();
                    PlanError::Other { region, action, code, message: explain(error) }
                }
                error => PlanError::Unreachable { region, action, message: explain(error) },
            };
        };
        let (code, message) = (code.to_owned(), error.message().unwrap_or("no reason given").to_owned());
        match code.as_str() {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                PlanError::Denied { region, action, message }
            }
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "RequestThrottled"
            | "SlowDown" => PlanError::Throttled { region, action, message },
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "AuthFailure"
            | "IncompleteSignature"
            | "OptInRequired"
            | "MissingAuthenticationToken"
            | "InvalidSignatureException" => PlanError::Rejected { region, code, message },
            _ => PlanError::Other { region, action, code, message },
        }
    }
}

fn parameter_group(node: &CacheCluster) -> Option<&str> {
    node.cache_parameter_group()?.cache_parameter_group_name()
}

fn facts(
    region: &str,
    group: &ReplicationGroup,
    nodes: &[&CacheCluster],
    endpoint_types: BTreeSet<String>,
) -> GroupFacts {
    let node_types = nodes.iter().filter_map(|node| node.cache_node_type()).chain(group.cache_node_type());
    let node_types: BTreeSet<String> = node_types.map(clean).collect();
    let parameter_groups: BTreeSet<String> =
        nodes.iter().filter_map(|node| parameter_group(node)).map(clean).collect();
    let versions: Option<Vec<EngineVersion>> =
        nodes.iter().map(|node| node.engine_version().and_then(EngineVersion::parse)).collect();
    let engine = group.engine().or_else(|| nodes.iter().find_map(|node| node.engine()));
    let id = clean(group.replication_group_id().unwrap_or_default());
    GroupFacts {
        region: region.to_owned(),
        status: clean(group.status().unwrap_or("unknown")),
        transit_encryption: transit_encryption(
            group.transit_encryption_enabled(),
            group.transit_encryption_mode(),
        ),
        engine: clean(engine.unwrap_or("redis")),
        // If one node's version is unknown, so is the oldest.
        engine_version: versions.and_then(|versions| versions.into_iter().min()),
        cluster_mode: group.cluster_enabled().unwrap_or(false),
        cluster_endpoint_type: (!endpoint_types.is_empty())
            .then(|| endpoint_types.into_iter().collect::<Vec<_>>().join(", ")),
        parameter_groups: parameter_groups.into_iter().collect(),
        node_types: node_types.into_iter().collect(),
        nodes: group.member_clusters().len(),
        endpoints: endpoints(&id, group),
        auth_token: group.auth_token_enabled().unwrap_or(false),
        user_groups: group.user_group_ids().iter().map(|id| clean(id)).collect(),
        global_datastore: group.global_replication_group_info().and_then(|global| {
            let id = global.global_replication_group_id().filter(|id| !id.is_empty())?;
            let role = global.global_replication_group_member_role().unwrap_or("member");
            Some(GlobalDatastore { id: clean(id), role: clean(role) })
        }),
        pending: pending(group, nodes),
        maintenance_window: nodes.iter().find_map(|node| node.preferred_maintenance_window()).map(clean),
        id,
    }
}

/// Escapes line ends and hidden characters in text from AWS, so that it stays on one line and cannot control the terminal.
fn clean(text: &str) -> String {
    printable(text).into_owned()
}

fn transit_encryption(enabled: Option<bool>, mode: Option<&TransitEncryptionMode>) -> TransitEncryption {
    match (enabled.unwrap_or(false), mode) {
        (false, _) => TransitEncryption::Disabled,
        (true, Some(TransitEncryptionMode::Preferred)) => TransitEncryption::Preferred,
        // Groups that were created with TLS before AWS introduced modes have no mode.
        (true, _) => TransitEncryption::Required,
    }
}

fn endpoints(id: &str, group: &ReplicationGroup) -> Vec<GroupEndpoint> {
    let mut endpoints = Vec::new();
    let mut add = |r#use, endpoint: Option<&Endpoint>| {
        let Some((address, port)) =
            endpoint.and_then(|endpoint| Some((endpoint.address()?, endpoint.port()?)))
        else {
            return;
        };
        let port = u16::try_from(port).unwrap_or_default();
        endpoints.push(GroupEndpoint::new(id, r#use, clean(address), port));
    };
    add(EndpointUse::Configuration, group.configuration_endpoint());
    for shard in group.node_groups() {
        add(EndpointUse::Primary, shard.primary_endpoint());
        add(EndpointUse::Reader, shard.reader_endpoint());
        for member in shard.node_group_members() {
            add(EndpointUse::Node, member.read_endpoint());
        }
    }
    endpoints
}

fn pending(group: &ReplicationGroup, nodes: &[&CacheCluster]) -> PendingChanges {
    let mut others = BTreeSet::new();
    for node in nodes {
        let Some(pending) = node.pending_modified_values() else { continue };
        others.extend(pending.engine_version().map(|version| format!("engine version {}", clean(version))));
        others.extend(pending.cache_node_type().map(|name| format!("node type {}", clean(name))));
        others.extend(pending.num_cache_nodes().map(|count| format!("number of nodes {count}")));
    }
    let Some(pending) = group.pending_modified_values() else {
        return PendingChanges { transit_encryption: None, others: others.into_iter().collect() };
    };
    others.extend(pending_of_group(pending));
    let transit_encryption = match (pending.transit_encryption_enabled(), pending.transit_encryption_mode()) {
        (None, None) => None,
        (enabled, mode) => Some(transit_encryption(enabled.or(Some(mode.is_some())), mode)),
    };
    PendingChanges { transit_encryption, others: others.into_iter().collect() }
}

fn pending_of_group(pending: &ReplicationGroupPendingModifiedValues) -> impl Iterator<Item = String> {
    let changes = [
        pending.primary_cluster_id().map(|id| format!("primary {}", clean(id))),
        pending
            .automatic_failover_status()
            .map(|status| format!("automatic failover {}", clean(status.as_str()))),
        pending.resharding().map(|_| "resharding".to_owned()),
        pending.auth_token_status().map(|status| format!("AUTH token {}", clean(status.as_str()))),
        pending.user_groups().map(|groups| {
            let names = |ids: &[String]| ids.iter().map(|id| clean(id)).collect::<Vec<_>>().join(", ");
            let (add, remove) = (groups.user_group_ids_to_add(), groups.user_group_ids_to_remove());
            format!("user groups added: {}; removed: {}", names(add), names(remove))
        }),
        (!pending.log_delivery_configurations().is_empty()).then(|| "log delivery".to_owned()),
        pending.cluster_mode().map(|mode| format!("cluster mode {}", clean(mode.as_str()))),
    ];
    changes.into_iter().flatten()
}
