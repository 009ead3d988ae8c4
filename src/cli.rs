//! The command line: commands, flags, help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Effects, Style};
use clap::builder::styling::Styles;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::admin::client::Health;
use crate::commands::fleet::{BadFleetState, BridgeSource, FleetOptions};
use crate::commands::{self, run::NotStarted, status::Unless};
use crate::config::{self, Config, Problems};
use crate::credentials::NoSecret;
use crate::endpoint::{Endpoint, ListenAddr, UpstreamAddress, without_secrets};
use crate::group::WatchPace;

const EXAMPLES: &str = "\
Examples:
  pontoon run --upstream master.sessions.abc123.apne1.cache.amazonaws.com:6379
  pontoon run --config /etc/pontoon/pontoon.toml
  pontoon run --upstream cache.example --listen unix:/run/pontoon/redis.sock --tls-ca-file ca.pem

Each flag is also an environment variable and a key of the file. A flag overrides a variable, a variable overrides \
the file. config/pontoon.toml explains every key.";

const EXIT: &str =
    "Exit status: 0 success; 1 the answer is no, or a failure at run time; 2 usage or config error.";

/// The `pontoon` command.
pub fn command() -> Command {
    Command::new("pontoon")
        .version(version())
        .about("Carries plaintext Redis and Valkey clients over verified TLS")
        .after_help(EXIT)
        .styles(Styles::plain().error(ERROR))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("run").about("Run the sidecar").args(config::args()).after_help(EXAMPLES),
        )
        .subcommand(
            Command::new("check")
                .about("Validate the configuration, then dial each route as `run` would, and report each step")
                .args(config::args())
                .arg(switch("json", "Write JSON, one object in each line"))
                .arg(switch("offline", "Stop after validation"))
                .after_help("Exit status: 0 no step failed; 1 a step failed; 2 usage or config error."),
        )
        .subcommand(
            Command::new("probe")
                .about("Show what an endpoint accepts (plaintext, TLS or both), its certificate and engine, and the next step")
                .arg(
                    Arg::new("upstream")
                        .value_name("HOST[:PORT]")
                        .value_parser(value_parser!(OsString))
                        .required(true)
                        .help("Endpoint to probe; also redis:// and rediss:// URLs. Default port: 6379"),
                )
                .args(config::probe_args())
                .arg(
                    Arg::new("also")
                        .long("also")
                        .value_name("HOST[:PORT]")
                        .action(ArgAction::Append)
                        .value_parser(|text: &str| text.parse::<UpstreamAddress>().and_then(UpstreamAddress::anonymous))
                        .help("Another name of the same group, old or new: shows whether it leads to the same addresses, and whether the \
                               certificate is valid for it. Repeatable"),
                )
                .arg(switch("json", "Write JSON"))
                .after_help("Exit status: 0 pontoon can use TLS with it; 1 it cannot; 2 usage error."),
        )
        .subcommand(
            Command::new("audit")
                .about("Show the clients of a group at present: in plaintext or over TLS, through a bridge or not")
                .arg(
                    Arg::new("upstream")
                        .value_name("HOST[:PORT]")
                        .value_parser(value_parser!(OsString))
                        .required(true)
                        .num_args(1..)
                        .help("Endpoint of the group, which shows its other nodes. Give more endpoints if it does not"),
                )
                .args(config::audit_args())
                .arg(
                    Arg::new("bridge-name")
                        .long("bridge-name")
                        .value_name("PREFIX")
                        .action(ArgAction::Append)
                        .help("Count clients whose name begins with this as bridged (pontoon's --client-name), for engines older \
                               than CLIENT SETINFO, where all others are unknown; repeatable"),
                )
                .arg(
                    Arg::new("watch")
                        .long("watch")
                        .value_name("DUR")
                        .value_parser(config::duration)
                        .help(
                            "Ask repeatedly for this long, for example 24h, and list every client that was seen, with the first and the \
                             last time. Ctrl-C and SIGTERM end it early",
                        ),
                )
                .arg(
                    Arg::new("every")
                        .long("every")
                        .value_name("DUR")
                        .value_parser(config::positive)
                        .requires("watch")
                        .default_value("1s")
                        .help("With --watch, the time between two samples. A shorter connection may be missed, and each sample costs \
                             a CLIENT LIST at every node"),
                )
                .arg(switch("json", "Write JSON"))
                .after_help(
                    "Exit status: 0 every node answered and counts no client in plaintext (with --watch, in each sample); 1 a node \
                     counts one, or the answer is not known; 2 usage error.",
                ),
        )
        .subcommand(
            Command::new("health")
                .about("Check whether the pontoon at --admin is serving, for images without a shell and for apps that must wait")
                .arg(admin())
                .arg(
                    Arg::new("wait")
                        .long("wait")
                        .value_name("DUR")
                        .value_parser(config::duration)
                        .help("Wait up to this long until it is serving"),
                )
                .arg(switch(
                    "live",
                    "Check only that its process works, regardless of the upstreams: for checks that restart the container, the pod \
                     or the task",
                ))
                .after_help(EXIT),
        )
        .subcommand(
            Command::new("status")
                .about("Show whether TLS can be required, which clients use the pontoon at --admin, and what they need to use TLS themselves")
                .arg(admin())
                .arg(switch("json", "Write JSON"))
                .arg(fail_unless(
                    "Exit with 1 unless every route has this state. tls-only: this bridge uses only TLS; ready: also, the servers \
                     report no plaintext client; unused: its bridge can be removed",
                ))
                .after_help(
                    "Exit status: 0 the pontoon answered, and with --fail-unless each route has the state; 1 it has not, or there was no \
                     answer; 2 usage error.",
                ),
        )
        .subcommand(fleet())
        .subcommand(
            Command::new("plan")
                .about(
                    "Show how far ElastiCache groups are on the way from plaintext to TLS, what blocks them, and the next command. \
                     Reads from AWS, and changes nothing",
                )
                .arg(
                    Arg::new("group")
                        .long("group")
                        .value_name("ID")
                        .help("Replication group to plan for. Default: every group that fails ElastiCache.5"),
                )
                .arg(
                    Arg::new("region")
                        .long("region")
                        .value_name("REGION")
                        .action(ArgAction::Append)
                        .help("AWS region; repeatable without --group. Default: that of the environment or the profile"),
                )
                .arg(
                    Arg::new("wait")
                        .long("wait")
                        .value_name("DUR")
                        .num_args(0..=1)
                        .require_equals(true)
                        .default_missing_value("2h")
                        .requires("group")
                        .value_parser(config::duration)
                        .help("Follow a modification to its end, for at most this long (2h if no time is given)"),
                )
                .arg(
                    Arg::new("interval")
                        .long("interval")
                        .value_name("DUR")
                        .default_value("15s")
                        .requires("wait")
                        .value_parser(config::positive)
                        .help("Time between two requests to AWS while waiting"),
                )
                .arg(switch("json", "Write JSON"))
                .after_help(
                    "Credentials and endpoints come from AWS' own settings: AWS_PROFILE, AWS_ACCESS_KEY_ID, roles, AWS_ENDPOINT_URL. \
                     config/iam/plan.json is a policy with all permissions that are needed.\n\n\
                     Exit status: 0 the plan was made, and with --wait the modification has ended; 1 no plan could \
                     be made, or the modification has not ended; 2 usage error.",
                ),
        )
        .subcommand(
            Command::new("demo")
                .hide(!cfg!(feature = "demo"))
                .about("Demonstrate pontoon without a server: a TLS endpoint, a bridge, and a plaintext client")
                .arg(switch("serve", "Keep the endpoint and the bridge running, for redis-cli and your own clients")),
        )
        .subcommand(
            Command::new("completions")
                .about("Write shell completions to standard output")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell))),
        )
        .subcommand(
            Command::new("man").about("Write man pages, one for each command").arg(
                Arg::new("directory")
                    .value_name("DIR")
                    .required(true)
                    .value_parser(value_parser!(PathBuf))
                    .help("Directory to write to; created if it does not exist"),
            ),
        )
}

