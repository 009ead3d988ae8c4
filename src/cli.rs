//! The command line: commands, flags, help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::Styles;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::admin::client::Health;
use crate::commands::fleet::{BridgeSource, FleetOptions};
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

Each flag is also an environment variable and a key of the file: a flag beats a variable, a variable beats the
file. config/pontoon.toml explains every key.";

const EXIT: &str =
    "Exit status: 0 done; 1 the answer is no, or it failed at run time; 2 usage or config error.";

/// The `pontoon` command.
pub fn command() -> Command {
    Command::new("pontoon")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Carries plaintext Redis and Valkey clients over verified TLS")
        .after_help(EXIT)
        .styles(Styles::plain())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("run").about("Run the sidecar").args(config::args()).after_help(EXAMPLES),
        )
        .subcommand(
            Command::new("check")
                .about("Validate the configuration, then dial each route as `run` would, and say how each step went")
                .args(config::args())
                .arg(switch("json", "Write JSON, one object a line"))
                .arg(switch("offline", "Stop after validation"))
                .after_help(EXIT),
        )
        .subcommand(
            Command::new("probe")
                .about("What does this endpoint accept? Plaintext, TLS, both; certificate, engine, and the next step")
                .arg(
                    Arg::new("upstream")
                        .value_name("HOST[:PORT]")
                        .value_parser(value_parser!(OsString))
                        .required(true)
                        .help("Endpoint to look at; also redis:// and rediss:// URLs. Port 6379 if none is given"),
                )
                .args(config::probe_args())
                .arg(
                    Arg::new("also")
                        .long("also")
                        .value_name("HOST[:PORT]")
                        .action(ArgAction::Append)
                        .value_parser(|text: &str| text.parse::<UpstreamAddress>().and_then(UpstreamAddress::anonymous))
                        .help("Another name of the same group, old or new: does it lead to the same addresses, and is the \
                               certificate good for it? Repeatable"),
                )
                .arg(switch("json", "Write JSON"))
                .after_help("Exit status: 0 pontoon can use TLS there; 1 it cannot; 2 usage error."),
        )
        .subcommand(
            Command::new("audit")
                .about("Who is connected to this group right now, in plaintext or not, through a bridge or not?")
                .arg(
                    Arg::new("upstream")
                        .value_name("HOST[:PORT]")
                        .value_parser(value_parser!(OsString))
                        .required(true)
                        .num_args(1..)
                        .help("Endpoint of the group, whose other nodes are found from it; more, if it does not tell of them"),
                )
                .args(config::audit_args())
                .arg(
                    Arg::new("bridge-name")
                        .long("bridge-name")
                        .value_name("PREFIX")
                        .action(ArgAction::Append)
                        .help("Clients whose name begins so are bridged ones (pontoon's --client-name), for engines older \
                               than CLIENT SETINFO, where all others are unknown; repeatable"),
                )
                .arg(
                    Arg::new("watch")
                        .long("watch")
                        .value_name("DUR")
                        .value_parser(config::duration)
                        .help(
                            "Ask again and again for so long, as 24h, and list every client that was ever seen, with the first and \
                             the last time. Ctrl-C and SIGTERM end it before",
                        ),
                )
                .arg(
                    Arg::new("every")
                        .long("every")
                        .value_name("DUR")
                        .value_parser(config::positive)
                        .requires("watch")
                        .default_value("1s")
                        .help("With --watch, the time from one sample to the next: a shorter connection may be missed, and each sample is \
                             a CLIENT LIST at every node"),
                )
                .arg(switch("json", "Write JSON"))
                .after_help(
                    "Exit status: 0 every node answered and counts no client in plaintext, with --watch in each sample; 1 one \
                     does, or it is not known; 2 usage error.",
                ),
        )
        .subcommand(
            Command::new("health")
                .about("Does the pontoon at --admin serve clients? For images without a shell, and for apps that must wait")
                .arg(admin())
                .arg(
                    Arg::new("wait")
                        .long("wait")
                        .value_name("DUR")
                        .value_parser(config::duration)
                        .help("Wait this long for it to become so"),
                )
                .arg(switch(
                    "live",
                    "Ask only whether its process works, whatever the upstreams do: for checks that restart it, or all that \
                     is with it",
                ))
                .after_help(EXIT),
        )
        .subcommand(
            Command::new("status")
                .about("Can TLS be required? Who uses the pontoon at --admin, and what do they need to speak TLS themselves?")
                .arg(admin())
                .arg(switch("json", "Write JSON"))
                .arg(fail_unless(
                    "Exit with 1 unless every route is tls-only: this bridge uses only TLS; ready: the group can require TLS, by the \
                     servers' counts; or unused: its bridge can go",
                ))
                .after_help(EXIT),
        )
        .subcommand(fleet())
        .subcommand(
            Command::new("plan")
                .about(
                    "Where do ElastiCache's groups stand between plaintext and TLS, what blocks them, which command is next? \
                     Reads AWS, and changes nothing",
                )
                .arg(
                    Arg::new("group")
                        .long("group")
                        .value_name("ID")
                        .help("Replication group to plan for. Without it: every group that fails ElastiCache.5"),
                )
                .arg(
                    Arg::new("region")
                        .long("region")
                        .value_name("REGION")
                        .action(ArgAction::Append)
                        .help("AWS region; repeatable without --group. Without it: that of the environment or the profile"),
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
                        .help("Time between two questions to AWS while waiting"),
                )
                .arg(switch("json", "Write JSON"))
                .after_help(
                    "Credentials and endpoints are AWS' own: AWS_PROFILE, AWS_ACCESS_KEY_ID, roles, AWS_ENDPOINT_URL. \
                     config/iam/plan.json is a policy with all that is needed.\n\n\
                     Exit status: 0 the plan was made, and a modification that was waited for has ended; 1 not; 2 usage error.",
                ),
        )
        .subcommand(
            Command::new("demo")
                .about("See it work, with nothing installed: a TLS endpoint, a bridge, a plaintext conversation")
                .arg(switch("serve", "Keep both running, for redis-cli and your own clients")),
        )
        .subcommand(
            Command::new("completions")
                .about("Write shell completions to standard output")
                .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell))),
        )
}

