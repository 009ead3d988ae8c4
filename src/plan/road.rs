//! Judges a group's facts: its position, the next step, blockers, cautions and the way back. Sends no request to AWS.

use serde::Serialize;

use super::facts::{EndpointUse, EngineVersion, GroupFacts, TransitEncryption};
use super::recipes::{Recipes, modify, plan, set_encryption, word};

/// The first Redis version whose transit encryption can be changed in place.
const FIRST_REDIS: EngineVersion = EngineVersion(7, 0, 5);

/// The first Valkey version whose transit encryption can be changed in place.
const FIRST_VALKEY: EngineVersion = EngineVersion(7, 2, 0);

/// What to know before user groups are removed.
const WITHOUT_USER_GROUPS: &str = "Without user groups, any client may run any command: restrict the security group first. Clients \
                                   and bridges that send a password may get errors: try one first";

/// Prefixes of node types that cannot use TLS.
const OLD_NODE_TYPES: [&str; 2] = ["cache.m1.", "cache.m2."];

/// Where a group is between plaintext and TLS, and what comes next.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// What AWS reports about the group.
    pub group: GroupFacts,
    /// Whether Security Hub's control ElastiCache.5 fails.
    pub fails_elasticache_5: bool,
    /// Whether AWS can change the transit encryption without replacing the group.
    pub changes_in_place: bool,
    /// A modification that AWS has accepted and not finished.
    pub modification: Option<Modification>,
    /// What must be solved before the next step.
    pub blockers: Vec<Blocker>,
    /// The next step. `None` if it is blocked, or if the group requires TLS.
    pub next: Option<NextStep>,
    /// What to know before the next step.
    pub cautions: Vec<String>,
    /// How to go back.
    pub way_back: WayBack,
}

/// A modification that AWS has accepted and not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Modification {
    /// The transit encryption after the modification. `None` if AWS reports none, so that this may be another modification.
    pub to: Option<TransitEncryption>,
    /// Whether AWS is applying the modification. If not, it waits for the maintenance window.
    pub running: bool,
}

impl Modification {
    /// Returns the transit encryption that waits for the maintenance window.
    fn waiting(self) -> Option<TransitEncryption> {
        self.to.filter(|_| !self.running)
    }
}

/// What must be solved before the next step.
#[derive(Debug, Serialize)]
pub struct Blocker {
    /// The problem.
    pub what: String,
    /// How to solve the problem.
    pub remedy: String,
    /// Commands that solve it.
    pub commands: Vec<String>,
}

/// The next change of the transit encryption.
#[derive(Debug, Serialize)]
pub struct NextStep {
    /// The transit encryption after the step.
    pub to: TransitEncryption,
    /// Commands that must succeed before the step.
    pub before: Vec<String>,
    /// The change, for each tool.
    pub recipes: Recipes,
    /// The command that follows the change to its end.
    pub follow: String,
}

/// How to go back.
#[derive(Debug, Serialize)]
pub struct WayBack {
    /// Why AWS does not allow it now. `None` if no obstacle is known.
    pub closed: Option<String>,
    /// Commands, in order.
    pub commands: Vec<String>,
}

impl Plan {
    /// Judges a group's facts.
    pub fn new(group: GroupFacts) -> Self {
        let modification = modification(&group);
        let blockers = blockers(&group, modification);
        let waiting = modification.and_then(Modification::waiting);
        let target = match (waiting, group.transit_encryption) {
            // A change back towards plaintext is not a next step.
            (Some(to), now) => (to > now).then_some(to),
            (None, TransitEncryption::Disabled) => Some(TransitEncryption::Preferred),
            (None, TransitEncryption::Preferred) => Some(TransitEncryption::Required),
            (None, TransitEncryption::Required) => None,
        };
        let next = target.filter(|_| blockers.is_empty()).map(|to| NextStep {
            to,
            before: before(&group, to),
            recipes: Recipes::to(&group, to),
            follow: plan(&group, " --wait"),
        });
        Self {
            fails_elasticache_5: group.transit_encryption == TransitEncryption::Disabled,
            changes_in_place: changes_in_place(&group),
            cautions: cautions(&group, target, waiting),
            way_back: way_back(&group, target),
            group,
            modification,
            blockers,
            next,
        }
    }