/// The version with the commit, if the build knew it, and the cargo features: `0.1.0 (commit 1a2b3c4, features: iam)`.
fn version() -> String {
    let commit = option_env!("PONTOON_COMMIT").map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    let features = [("demo", cfg!(feature = "demo")), ("iam", cfg!(feature = "iam"))];
    let features: Vec<&str> = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    format!("{} ({commit}features: {features})", env!("CARGO_PKG_VERSION"))
}

fn fleet() -> Command {
    Command::new("fleet")
        .about("Combine the reports of many bridges into one answer for each group: can TLS be required, and which clients still need a bridge")
        .arg(
            Arg::new("bridge")
                .value_name("BRIDGE")
                .num_args(0..)
                .value_parser(|text: &str| text.parse::<BridgeSource>())
                .help(
                    "Admin address of a bridge, or a name whose addresses are all bridges, such as a headless service. Default port: \
                     9900. A name that has an IPv4 and an IPv6 address for each bridge counts it twice: give the addresses of one family",
                ),
        )
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("FILE")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("File with one BRIDGE in each line; # begins a comment. Repeatable"),
        )
        .arg(
            Arg::new("expect")
                .long("expect")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .help("Answer no unless N bridges answer, over all groups. Each address counts as a bridge"),
        )
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("File that remembers which bridges have answered. These are asked, too, and any missing bridge makes every answer no"),
        )
        .arg(
            Arg::new("forget")
                .long("forget")
                .value_name("ADDR")
                .action(ArgAction::Append)
                .requires("state")
                .help("Remove a bridge that no longer exists from the state file. Repeatable"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DUR")
                .value_parser(config::duration)
                .default_value("3s")
                .help("Time after which a bridge counts as not answering"),
        )
        .arg(switch("json", "Write JSON"))
        .arg(fail_unless(
            "Exit with 1 unless every group has this state. tls-only: each bridge uses only TLS; ready: also, the servers report \
             no plaintext client; unused: its bridges can be removed",
        ))
        .after_help(
            "Routes belong to one group if they have the same endpoint name, or if the servers that they ask have an address, a \
             cluster node id or a run_id in common. Loopback addresses and names without a dot do not count, because they differ \
             between machines. The key `group` of a route overrides all of this. If a bridge does not answer, the answer for each \
             group is no.\n\n\
             Exit status: 0 success; 1 the answer is no, or no bridge answered; 2 usage error, or a damaged state file.",
        )
}

