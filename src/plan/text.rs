//! Formats a plan for people.

use std::fmt::Write as _;

use super::facts::{EndpointUse, TransitEncryption};
use super::road::{Modification, NextStep, Plan};

/// How long a modification takes. AWS publishes no figure. Terraform's acceptance test of a modification takes 31 minutes, 13 of them to
/// create and delete the group.
const USUAL_TIME: &str = "about 20 minutes for a small group, longer with more nodes. AWS names no limit. The AWS CLI's own \
                          waiter gives up after 10 minutes";

/// Returns `plan` as lines, without a line end after the last.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    facts(&mut text, plan);
    let _ = write!(text, "\nposition     {}", position(plan));
    for blocker in &plan.blockers {
        let _ = write!(text, "\nblocked      {}\n             {}", blocker.what, blocker.remedy);
        commands(&mut text, &blocker.commands);
    }
    for caution in &plan.cautions {
        let _ = write!(text, "\nnote         {caution}");
    }
    if let Some(next) = &plan.next {
        step(&mut text, next);
    }
    if plan.next.is_some() || plan.is_changing() {
        let _ = write!(text, "\nusual time   {USUAL_TIME}");
    }
    way_back(&mut text, plan);
    text
}

fn facts(text: &mut String, plan: &Plan) {
    let group = &plan.group;
    let or = |list: &[String], none: &str| if list.is_empty() { none.to_owned() } else { list.join(", ") };
    let _ = write!(text, "group        {} in {}, {}", group.id, group.region, group.status);
    let _ = write!(
        text,
        "\nmode         {}; ElastiCache.5 {}",
        match group.transit_encryption {
            TransitEncryption::Disabled => "disabled: plaintext only",
            TransitEncryption::Preferred => "preferred: plaintext and TLS",
            TransitEncryption::Required => "required: TLS only",
        },
        if plan.fails_elasticache_5 { "fails" } else { "passes" }
    );
    let version =
        group.engine_version.map_or_else(|| "of unknown version".into(), |version| version.to_string());
    let _ = write!(
        text,
        "\nengine       {} {version}, cluster mode {}, {} {} of {}",
        group.engine,
        if group.cluster_mode { "enabled" } else { "disabled" },
        group.nodes,
        if group.nodes == 1 { "node" } else { "nodes" },
        or(&group.node_types, "unknown type")
    );
    let in_place =
        if plan.changes_in_place { "can be changed in place" } else { "cannot be changed in place" };
    let _ = write!(text, "\n             transit encryption {in_place}");
    let endpoint_type = group.cluster_endpoint_type.as_deref();
    let endpoint_type =
        endpoint_type.map(|kind| format!(", cluster-preferred-endpoint-type {kind}")).unwrap_or_default();
    let _ = write!(text, "\nparameters   {}{endpoint_type}", or(&group.parameter_groups, "unknown"));
    for endpoint in &group.endpoints {
        let _ = write!(text, "\n{:<12} {}:{}", endpoint.r#use.to_string(), endpoint.address, endpoint.port);
        if let Some(counterpart) = &endpoint.counterpart {
            let role = match group.transit_encryption {
                TransitEncryption::Disabled => "with TLS",
                TransitEncryption::Preferred => "without TLS",
                TransitEncryption::Required => "deleted:",
            };
            let _ = write!(text, "\n             {role} {counterpart} (derived from AWS' naming pattern)");
        } else if endpoint.r#use == EndpointUse::Node
            && group.transit_encryption == TransitEncryption::Disabled
        {
            text.push_str(" (deleted in preferred)");
        }
    }
    let _ = write!(
        text,
        "\nusers        {}, {}",
        if group.auth_token { "AUTH token" } else { "no AUTH token" },
        if group.user_groups.is_empty() {
            "no user group".to_owned()
        } else {
            format!("user groups {}", group.user_groups.join(", "))
        }
    );
    if let Some(global) = &group.global_datastore {
        let _ = write!(text, "\nglobal       {} of the global datastore {}", global.role, global.id);
    }
    let pending = group.pending.transit_encryption.map(|to| format!("transit encryption {to}"));
    let pending: Vec<String> = pending.into_iter().chain(group.pending.others.iter().cloned()).collect();
    let _ = write!(
        text,
        "\npending      {}; maintenance window {}",
        or(&pending, "nothing"),
        group
            .maintenance_window
            .as_deref()
            .map_or_else(|| "unknown".into(), |window| format!("{window} UTC"))
    );
}

/// Returns the group's position on the road to TLS.
fn position(plan: &Plan) -> String {
    match (plan.modification, plan.group.transit_encryption) {
        (Some(Modification { to: Some(to), running: true }), from) => {
            format!("changing from {from} to {to}: clients must not rely on {to} until the change has ended")
        }
        (Some(Modification { to: None, running: true }), _) => {
            "AWS is modifying the group, and does not report what".into()
        }
        (Some(Modification { to, running: false }), from) => {
            let to = to.map(|to| to.to_string()).unwrap_or_default();
            let window = plan.group.maintenance_window.as_deref().unwrap_or("of unknown time");
            format!(
                "{from}; AWS has accepted the change to {to}, which waits for the maintenance window {window}. The command below \
                 starts it now"
            )
        }
        (None, TransitEncryption::Disabled) => {
            "step 0 of 2: plaintext only. Next is preferred, then required".into()
        }
        (None, TransitEncryption::Preferred) => "step 1 of 2: plaintext and TLS. Next is required".into(),
        (None, TransitEncryption::Required) => "step 2 of 2: done, the group requires TLS".into(),
    }
}

fn step(text: &mut String, next: &NextStep) {
    if !next.before.is_empty() {
        let _ = write!(text, "\n\nFirst, each of these commands must succeed:");
        commands(text, &next.before);
    }
    let _ = write!(text, "\n\nThen modify the group to {}, with one of these.", next.to);
    let recipes = &next.recipes;
    for (tool, recipe) in [
        ("AWS CLI", &recipes.aws_cli),
        ("Terraform", &recipes.terraform),
        ("CloudFormation", &recipes.cloudformation),
    ] {
        let _ = write!(text, "\n\n{tool}:");
        lines(text, recipe);
    }
    let _ = write!(text, "\n\nFollow the change to its end:");
    lines(text, &next.follow);
    text.push('\n');
}

fn way_back(text: &mut String, plan: &Plan) {
    let way = &plan.way_back;
    if let Some(closed) = &way.closed {
        let _ = write!(text, "\nway back     closed by {closed}");
    }
    let Some(last) = way.commands.last() else { return };
    if way.closed.is_none() {
        let _ = write!(
            text,
            "\nway back     in place, one step after the other. Before the last step, move clients to plaintext, and restart the bridges \
             with tls.mode = \"disabled\": a bridge that has used TLS refuses plaintext"
        );
    } else {
        let _ = write!(text, "\n             once that is solved:");
    }
    commands(text, &way.commands[..way.commands.len() - 1]);
    lines(text, last);
}

fn commands(text: &mut String, commands: &[String]) {
    for command in commands {
        lines(text, command);
    }
}

/// Appends lines with an indent, which distinguishes commands from sentences.
fn lines(text: &mut String, lines: &str) {
    for line in lines.lines() {
        let _ = write!(text, "\n  {line}");
    }
}