    /// Whether AWS is applying a modification.
    pub fn is_changing(&self) -> bool {
        self.modification.is_some_and(|modification| modification.running)
    }
}

fn modification(group: &GroupFacts) -> Option<Modification> {
    let to = group.pending.transit_encryption;
    match group.status.as_str() {
        "available" => to.map(|to| Modification { to: Some(to), running: false }),
        "modifying" => Some(Modification { to, running: true }),
        _ => None,
    }
}

/// Returns the first version of the group's engine whose transit encryption can be changed in place.
fn first_version(group: &GroupFacts) -> EngineVersion {
    if group.engine == "valkey" { FIRST_VALKEY } else { FIRST_REDIS }
}

fn changes_in_place(group: &GroupFacts) -> bool {
    // Only groups whose encryption can be changed in place have the mode `preferred`.
    group.transit_encryption == TransitEncryption::Preferred
        || group.engine_version.is_some_and(|version| version >= first_version(group))
}

fn blockers(group: &GroupFacts, modification: Option<Modification>) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    match group.status.as_str() {
        "available" => {}
        "modifying" | "snapshotting" | "creating" => blockers.push(Blocker {
            what: format!("the group is {}: AWS accepts no modification until it is available", group.status),
            remedy: "wait until it is available".into(),
            commands: vec![plan(group, " --wait")],
        }),
        status => blockers.push(Blocker {
            what: format!("the group's status is \"{status}\": AWS accepts no modification"),
            remedy: "look at the group's events".into(),
            commands: vec![format!(
                "aws elasticache describe-events --region {} --source-type replication-group --source-identifier {}",
                word(&group.region),
                word(&group.id)
            )],
        }),
    }
    if let Some(to) = modification.and_then(Modification::waiting)
        && to <= group.transit_encryption
    {
        blockers.push(Blocker {
            what: format!(
                "a change to \"{to}\" waits for the maintenance window ({}), when AWS applies it. A change to \"disabled\" cuts off \
                 clients and bridges that use TLS",
                group.maintenance_window.as_deref().unwrap_or("unknown")
            ),
            remedy: "to cancel the change, request the current mode instead".into(),
            commands: vec![set_encryption(group, group.transit_encryption)],
        });
    }
    // A waiting modification has already passed AWS' checks, so the blockers below do not apply.
    if group.transit_encryption == TransitEncryption::Required || modification.is_some() {
        return blockers;
    }
    if let Some(global) = &group.global_datastore
        && group.transit_encryption == TransitEncryption::Disabled
    {
        blockers.push(in_global_datastore(group, &global.id, &global.role));
    }
    if !changes_in_place(group) {
        blockers.push(engine_too_old(group));
    }
    let old: Vec<&str> = group.node_types.iter().map(String::as_str).filter(|name| is_old(name)).collect();
    if !old.is_empty() {
        blockers.push(Blocker {
            what: format!("nodes of type {} cannot use TLS", old.join(", ")),
            remedy: "move the group to one of the types that this command lists (modify-replication-group --cache-node-type)"
                .into(),
            commands: vec![format!(
                "aws elasticache list-allowed-node-type-modifications --region {} --replication-group-id {}",
                word(&group.region),
                word(&group.id)
            )],
        });
    }
    if !group.user_groups.is_empty() {
        blockers.push(Blocker {
            what: format!(
                "the group has user groups ({}): AWS does not change the transit encryption of a group with RBAC",
                group.user_groups.join(", ")
            ),
            remedy: format!("remove the user groups during the change. {WITHOUT_USER_GROUPS}"),
            commands: vec![modify(group, "--remove-user-groups")],
        });
    }
    blockers
}

fn is_old(node_type: &str) -> bool {
    OLD_NODE_TYPES.iter().any(|family| node_type.starts_with(family))
}