fn fail_unless(help: &'static str) -> Arg {
    Arg::new("fail-unless")
        .long("fail-unless")
        .value_name("STATE")
        .value_parser(["tls-only", "ready", "unused"])
        .help(help)
}

fn unless(matches: &ArgMatches) -> Option<Unless> {
    matches.get_one::<String>("fail-unless").map(|state| match state.as_str() {
        "tls-only" => Unless::TlsOnly,
        "ready" => Unless::Ready,
        _ => Unless::Unused,
    })
}

/// The address of a running pontoon.
fn admin() -> Arg {
    Arg::new("admin")
        .long("admin")
        .env("PONTOON_ADMIN")
        .value_name("ADDR")
        .default_value("127.0.0.1:9900")
        .help("Admin address of the running pontoon, such as 127.0.0.1:9900 or unix:/run/pontoon/admin.sock")
}

fn admin_address(matches: &ArgMatches) -> Result<ListenAddr, Usage> {
    let text = matches.get_one::<String>("admin").expect("the flag has a default");
    ListenAddr::private(text).map_err(|error| Usage(format!("--admin: {error}")))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// How an error begins on a terminal.
pub const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);

/// The exit code and the message for standard error.
#[derive(Debug)]
pub struct Failure {
    /// 1 if the answer is no, or pontoon failed at run time; 2 for a usage or configuration error.
    pub code: u8,
    /// One line for each problem.
    pub message: String,
}

/// Parses `args` and runs the command.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => match without_arguments_secrets(&error, &args) {
            Some(message) => return Err(Failure { code: 2, message }),
            // clap itself prints usage errors and help, and exits with 2 or 0.
            None => error.exit(),
        },
    };
    let failed = |error: anyhow::Error| {
        let usage = error.is::<Problems>()
            || error.downcast_ref::<NotStarted>().is_some_and(|error| !error.may_pass())
            || error.is::<Usage>()
            || error.is::<NoSecret>()
            || error.is::<BadFleetState>();
        Failure { code: if usage { 2 } else { 1 }, message: format!("{error:#}") }
    };
    dispatch(&matches).map_err(failed)
}

/// If a usage error repeats an argument with what could be a secret, its first line without that.
fn without_arguments_secrets(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let said = error.to_string();
    let shown = args.iter().filter_map(|arg| arg.to_str()).fold(said.clone(), |said, arg| {
        let value =
            arg.strip_prefix("--").and_then(|flag| flag.split_once('=')).map_or(arg, |(_, value)| value);
        without_secrets(said, value)
    });
    let first = shown.lines().next().unwrap_or_default();
    (shown != said).then(|| first.strip_prefix("error: ").unwrap_or(first).to_owned())
}

