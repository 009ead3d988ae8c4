//! Reads the command line and the environment into [`Values`], by the same table of keys as the file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::keys::{GLOBAL, Kind, ROUTE, SettingKey};
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
    let route = ROUTE.iter().map(|key| arg(key).help_heading(heading(key)));
    let global = GLOBAL.iter().map(|key| arg(key).help_heading("Process"));
    std::iter::once(file).chain(route).chain(global)
}

/// The arguments of `probe`: those about connecting.
pub fn probe_args() -> impl Iterator<Item = Arg> {
    ROUTE.iter().filter(|key| is_of_dialling(key) && !PLAINTEXT.contains(&key.path)).map(arg)
}

/// The arguments of `audit`: those of `probe`, and those about plaintext for a group that does not accept TLS yet.
pub fn audit_args() -> impl Iterator<Item = Arg> {
    ROUTE.iter().filter(|key| is_of_dialling(key)).map(arg)
}

/// Keys that decide whether plaintext is used.
const PLAINTEXT: [&str; 2] = ["tls.mode", "auth.allow_plaintext"];

fn is_of_dialling(key: &SettingKey) -> bool {
    const NOT: [&str; 2] = ["tls.upgrade", "tls.min_version"];
    let tables = key.path.starts_with("tls.") || key.path.starts_with("auth.");
    (tables && !NOT.contains(&key.path)) || key.path == "limits.connect_timeout"
}

fn heading(key: &SettingKey) -> &'static str {
    match key.path.split_once('.') {
        Some(("tls", _)) => "TLS",
        Some(("auth", _)) => "Credentials",
        Some(("pool", _)) => "Pool",
        Some(("evidence", _)) => "Evidence",
        Some(("cluster", _)) => "Cluster",
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
