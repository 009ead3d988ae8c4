//! The commands and files that modify a group, for the AWS CLI, Terraform and CloudFormation.

use serde::Serialize;

use super::facts::{GroupFacts, TransitEncryption};

/// One modification of the transit encryption, as a recipe for each tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recipes {
    /// A command of the AWS CLI.
    pub aws_cli: String,
    /// What to change in Terraform's resource, and how to apply it.
    pub terraform: String,
    /// What to change in CloudFormation's resource, and how to apply it.
    pub cloudformation: String,
}

impl Recipes {
    /// Creates the recipes that change `group` to `target`.
    pub(super) fn to(group: &GroupFacts, target: TransitEncryption) -> Self {
        Self {
            aws_cli: set_encryption(group, target),
            terraform: terraform(group, target),
            cloudformation: cloudformation(group, target),
        }
    }
}

/// Returns the command `aws elasticache modify-replication-group` with these flags, applied immediately.
pub(super) fn modify(group: &GroupFacts, flags: &str) -> String {
    format!(
        "aws elasticache modify-replication-group --region {} --replication-group-id {} {flags} --apply-immediately",
        word(&group.region),
        word(&group.id)
    )
}

/// Returns the command that sets the transit encryption.
pub(super) fn set_encryption(group: &GroupFacts, target: TransitEncryption) -> String {
    let flags = match target {
        TransitEncryption::Disabled => "--no-transit-encryption-enabled",
        TransitEncryption::Preferred => "--transit-encryption-enabled --transit-encryption-mode preferred",
        TransitEncryption::Required => "--transit-encryption-enabled --transit-encryption-mode required",
    };
    modify(group, flags)
}

/// Returns the command `pontoon plan` for the group, with these flags.
pub(super) fn plan(group: &GroupFacts, flags: &str) -> String {
    format!("pontoon plan --region {} --group {}{flags}", word(&group.region), word(&group.id))
}

/// Quotes a word for the shell if needed. Names that AWS allows need no quotes, and other text must not become a command.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns a resource name that Terraform or CloudFormation accepts: only characters that the tool allows, and no digit first.
fn label(id: &str, separator: &str) -> String {
    let label = id.split(|c: char| !c.is_ascii_alphanumeric()).collect::<Vec<_>>().join(separator);
    if label.starts_with(|c: char| c.is_ascii_alphabetic()) { label } else { format!("Group{label}") }
}

fn terraform(group: &GroupFacts, target: TransitEncryption) -> String {
    let settings = match target {
        TransitEncryption::Disabled => "  transit_encryption_enabled = false\n".to_owned(),
        target => {
            format!("  transit_encryption_enabled = true\n  transit_encryption_mode    = \"{target}\"\n")
        }
    };
    let order = match target {
        TransitEncryption::Disabled => "Remove transit_encryption_mode from the resource.",
        TransitEncryption::Preferred => {
            "The first of two applies: apply \"required\" separately, after all clients use TLS. AWS rejects both in one."
        }
        TransitEncryption::Required => "The second of two applies.",
    };
    format!(
        "# {order} Without apply_immediately the change waits for the maintenance window.\n\
         # `terraform plan` must say \"will be updated in-place\". Never apply a plan that says \"must be replaced\".\n\
         resource \"aws_elasticache_replication_group\" \"{}\" {{\n{settings}  apply_immediately          = true\n}}",
        label(&group.id, "_")
    )
}

fn cloudformation(group: &GroupFacts, target: TransitEncryption) -> String {
    let settings = match target {
        TransitEncryption::Disabled => "      TransitEncryptionEnabled: false".to_owned(),
        target => format!("      TransitEncryptionEnabled: true\n      TransitEncryptionMode: {target}"),
    };
    let order = match target {
        TransitEncryption::Disabled => "Remove TransitEncryptionMode from the resource.",
        TransitEncryption::Preferred => {
            "The first of two stack updates: update to \"required\" separately, after all clients use TLS."
        }
        TransitEncryption::Required => "The second of two stack updates.",
    };
    format!(
        "# {order}\n\
         # Update through a change set. It must say \"Replacement: False\".\n\
         Resources:\n  {}:\n    Type: AWS::ElastiCache::ReplicationGroup\n    Properties:\n{settings}",
        label(&group.id, "")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_becomes_a_command() {
        assert_eq!(word("sessions-1"), "sessions-1");
        assert_eq!(word("a; rm -rf ~"), "'a; rm -rf ~'");
        assert_eq!(word("a'b"), r"'a'\''b'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn a_resource_has_a_name_that_its_tool_accepts() {
        assert_eq!(label("sessions-eu-1", "_"), "sessions_eu_1");
        assert_eq!(label("sessions-eu-1", ""), "sessionseu1");
        assert_eq!(label("1a\"", "_"), "Group1a_");
    }
}