fn fleet() -> Command {
    Command::new("fleet")
        .about("Many bridges, one answer for each group: can TLS be required, and who still needs a bridge?")
        .arg(
            Arg::new("bridge")
                .value_name("BRIDGE")
                .num_args(0..)
                .value_parser(|text: &str| text.parse::<BridgeSource>())
                .help(
                    "Admin address of a bridge, or a name whose addresses are all bridges, as a headless service has it. Port 9900 if \
                     none is given",
                ),
        )
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("FILE")
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("File with a BRIDGE a line; # begins a comment. Repeatable"),
        )
        .arg(
            Arg::new("expect")
                .long("expect")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .help("The answers are no unless N bridges answer, over all groups; each address counts as a bridge"),
        )
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Remember which bridges have answered: those are asked too, and the answers are no while one is missing"),
        )
        .arg(
            Arg::new("forget")
                .long("forget")
                .value_name("ADDR")
                .action(ArgAction::Append)
                .requires("state")
                .help("A bridge that was taken away: drop it from the state file. Repeatable"),
        )
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DUR")
                .value_parser(config::duration)
                .default_value("3s")
                .help("A bridge that takes longer has not answered"),
        )
        .arg(switch("json", "Write JSON"))
        .arg(fail_unless(
            "Exit with 1 unless every group is tls-only: each bridge uses only TLS; ready: that, and the servers count no client in \
             plaintext; or unused: its bridges can go",
        ))
        .after_help(
            "Routes belong to one group when they have the same endpoint name, or when the servers that they ask have an address, a \
             cluster node id or a run_id in common. Loopback addresses and names without a dot do not count: each machine means its \
             own by them. The key `group` of a route overrides all of that. A bridge that does not answer is a no for each group.\n\n\
             Exit status: 0 done; 1 the answer is no, or no bridge answered; 2 usage error.",
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

/// Where a running pontoon is asked.
fn admin() -> Arg {
    Arg::new("admin")
        .long("admin")
        .env("PONTOON_ADMIN")
        .value_name("ADDR")
        .default_value("127.0.0.1:9900")
        .help("Its admin address, 127.0.0.1:9900 or unix:/run/pontoon/admin.sock")
}

fn admin_address(matches: &ArgMatches) -> Result<ListenAddr, Usage> {
    let text = matches.get_one::<String>("admin").expect("it has a default");
    ListenAddr::private(text).map_err(|error| Usage(format!("--admin: {error}")))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// How it ended, as an exit code and what to say on standard error.
#[derive(Debug)]
pub struct Failure {
    /// 1: the answer is no, or it failed at run time; 2: usage or config error.
    pub code: u8,
    /// One line a problem.
    pub message: String,
}

/// Parses `args` and does what they say.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => match without_arguments_secrets(&error, &args) {
            Some(message) => return Err(Failure { code: 2, message }),
            // clap prints usage errors and help itself, and exits with 2 or 0.
            None => error.exit(),
        },
    };
    let failed = |error: anyhow::Error| {
        let usage = error.is::<Problems>()
            || error.downcast_ref::<NotStarted>().is_some_and(|error| !error.may_pass())
            || error.is::<Usage>()
            || error.is::<NoSecret>();
        Failure { code: if usage { 2 } else { 1 }, message: format!("{error:#}") }
    };
    dispatch(&matches).map_err(failed)
}

/// The first line of a usage error that repeats an argument with what could be a secret in it, without that.
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

/// A mistake on the command line that clap does not see.
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
                    every: *matches.get_one::<Duration>("every").expect("it has a default"),
                }),
            };

            let route = config.routes.first().expect("validated: there is a route");
            if route.upstream.auth.is_some() && route.upstream.tls.insecure_skip_verify {
                let problem = "a password is not sent over TLS that does not verify: drop the password, or \
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
                timeout: *matches.get_one("timeout").expect("it has a default"),
                json: matches.get_flag("json"),
                unless: unless(matches),
            };
            if options.sources.is_empty() && options.memory.is_none() {
                return Err(Usage("no bridge is given: name some, or a file with --from".into()).into());
            }
            commands::fleet::run(&options)
        }
        Some(("plan", matches)) => {
            let regions: Vec<String> = matches.get_many("region").into_iter().flatten().cloned().collect();
            let group = matches.get_one::<String>("group").cloned();
            if group.is_some() && regions.len() > 1 {
                return Err(Usage("--group wants one --region: a group is in one".into()).into());
            }
            commands::plan::run(&commands::plan::PlanOptions {
                group,
                regions,
                wait: matches.get_one::<Duration>("wait").copied(),
                interval: *matches.get_one::<Duration>("interval").expect("it has a default"),
                json: matches.get_flag("json"),
            })
        }
        Some(("demo", matches)) => commands::demo::run(matches.get_flag("serve")),
        Some(("completions", matches)) => {
            let shell = *matches.get_one::<Shell>("shell").expect("it is required");
            commands::completions::run(shell, &mut command())
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
