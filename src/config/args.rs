//! Reads the command line and the environment into [`Values`], by the same table of keys as the file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::keys::{GLOBAL, Kind, ROUTE, SettingKey};
use super::nearest::nearest;
use super::values::{Given, Values};

/// The arguments of `run` and `check`.
pub fn args() -> impl Iterator<Item = Arg> {
    let file = Arg::new("config")
        .long("config")
        .short('c')
        .env("PONTOON_CONFIG")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("TOML file; required for several routes");
    let shown = |key: &'static SettingKey| arg(key).hide_short_help(!EVERYDAY.contains(&key.path));
    let route = ROUTE.iter().map(move |key| shown(key).help_heading(heading(key)));
    let global = GLOBAL.iter().map(move |key| shown(key).help_heading("Process"));
    std::iter::once(file).chain(route).chain(global)
}

/// The arguments of `probe`: those about connecting.
pub fn probe_args() -> impl Iterator<Item = Arg> {
    ROUTE.iter().filter(|key| DIALLING.contains(&key.path)).map(arg)
}

/// The arguments of `audit`: those of `probe`, and those about plaintext for a group that does not accept TLS yet.
pub fn audit_args() -> impl Iterator<Item = Arg> {
    ROUTE.iter().filter(|key| DIALLING.contains(&key.path) || PLAINTEXT.contains(&key.path)).map(arg)
}

/// Keys that decide how pontoon connects to an endpoint and which credentials it presents there.
const DIALLING: [&str; 16] = [
    "tls.ca_files",
    "tls.server_name",
    "tls.pins",
    "tls.cert_file",
    "tls.key_file",
    "tls.insecure_skip_verify",
    "auth.username",
    "auth.password",
    "auth.password_file",
    "auth.password_env",
    "auth.password_command",
    "auth.iam.cache_name",
    "auth.iam.service",
    "auth.iam.serverless",
    "auth.iam.region",
    "limits.connect_timeout",
];

/// Keys that decide whether plaintext is used.
const PLAINTEXT: [&str; 2] = ["tls.mode", "auth.allow_plaintext"];

/// Keys that `run -h` shows. `run --help` shows all keys.
const EVERYDAY: [&str; 12] = [
    "upstream",
    "listen",
    "topology",
    "name",
    "tls.mode",
    "tls.ca_files",
    "auth.username",
    "auth.password_file",
    "evidence.interval",
    "admin.listen",
    "log.level",
    "runtime.state_file",
];

/// A message for each variable of `names` that begins as pontoon's variables do, but is unknown.
pub(super) fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> =
        ROUTE.iter().chain(GLOBAL).map(SettingKey::variable).chain(["PONTOON_CONFIG".to_owned()]).collect();
    let mut unknown: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_set_by_kubernetes(name))
        .collect();
    unknown.sort_unstable();
    // The prefix that all have would make all alike.
    let suffixes = || known.iter().filter_map(|name| name.strip_prefix(PREFIX));
    let message = |name: &String| {
        let hint = match nearest(&name[PREFIX.len()..], suffixes()) {
            Some(meant) => format!("did you mean {PREFIX}{meant}?"),
            None => "`pontoon run --help` lists all variables".to_owned(),
        };
        format!("{name} is ignored, because pontoon has no such variable: {hint}")
    };
    unknown.iter().map(message).collect()
}

const PREFIX: &str = "PONTOON_";

/// Whether Kubernetes sets this variable for a Service whose name begins with "pontoon": `PONTOON_SERVICE_HOST`, `PONTOON_PORT_9900_TCP`.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn is_set_by_kubernetes(name: &str) -> bool {
    let delimited = format!("{name}_");
    ["_SERVICE_HOST_", "_SERVICE_PORT_", "_PORT_"].iter().any(|part| delimited.contains(part))
}

fn heading(key: &SettingKey) -> &'static str {
    match key.path.split_once('.') {
        Some(("tls", _)) => "TLS",
        Some(("auth", _)) => "Credentials",
        Some(("pool", _)) => "Pool",
        Some(("evidence", _)) => "Evidence",
        Some(("cluster", _)) => "Cluster",
        Some(("sentinel", _)) => "Sentinel",
        Some(_) => "Limits",
        None => "Route",
    }
}

