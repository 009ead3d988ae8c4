//! Why AWS did not answer, with the remedy.

/// Why AWS did not answer, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Neither a flag, nor the environment, nor a profile names a region.
    #[error("no AWS region: give --region, or set AWS_REGION or the profile's region")]
    NoRegion,
    /// AWS' chain of credentials gave none.
    #[error(
        "no AWS credentials: {0}. Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, run `aws sso login`, or give \
         this machine a role"
    )]
    NoCredentials(String),
    /// AWS knows no such key, or not any more.
    #[error(
        "{region}: AWS does not accept the credentials ({code}: {message}): renew them (`aws sso login`), check this \
         machine's clock, or is the region not enabled for the account?"
    )]
    Rejected {
        /// The region that was asked.
        region: String,
        /// AWS' name of the error.
        code: String,
        /// AWS' words.
        message: String,
    },
    /// The credentials may not do this.
    #[error(
        "{region}: no permission for {action} ({message}): allow it; config/iam/plan.json is a policy with all that \
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
    /// There is no such group.
    #[error(
        "{region} has no replication group \"{group}\" in this account: check the id (not an endpoint, and no serverless \
         cache), --region and AWS_PROFILE; `pontoon plan --region {region}` lists the groups"
    )]
    NoSuchGroup {
        /// The region that was asked.
        region: String,
        /// The id that it does not know.
        group: String,
    },
    /// It is no replication group, but a node of one.
    #[error("\"{node}\" is a node of the replication group \"{group}\": give --group {group}")]
    IsNode {
        /// The id that was asked for.
        node: String,
        /// Its group.
        group: String,
    },
    /// It is a cache cluster of no group.
    #[error(
        "\"{0}\" is a cache cluster outside of a replication group, which cannot use TLS: create a replication group from it \
         (aws elasticache create-replication-group --primary-cluster-id {0}), or a new one with TLS"
    )]
    IsLone(String),
    /// It is a cluster of memcached.
    #[error(
        "\"{0}\" is a cluster of memcached, and pontoon carries Redis' protocol: give --group the id of a replication group of Redis \
         or Valkey"
    )]
    IsMemcached(String),
    /// Too many requests.
    #[error(
        "{region}: AWS throttles {action} ({message}), also after retries: try again in a minute, or with --group, or raise \
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
    /// No answer, over the network.
    #[error(
        "{region}: cannot reach AWS for {action} ({message}): is \"{region}\" a region? Does this machine reach \
         elasticache.{region}.amazonaws.com (VPC endpoint, proxy, AWS_ENDPOINT_URL)?"
    )]
    Unreachable {
        /// The region that was asked.
        region: String,
        /// The action, as policies name it.
        action: &'static str,
        /// What went wrong.
        message: String,
    },
    /// Another answer than one with groups.
    #[error(
        "{region}: {action} failed ({code}: {message}): try again; the code is in AWS' list of common errors"
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
    /// Whether the same question may be answered in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unreachable { .. } | Self::Other { .. })
    }
}