/// A usage error that clap does not detect.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn dispatch(matches: &ArgMatches) -> anyhow::Result<()> {
    match matches.subcommand() {
        Some(("run", matches)) => {
            let config = Config::load(matches)?;
            let matches = matches.clone();
            commands::run::run(config, Box::new(move || Config::load(&matches)))
        }
        Some(("check", matches)) => {
            let options = commands::check::CheckOptions {
                json: matches.get_flag("json"),
                offline: matches.get_flag("offline"),
            };
            commands::check::run(Config::load(matches)?, &options)
        }
        Some(("probe", matches)) => {
            let config = Config::load(matches)?;
            let options = commands::probe::ProbeOptions {
                json: matches.get_flag("json"),
                also: matches.get_many::<Endpoint>("also").into_iter().flatten().cloned().collect(),
                certificate_left: config.verdict.certificate_left,
            };
            commands::probe::run(config.routes.first().expect("validated: there is a route"), &options)
        }
        Some(("audit", matches)) => {
            let config = Config::load(matches)?;
            let options = commands::audit::AuditOptions {
                json: matches.get_flag("json"),
                bridges: matches.get_many::<String>("bridge-name").into_iter().flatten().cloned().collect(),
                watch: matches.get_one::<Duration>("watch").map(|&length| WatchPace {
                    length,
                    every: *matches.get_one::<Duration>("every").expect("the flag has a default"),
                }),
            };

            let route = config.routes.first().expect("validated: there is a route");
            if route.upstream.auth.is_some() && route.upstream.tls.insecure_skip_verify {
                let problem = "a password is not sent over TLS without verification: remove the password, or \
                               --tls-insecure-skip-verify";
                return Err(Usage(problem.into()).into());
            }
            commands::audit::run(route, options)
        }
        Some(("health", matches)) => {
            let wait = matches.get_one::<Duration>("wait").copied().unwrap_or_default();
            let health = if matches.get_flag("live") { Health::Live } else { Health::Serving };
            commands::health::run(admin_address(matches)?, health, wait)
        }
        Some(("status", matches)) => {
            commands::status::run(admin_address(matches)?, matches.get_flag("json"), unless(matches))
        }
        Some(("fleet", matches)) => {
            let given = matches.get_many::<BridgeSource>("bridge").into_iter().flatten();
            let mut sources: Vec<BridgeSource> = given.cloned().collect();
            for file in matches.get_many::<PathBuf>("from").into_iter().flatten() {
                sources.extend(commands::fleet::read(file).map_err(Usage)?);
            }
            let options = FleetOptions {
                sources,
                expect: matches.get_one("expect").copied(),
                memory: matches.get_one("state").cloned(),
                forget: matches.get_many::<String>("forget").into_iter().flatten().cloned().collect(),
                timeout: *matches.get_one("timeout").expect("the flag has a default"),
                json: matches.get_flag("json"),
                unless: unless(matches),
            };
            if options.sources.is_empty() && options.memory.is_none() {
                return Err(
                    Usage("no bridge is given: give at least one, or a file with --from".into()).into()
                );
            }
            commands::fleet::run(&options)
        }
        Some(("plan", matches)) => {
            let regions: Vec<String> = matches.get_many("region").into_iter().flatten().cloned().collect();
            let group = matches.get_one::<String>("group").cloned();
            if group.is_some() && regions.len() > 1 {
                return Err(Usage("--group allows only one --region: a group is in one region".into()).into());
            }
            commands::plan::run(&commands::plan::PlanOptions {
                group,
                regions,
                wait: matches.get_one::<Duration>("wait").copied(),
                interval: *matches.get_one::<Duration>("interval").expect("the flag has a default"),
                json: matches.get_flag("json"),
            })
        }
        #[cfg(feature = "demo")]
        Some(("demo", matches)) => commands::demo::run(matches.get_flag("serve")),
        #[cfg(not(feature = "demo"))]
        Some(("demo", _)) => {
            Err(Usage("this build has no demo: build pontoon with the cargo feature \"demo\"".into()).into())
        }
        Some(("completions", matches)) => {
            let shell = *matches.get_one::<Shell>("shell").expect("it is required");
            commands::completions::run(shell, &mut command())
        }
        Some(("man", matches)) => {
            commands::man::run(matches.get_one::<PathBuf>("directory").expect("it is required"), command())
        }
        _ => unreachable!("clap requires one of the commands above"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