fn engine_too_old(group: &GroupFacts) -> Blocker {
    let engine = &group.engine;
    let first = first_version(group);
    let Some(version) = group.engine_version else {
        return Blocker {
            what: format!(
                "the engine's version is unknown, because AWS does not report it for every node. {engine} {first} or later is needed"
            ),
            remedy: "look at what AWS reports about the nodes".into(),
            commands: vec![format!(
                "aws elasticache describe-cache-clusters --region {}",
                word(&group.region)
            )],
        };
    };
    let (family, version_to) = if engine == "valkey" { ("valkey8", "8.0") } else { ("redis7", "7.1") };
    let parameters = format!("default.{family}{}", if group.cluster_mode { ".cluster.on" } else { "" });
    let own: Vec<&str> = group
        .parameter_groups
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("default."))
        .collect();
    let (own, parameters) = if own.is_empty() {
        (String::new(), parameters)
    } else {
        let words = format!(
            ". First create a parameter group of the family {family} with the settings of {}, and name it in the command",
            own.join(", ")
        );
        (words, "YOUR-PARAMETER-GROUP".to_owned())
    };
    Blocker {
        what: format!(
            "{engine} {version} is too old: transit encryption can be changed in place only in {first} or later"
        ),
        remedy: format!(
            "upgrade the engine first. The upgrade is done in place, interrupts connections for a while, and cannot be undone{own}. \
             Never let a tool replace the group: its data and its names would be lost"
        ),
        commands: vec![
            modify(
                group,
                &format!("--engine-version {version_to} --cache-parameter-group-name {parameters}"),
            ),
            plan(group, " --wait"),
        ],
    }
}

fn in_global_datastore(group: &GroupFacts, id: &str, role: &str) -> Blocker {
    let (region, global) = (word(&group.region), word(id));
    let command = match &*role.to_ascii_lowercase() {
        "primary" => format!(
            "aws elasticache delete-global-replication-group --region {region} --global-replication-group-id {global} \
             --retain-primary-replication-group"
        ),
        "secondary" => format!(
            "aws elasticache disassociate-global-replication-group --region {region} --global-replication-group-id {global} \
             --replication-group-id {} --replication-group-region {region}",
            word(&group.id)
        ),
        _ => format!(
            "aws elasticache describe-global-replication-groups --region {region} --global-replication-group-id {global} \
             --show-member-info"
        ),
    };
    Blocker {
        what: format!(
            "the group is {role} of the global datastore {id}: AWS does not change the transit encryption of a primary to \
             preferred, and documents no way for a secondary"
        ),
        remedy: "remove the group from the global datastore, if you do not need the other region's copy in the meantime. This ends \
                 the replication between regions (remove secondaries before the primary)"
            .into(),
        commands: vec![command],
    }
}

