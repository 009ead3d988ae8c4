//! Tests of plans.

use super::*;

/// A group that can go to `preferred`.
fn plaintext() -> GroupFacts {
    let endpoint = |r#use, name: &str| {
        GroupEndpoint::new("sessions", r#use, format!("{name}.cache.amazonaws.com"), 6379)
    };
    GroupFacts {
        id: "sessions".into(),
        region: "eu-west-1".into(),
        status: "available".into(),
        transit_encryption: TransitEncryption::Disabled,
        engine: "redis".into(),
        engine_version: Some(EngineVersion(7, 1, 0)),
        cluster_mode: false,
        cluster_endpoint_type: None,
        parameter_groups: vec!["default.redis7".into()],
        node_types: vec!["cache.r6g.large".into()],
        nodes: 2,
        endpoints: vec![
            endpoint(EndpointUse::Primary, "sessions.abc123.ng.0001.euw1"),
            endpoint(EndpointUse::Reader, "sessions-ro.abc123.ng.0001.euw1"),
            endpoint(EndpointUse::Node, "sessions-001.abc123.0001.euw1"),
        ],
        auth_token: false,
        user_groups: Vec::new(),
        global_datastore: None,
        pending: PendingChanges::default(),
        maintenance_window: Some("sun:05:00-sun:06:00".into()),
    }
}

fn in_mode(transit_encryption: TransitEncryption) -> GroupFacts {
    GroupFacts { transit_encryption, ..plaintext() }
}

/// Returns the only blocker.
#[track_caller]
fn blocked(group: GroupFacts) -> Blocker {
    let plan = Plan::new(group);
    assert!(plan.next.is_none(), "{plan:?}");
    let [blocker] = <[Blocker; 1]>::try_from(plan.blockers).unwrap();
    blocker
}

#[test]
fn a_plaintext_group_goes_to_preferred_and_a_preferred_one_to_required() {
    for (from, to, flags) in [
        (TransitEncryption::Disabled, TransitEncryption::Preferred, "preferred"),
        (TransitEncryption::Preferred, TransitEncryption::Required, "required"),
    ] {
        let plan = Plan::new(in_mode(from));
        assert!(plan.blockers.is_empty(), "{:?}", plan.blockers);
        assert_eq!(plan.fails_elasticache_5, from == TransitEncryption::Disabled);
        let next = plan.next.unwrap();
        assert_eq!(next.to, to);
        assert_eq!(
            next.recipes.aws_cli,
            format!(
                "aws elasticache modify-replication-group --region eu-west-1 --replication-group-id sessions \
                 --transit-encryption-enabled --transit-encryption-mode {flags} --apply-immediately"
            )
        );
        assert_eq!(next.follow, "pontoon plan --region eu-west-1 --group sessions --wait");
    }
    let done = Plan::new(in_mode(TransitEncryption::Required));
    assert!(done.next.is_none() && done.blockers.is_empty() && !done.fails_elasticache_5);
}

#[test]
fn required_comes_only_after_proof_that_no_client_uses_plaintext() {
    assert!(Plan::new(plaintext()).next.unwrap().before.is_empty());
    let before = Plan::new(in_mode(TransitEncryption::Preferred)).next.unwrap().before;
    assert!(before[0].starts_with("pontoon audit sessions.abc123."), "{before:?}");
    assert_eq!(before[1], "pontoon status --fail-unless ready");
}

#[test]
fn an_engine_that_cannot_be_changed_in_place_is_upgraded_first() {
    for (engine, version, in_place) in [
        ("redis", EngineVersion(6, 2, 6), false),
        ("redis", EngineVersion(7, 0, 4), false),
        ("redis", EngineVersion(7, 0, 5), true),
        ("valkey", EngineVersion(7, 2, 6), true),
        ("valkey", EngineVersion(8, 0, 1), true),
    ] {
        let group = GroupFacts { engine: engine.into(), engine_version: Some(version), ..plaintext() };
        let plan = Plan::new(group.clone());
        assert_eq!(plan.changes_in_place, in_place, "{engine} {version}");
        assert_eq!(plan.next.is_some(), in_place, "{engine} {version}");
        if !in_place {
            let blocker = blocked(group);
            assert!(blocker.commands[0].contains("--engine-version 7.1"), "{blocker:?}");
        }
    }
}

