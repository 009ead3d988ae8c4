//! Errors of requests to AWS, each with its remedy.

/// Why AWS did not answer, or gave no usable answer. Each text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Neither a flag, nor the environment, nor a profile names a region.
    #[error("no AWS region: give --region, or set AWS_REGION or the profile's region")]
    NoRegion,
    /// AWS' default chain found no credentials.
    #[error(
        "no AWS credentials: {0}. Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws sso login`, or give \
         this machine a role"
    )]
    NoCredentials(String),
    /// AWS does not know the key, or no longer accepts it.
    #[error(
        "{region}: AWS does not accept the credentials ({code}: {message}): renew them (`aws sso login`), check this \
         machine's clock, and check that the region is enabled for the account"
    )]
    Rejected {
        /// The region that was asked.
        region: String,
        /// AWS' code of the error.
        code: String,
        /// AWS' words.
        message: String,
    },
    /// The credentials have no permission for the action.
    #[error(
        "{region}: no permission for {action} ({message}): allow it. The policy config/iam/plan.json allows everything that \
         `pontoon plan` needs"
    )]
    Denied {
        /// The region that was asked.
        region: String,
        /// The action, as policies name it.
        action: &'static str,
        /// AWS' words.
        message: String,
    },
    /// The region has no such group.
    #[error(
        "{region} has no replication group \"{group}\" in this account: check the id (an endpoint or a serverless cache \
         is none), --region and AWS_PROFILE. `pontoon plan --region {region}` lists the groups"
    )]
    NoSuchGroup {
        /// The region that was asked.
        region: String,
        /// The unknown id.
        group: String,
    },
    /// The id is that of a node, not of a replication group.
    #[error("\"{node}\" is a node of the replication group \"{group}\": give --group {group}")]
    IsNode {
        /// The node's id.
        node: String,
        /// The id of the node's group.
        group: String,
    },
    /// The id is that of a cache cluster without a replication group.
    #[error(
        "\"{0}\" is a cache cluster outside of a replication group, and cannot use TLS: create a replication group from it \
         (aws elasticache create-replication-group --primary-cluster-id {0}), or a new one with TLS"
    )]
    IsLone(String),
    /// The id is that of a Memcached cluster.
    #[error(
        "\"{0}\" is a Memcached cluster, but pontoon carries the Redis protocol: give --group the id of a Redis or Valkey \
         replication group"
    )]
    IsMemcached(String),
    /// AWS limits the rate of requests.
    #[error(
        "{region}: AWS throttled {action} ({message}), even after retries: try again in a minute, use --group, or raise \
         AWS_MAX_ATTEMPTS"
    )]
    Throttled {
        /// The region that was asked.
        region: String,
        /// The action, as policies name it.
        action: &'static str,
        /// AWS' words.
        message: String,
    },
    /// AWS cannot be reached over the network.
    #[error(
        "{region}: cannot reach AWS for {action} ({message}): check that \"{region}\" is a region, and that this machine can reach \
         elasticache.{region}.amazonaws.com (VPC endpoint, proxy, AWS_ENDPOINT_URL)"
    )]
    Unreachable {
        /// The region that was asked.
        region: String,
        /// The action, as policies name it.
        action: &'static str,
        /// What went wrong.
        message: String,
    },
    /// AWS answered with another error.
    #[error(
        "{region}: {action} failed ({code}: {message}): try again, or look the code up in AWS' list of common errors"
    )]
    Other {
        /// The region that was asked.
        region: String,
        /// The action, as policies name it.
        action: &'static str,
        /// AWS' name of the error.
        code: String,
        /// AWS' words.
        message: String,
    },
}

impl PlanError {
    /// Whether the same request may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unreachable { .. } | Self::Other { .. })
    }
}