fn arg(key: &'static SettingKey) -> Arg {
    let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
    // Values are text here. They are checked together with the file's, so that all problems are reported at once.
    let arg = Arg::new(key.flag)
        .long(key.flag)
        .env(key.variable())
        .hide_env_values(true)
        .value_name(key.value)
        .value_parser(value_parser!(OsString))
        .help(format!("{}{default}", key.help));
    match key.kind {
        Kind::List => arg.action(ArgAction::Append).value_delimiter(','),
        Kind::Switch => arg.num_args(0..=1).default_missing_value("true"),
        Kind::Text | Kind::Integer | Kind::Words => arg,
        // The flag exists only to be refused with a reason.
        Kind::Secret => arg.hide(true),
    }
}

/// The values from the command line and the environment.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    pub(super) file: Option<PathBuf>,
    pub(super) global: Values,
    pub(super) route: Values,
}

pub(super) fn read(matches: &ArgMatches) -> CommandLine {
    let mut given = CommandLine {
        file: matches
            .try_get_one::<PathBuf>("config")
            .ok()
            .flatten()
            .filter(|path| !path.as_os_str().is_empty())
            .cloned(),
        global: values(matches, GLOBAL),
        route: values(matches, ROUTE),
    };
    if !given.global.contains_key("log.level")
        && let Some(level) = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty())
    {
        given.global.insert("log.level", vec![Given { place: "RUST_LOG".into(), text: level }]);
    }
    given
}

fn values(matches: &ArgMatches, keys: &'static [SettingKey]) -> Values {
    let mut values = Values::new();
    // A command may have only some of the keys.
    for key in keys.iter().filter(|key| matches.try_contains_id(key.flag).is_ok()) {
        let variable = matches.value_source(key.flag) == Some(ValueSource::EnvVariable);
        let place = if variable { key.variable() } else { format!("--{}", key.flag) };
        let given = matches.get_many::<OsString>(key.flag).into_iter().flatten();
        // An argument from the system is not split; a list of words from a person is, at spaces.
        let words = |text: &OsString| match key.kind {
            Kind::Words => text.to_string_lossy().split_whitespace().map(OsString::from).collect(),
            _ => vec![text.clone()],
        };
        let given: Vec<Given> = given
            .flat_map(words)
            .map(|text| Given { place: place.clone(), text: text.to_string_lossy().into_owned() })
            // Many deployments set an empty variable to mean "not set".
            .filter(|given| !(variable && given.text.is_empty()))
            .collect();
        if !given.is_empty() {
            values.insert(key.path, given);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_reported_with_the_one_that_was_meant() {
        let report = |name: &str| unknown_variables([OsString::from(name)].into_iter());
        assert_eq!(
            report("PONTOON_UPSTREM"),
            [
                "PONTOON_UPSTREM is ignored, because pontoon has no such variable: did you mean PONTOON_UPSTREAM?"
            ]
        );
        assert!(report("PONTOON_WEATHER")[0].ends_with("`pontoon run --help` lists all variables"));
        for known in ["PONTOON_UPSTREAM", "PONTOON_CONFIG", "PONTOON_AUTH_PASSWORD", "REDIS_UPSTREM"] {
            assert!(report(known).is_empty(), "{known}");
        }
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_are_not_reported() {
        for name in [
            "PONTOON_SERVICE_HOST",
            "PONTOON_SERVICE_PORT_METRICS",
            "PONTOON_PORT",
            "PONTOON_PORT_9900_TCP_ADDR",
            "PONTOON_METRICS_SERVICE_HOST",
        ] {
            assert!(unknown_variables([OsString::from(name)].into_iter()).is_empty(), "{name}");
        }
    }

    #[test]
    fn each_key_that_a_list_names_exists() {
        let exists = |path: &&str| ROUTE.iter().chain(GLOBAL).any(|key| *key.path == **path);
        assert!(DIALLING.iter().chain(&PLAINTEXT).chain(&EVERYDAY).all(exists));
    }
}