#[test]
fn an_upgrade_keeps_the_settings_of_a_custom_parameter_group() {
    let old = GroupFacts { engine_version: Some(EngineVersion(5, 0, 6)), cluster_mode: true, ..plaintext() };
    assert!(
        blocked(old.clone()).commands[0].contains("--cache-parameter-group-name default.redis7.cluster.on")
    );
    let own = GroupFacts { parameter_groups: vec!["own-redis5".into()], ..old };
    assert!(blocked(own).remedy.contains("own-redis5"));
}

#[test]
fn an_unknown_version_blocks() {
    let blocker = blocked(GroupFacts { engine_version: None, ..plaintext() });
    assert!(blocker.what.contains("unknown"), "{blocker:?}");
}

#[test]
fn old_node_types_and_global_datastores_block_with_a_remedy() {
    let old = blocked(GroupFacts { node_types: vec!["cache.m1.small".into()], ..plaintext() });
    assert!(old.commands[0].starts_with("aws elasticache list-allowed-node-type-modifications"), "{old:?}");
    let global = |role: &str| {
        let global_datastore = Some(GlobalDatastore { id: "ldgnf-x".into(), role: role.into() });
        blocked(GroupFacts { global_datastore, ..plaintext() })
    };
    assert!(global("PRIMARY").commands[0].contains("--retain-primary-replication-group"));
    let preferred = GroupFacts {
        global_datastore: Some(GlobalDatastore { id: "ldgnf-x".into(), role: "PRIMARY".into() }),
        ..in_mode(TransitEncryption::Preferred)
    };
    assert!(Plan::new(preferred).next.is_some(), "a member in preferred can go on to required");
    assert!(global("SECONDARY").commands[0].contains("disassociate-global-replication-group"));
}

#[test]
fn user_groups_block_the_next_step_and_the_way_back() {
    let user_groups = vec!["apps".to_owned()];
    let preferred = GroupFacts { user_groups: user_groups.clone(), ..in_mode(TransitEncryption::Preferred) };
    assert!(blocked(preferred).commands[0].contains("--remove-user-groups"));
    let required = Plan::new(GroupFacts { user_groups, ..in_mode(TransitEncryption::Required) });
    assert!(required.blockers.is_empty());
    assert!(required.way_back.closed.unwrap().contains("--remove-user-groups"));
}

#[test]
fn the_way_back_has_as_many_steps_as_the_way_there() {
    let commands = |mode| Plan::new(in_mode(mode)).way_back.commands;
    // The way back is shown before the step, too, so that people know whether the step can be undone.
    assert!(commands(TransitEncryption::Disabled)[0].contains("--no-transit-encryption-enabled"));
    for mode in [TransitEncryption::Preferred, TransitEncryption::Required] {
        let commands = commands(mode);
        assert!(commands[0].contains("--transit-encryption-mode preferred"), "{commands:?}");
        assert!(commands[2].contains("--no-transit-encryption-enabled"), "{commands:?}");
    }
    let token = Plan::new(GroupFacts { auth_token: true, ..in_mode(TransitEncryption::Required) });
    assert!(token.way_back.closed.unwrap().contains("AUTH"));
}

#[test]
fn a_running_modification_blocks_until_it_has_ended() {
    let pending =
        PendingChanges { transit_encryption: Some(TransitEncryption::Preferred), others: Vec::new() };
    let running = GroupFacts { status: "modifying".into(), pending, ..plaintext() };
    assert!(Plan::new(running.clone()).is_changing());
    assert_eq!(blocked(running).commands, ["pontoon plan --region eu-west-1 --group sessions --wait"]);
    let other = GroupFacts { status: "deleting".into(), ..plaintext() };
    assert!(blocked(other).commands[0].starts_with("aws elasticache describe-events"));
}

#[test]
fn a_modification_that_waits_for_its_window_can_start_now() {
    let pending = PendingChanges {
        transit_encryption: Some(TransitEncryption::Preferred),
        others: vec!["engine version 7.2".into()],
    };
    let plan = Plan::new(GroupFacts { pending, ..plaintext() });
    assert!(!plan.is_changing());
    assert_eq!(plan.next.as_ref().unwrap().to, TransitEncryption::Preferred);
    let text = text(&plan);
    assert!(text.contains("waits for the maintenance window sun:05:00-sun:06:00"), "{text}");
    assert!(text.contains("also applies pending changes: engine version 7.2"), "{text}");
}