/// Returns the commands that must succeed before a step.
fn before(group: &GroupFacts, to: TransitEncryption) -> Vec<String> {
    if to != TransitEncryption::Required {
        return Vec::new();
    }
    let front = group.endpoints.iter().find(|endpoint| endpoint.r#use != EndpointUse::Node);
    let audit =
        front.map(|front| format!("pontoon audit {}", word(&format!("{}:{}", front.address, front.port))));
    audit.into_iter().chain(["pontoon status --fail-unless ready".to_owned()]).collect()
}

fn cautions(
    group: &GroupFacts,
    target: Option<TransitEncryption>,
    waiting: Option<TransitEncryption>,
) -> Vec<String> {
    let mut cautions = Vec::new();
    if let Some(to) = waiting.filter(|_| target.is_some()) {
        cautions.push(format!(
            "AWS has already accepted the change to \"{to}\", and applies it in the maintenance window ({}), even if clients are not \
             ready",
            group.maintenance_window.as_deref().unwrap_or("unknown")
        ));
    }
    let current = group.transit_encryption;
    if target.is_some() && !group.pending.others.is_empty() {
        cautions.push(format!(
            "applying a change immediately also applies pending changes: {}",
            group.pending.others.join(", ")
        ));
    }
    match (current, target) {
        (TransitEncryption::Disabled, Some(TransitEncryption::Preferred)) => {
            cautions.push(
                "first roll out the bridges with tls.mode = \"preferred\". Clients must not use TLS until the modification has \
                 ended"
                    .into(),
            );
            let nodes: Vec<&str> = group
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.r#use == EndpointUse::Node)
                .map(|endpoint| endpoint.address.as_str())
                .collect();
            if !group.cluster_mode && !nodes.is_empty() {
                cautions.push(format!(
                    "this step deletes the names of single nodes, so clients must not use {}",
                    nodes.join(", ")
                ));
            }
            cautions.push(
                "the group gets new names, which this command shows after the change. The current names remain valid until \
                 \"required\""
                    .into(),
            );
            cautions.push(
                "an IAM or organization policy with the condition elasticache:TransitEncryptionEnabled can deny this step, and \
                 pontoon cannot see that beforehand"
                    .into(),
            );
            cautions.push(
                "add an AUTH token or user groups after \"required\": AWS refuses them in \"preferred\""
                    .into(),
            );
        }
        (TransitEncryption::Preferred, Some(TransitEncryption::Required)) => {
            cautions.push(
                "ElastiCache.5 passes already, but the group still accepts plaintext: passing it does not show that clients use \
                 TLS"
                    .into(),
            );
            if let Some(global) = &group.global_datastore {
                cautions.push(format!(
                    "this closes the way back while the group is in the global datastore {}: AWS does not change a member to \
                     \"preferred\"",
                    global.id
                ));
            }
            let old: Vec<&str> =
                group.endpoints.iter().filter_map(|endpoint| endpoint.counterpart.as_deref()).collect();
            let named = if old.is_empty() { String::new() } else { format!(": {}", old.join(", ")) };
            cautions.push(format!(
                "\"required\" closes every plaintext connection and deletes the names without TLS{named}"
            ));
        }
        (TransitEncryption::Required, None) if group.user_groups.is_empty() && !group.auth_token => {
            cautions.push(
                "an AUTH token or a user group closes the way back: add one only when you will not go back"
                    .into(),
            );
        }
        _ => {}
    }
    if target.is_some() && group.cluster_endpoint_type.as_deref() == Some("ip") {
        let groups = group.parameter_groups.join(", ");
        cautions.push(format!(
            "cluster-preferred-endpoint-type is ip in {groups}: the cluster gives its clients IP addresses, but certificates hold \
             only names. Set it to tls-dynamic before clients use TLS (a default parameter group cannot be changed: create your own)"
        ));
    }
    cautions
}

fn way_back(group: &GroupFacts, target: Option<TransitEncryption>) -> WayBack {
    let highest = target.unwrap_or(group.transit_encryption).max(group.transit_encryption);
    let commands = match highest {
        TransitEncryption::Disabled => Vec::new(),
        TransitEncryption::Preferred => vec![set_encryption(group, TransitEncryption::Disabled)],
        TransitEncryption::Required => vec![
            set_encryption(group, TransitEncryption::Preferred),
            plan(group, " --wait"),
            set_encryption(group, TransitEncryption::Disabled),
        ],
    };
    let closed = if !group.user_groups.is_empty() {
        Some(format!(
            "user groups ({}): AWS does not change the transit encryption of a group with RBAC. Remove them first with \
             {}. {WITHOUT_USER_GROUPS}",
            group.user_groups.join(", "),
            modify(group, "--remove-user-groups")
        ))
    } else if let Some(global) =
        group.global_datastore.as_ref().filter(|_| highest == TransitEncryption::Required)
    {
        Some(format!(
            "the global datastore {}: AWS does not change its members to \"preferred\". Remove the group from it first",
            global.id
        ))
    } else if highest == TransitEncryption::Required && !changes_in_place(group) {
        Some(
            "the engine's version: AWS changes the transit encryption in place only in newer versions"
                .to_owned(),
        )
    } else if group.auth_token {
        Some(
            "the AUTH token: AWS refuses AUTH in \"preferred\" (observed when creating groups, not tried on existing ones). A token \
             can only be replaced by user groups, which also close the way back"
                .to_owned(),
        )
    } else {
        None
    };
    WayBack { closed, commands }
}