#[test]
fn a_plan_lists_the_names_that_its_step_deletes() {
    let text = |group| text(&Plan::new(group));
    let plaintext = text(plaintext());
    assert!(plaintext.contains("clients must not use sessions-001.abc123.0001.euw1"), "{plaintext}");
    assert!(plaintext.contains("with TLS master.sessions.abc123.euw1.cache.amazonaws.com"), "{plaintext}");
    let mut preferred = in_mode(TransitEncryption::Preferred);
    preferred.endpoints = vec![GroupEndpoint::new(
        "sessions",
        EndpointUse::Primary,
        "master.sessions.abc123.euw1.cache.amazonaws.com".into(),
        6379,
    )];
    let preferred = text(preferred);
    assert!(
        preferred.contains("deletes the names without TLS: sessions.abc123.ng.0001.euw1.cache.amazonaws.com"),
        "{preferred}"
    );
}

#[test]
fn a_cluster_that_gives_clients_addresses_causes_a_caution() {
    let group = GroupFacts { cluster_mode: true, cluster_endpoint_type: Some("ip".into()), ..plaintext() };
    assert!(text(&Plan::new(group)).contains("cluster-preferred-endpoint-type is ip in default.redis7"));
}

#[test]
fn terraform_and_cloudformation_change_one_step_at_a_time() {
    let recipes = Plan::new(plaintext()).next.unwrap().recipes;
    for words in
        ["transit_encryption_mode    = \"preferred\"", "apply_immediately          = true", "two applies"]
    {
        assert!(recipes.terraform.contains(words), "{}", recipes.terraform);
    }
    assert!(
        recipes.cloudformation.contains("TransitEncryptionMode: preferred"),
        "{}",
        recipes.cloudformation
    );
    let recipes = Plan::new(in_mode(TransitEncryption::Preferred)).next.unwrap().recipes;
    assert!(recipes.terraform.contains("\"required\"\n"), "{}", recipes.terraform);
}

fn waiting(transit_encryption: TransitEncryption, to: TransitEncryption) -> GroupFacts {
    let pending = PendingChanges { transit_encryption: Some(to), ..PendingChanges::default() };
    GroupFacts { pending, ..in_mode(transit_encryption) }
}

#[test]
fn a_waiting_change_back_to_plaintext_is_not_a_next_step() {
    let blocker = blocked(waiting(TransitEncryption::Preferred, TransitEncryption::Disabled));
    assert!(blocker.what.contains("sun:05:00-sun:06:00"), "{}", blocker.what);
    assert!(blocker.commands[0].contains("--transit-encryption-mode preferred"), "{:?}", blocker.commands);
    let forward = Plan::new(waiting(TransitEncryption::Preferred, TransitEncryption::Required));
    assert_eq!(forward.next.map(|next| next.to), Some(TransitEncryption::Required));
    assert!(forward.cautions[0].contains("applies it in the maintenance window"), "{:?}", forward.cautions);
}

#[test]
fn a_way_back_that_aws_refuses_is_closed() {
    let old =
        GroupFacts { engine_version: Some(EngineVersion(6, 2, 0)), ..in_mode(TransitEncryption::Required) };
    assert!(Plan::new(old).way_back.closed.is_some());
    let datastore = || Some(GlobalDatastore { id: "world".into(), role: "PRIMARY".into() });
    for mode in [TransitEncryption::Preferred, TransitEncryption::Required] {
        let plan = Plan::new(GroupFacts { global_datastore: datastore(), ..in_mode(mode) });
        assert!(plan.way_back.closed.is_some_and(|why| why.contains("world")), "{mode}");
    }
    assert!(Plan::new(in_mode(TransitEncryption::Required)).way_back.closed.is_none());
}

#[test]
fn an_upgrade_command_leaves_a_custom_parameter_group_to_fill_in() {
    let group = GroupFacts {
        engine_version: Some(EngineVersion(6, 2, 0)),
        parameter_groups: vec!["own-redis6".into()],
        ..plaintext()
    };
    let blocker = blocked(group);
    assert!(blocker.commands[0].contains("YOUR-PARAMETER-GROUP"), "{:?}", blocker.commands);
    assert!(blocker.remedy.contains("own-redis6"), "{}", blocker.remedy);
}

#[test]
fn a_member_of_unknown_role_is_not_deleted() {
    let member = GlobalDatastore { id: "world".into(), role: "member".into() };
    let blocker = blocked(GroupFacts { global_datastore: Some(member), ..plaintext() });
    assert!(blocker.commands[0].contains("describe-global-replication-groups"), "{:?}", blocker.commands);
}
