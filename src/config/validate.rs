//! Validates [`Values`] and builds a [`Config`]: the meaning of values, their combinations, and the defaults.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread::available_parallelism;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::load::{Config, Route};
use super::problems::Problems;
use super::values::{Given, Values};
use crate::cluster::{PortRange, SentinelGroup};
use crate::endpoint::{Endpoint, Host, ListenAddr, UpstreamAddress};
use crate::group::{Pace, verdict};
use crate::session::{Accept, OutageErrors, Sharing, Upgrade};
use crate::tls::{CertificatePin, ClientAuthFiles, MinVersion, TlsMode};
use crate::upstream::pool;
use crate::{cluster, credentials, listener, session, telemetry, tls, upstream};

const LISTEN: &str = "127.0.0.1:6379";
const ADMIN: &str = "127.0.0.1:9900";
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
const MOST_WORKERS: usize = 4;

/// A Unix socket's path may have 107 bytes, of which a successor needs five for ".next".
const LONGEST_HANDED_OVER: usize = 102;

/// Validates everything, and adds to `problems`. Returns a [`Config`] if there are none.
pub(super) fn validate(
    global: &Values,
    routes: &[(String, Values)],
    problems: Problems,
) -> Result<Config, Problems> {
    let mut check = Check { problems, warnings: Vec::new() };
    let several = routes.len() > 1;
    let routes: Vec<Route> =
        routes.iter().filter_map(|(place, values)| check.route(place, values, several)).collect();
    if routes.is_empty() && check.problems.0.is_empty() {
        check.problems.add("[[route]]", "is missing: at least one is needed");
    }
    let config = check.global(global, routes);
    check.no_duplicates(&config);
    if check.problems.0.is_empty() { Ok(config) } else { Err(check.problems) }
}

pub(super) struct Check {
    pub(super) problems: Problems,
    /// What has no effect, but does no harm.
    warnings: Vec<String>,
}

/// What a route leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteTopology {
    Standalone,
    Cluster,
    Sentinel,
}

const TLS_MODES: [(&str, TlsMode); 3] =
    [("required", TlsMode::Required), ("preferred", TlsMode::Preferred), ("disabled", TlsMode::Disabled)];

impl Check {
    fn global(&mut self, values: &Values, mut routes: Vec<Route>) -> Config {
        let admin = self.parse(values, "admin.listen", |text| match text {
            "off" => Ok(None),
            address => ListenAddr::private(address).map(Some).map_err(|error| format!("{error}; or \"off\"")),
        });
        let metrics = self.parse(values, "admin.metrics_listen", ListenAddr::private);
        let format = self.choice(
            values,
            "log.format",
            &[("text", telemetry::Format::Text), ("json", telemetry::Format::Json)],
        );
        let level = self.parse(values, "log.level", str::parse);
        let slow = self.parse(values, "log.slow", positive);
        for route in &mut routes {
            route.session.slow = slow;
        }
        let workers = self.count(values, "runtime.workers");
        let shutdown_delay = self.parse(values, "runtime.shutdown_delay", duration);
        let drain_timeout = self.parse(values, "runtime.drain_timeout", duration);
        let exit_with_clients = self.parse(values, "runtime.exit_with_clients", positive);
        let state_file = self.parse(values, "runtime.state_file", path);
        let verdict = self.verdict(values);
        let default_workers = available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_WORKERS);
        Config {
            routes,
            admin: admin.unwrap_or_else(|| Some(ADMIN.parse().expect("an address"))),
            metrics,
            log: telemetry::Settings { format: format.unwrap_or_default(), level },
            workers: workers
                .or(NonZeroUsize::new(default_workers))
                .expect("the smaller of two numbers that are not zero"),
            shutdown_delay: shutdown_delay.unwrap_or_default(),
            drain_timeout: drain_timeout.unwrap_or(DRAIN_TIMEOUT),
            exit_with_clients,
            state_file,
            verdict,
            warnings: std::mem::take(&mut self.warnings),
        }
    }

    fn verdict(&mut self, values: &Values) -> verdict::Settings {
        let default = verdict::Settings::default();
        verdict::Settings {
            quiet_for: self.parse(values, "verdict.quiet_for", duration).unwrap_or(default.quiet_for),
            unseen_blocks: self
                .choice(values, "verdict.unseen", &[("report", false), ("block", true)])
                .unwrap_or(default.unseen_blocks),
            unused_for: self.parse(values, "verdict.unused_for", duration).unwrap_or(default.unused_for),
            certificate_left: self
                .parse(values, "verdict.certificate_left", duration)
                .unwrap_or(default.certificate_left),
        }
    }

    /// `None` if there were problems.
    fn route(&mut self, place: &str, values: &Values, several: bool) -> Option<Route> {
        let before = self.problems.0.len();
        let topology = self.topology(values);
        let sentinel_mode = self.choice(values, "sentinel.tls_mode", &TLS_MODES);
        let tls = self.tls(values, sentinel_mode);
        let upstream_tls = tls::Settings { mode: sentinel_mode.unwrap_or(tls.mode), ..tls.clone() };
        let endpoints = self.endpoints(place, values, upstream_tls.mode);
        let auth = self.auth(values, &endpoints);
        let client_auth = self.client_auth(values, auth.is_some());
        let listen = self.listen(place, values, several);
        let not_empty = |text: &str| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) };
        let name = self.parse(values, "name", not_empty);
        let group = self.parse(values, "group", not_empty);
        let client_name = self.parse(values, "client_name", |text| {
            // The rule of CLIENT SETNAME.
            if !text.is_empty() && text.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
                Ok(text.to_owned())
            } else {
                Err("Redis allows printable ASCII without spaces in a client name")
            }
        });
        let max_clients = self.count(values, "limits.max_clients").map(NonZeroUsize::get);
        let handover = self.switch(values, "handover").unwrap_or(false);
        let too_long = |address: &ListenAddr| match address {
            ListenAddr::Unix { path, .. } => path.as_os_str().len() > LONGEST_HANDED_OVER,
            ListenAddr::Tcp(_) => false,
        };
        if let Some(address) = listen.iter().find(|address| handover && too_long(address)) {
            let problem = format!(
                "{address}: with handover a path may have at most {LONGEST_HANDED_OVER} bytes, because a successor's socket has a \
                 longer name at first: choose a shorter path"
            );
            self.problems.add(self::place(values, "listen"), problem);
        }
        let handshakes = self.count(values, "limits.handshakes").map(NonZeroUsize::get);
        let connect_timeout = self.parse(values, "limits.connect_timeout", positive);
        let idle_timeout = self.parse(values, "limits.idle_timeout", positive);
        let accept = self.choice(values, "accept", &[("plaintext", Accept::Plaintext), ("any", Accept::Any)]);
        let outage_errors =
            [("auto", OutageErrors::Auto), ("reply", OutageErrors::Reply), ("close", OutageErrors::Close)];
        let errors = self.choice(values, "errors", &outage_errors);
        let upgrade =
            self.choice(values, "tls.upgrade", &[("keep", Upgrade::Keep), ("drain", Upgrade::Drain)]);
        let pool = self.pool(values);
        let sharing = self.sharing(values);
        let cluster = self.cluster(values, topology);
        if cluster.is_some() && listen.iter().any(ListenAddr::has_peers) {
            let problem = "uid and gid apply only to a Unix socket, but nodes get TCP listeners, which every user of this machine can \
                           reach: remove them, or topology = \"cluster\" or \"sentinel\"";
            self.problems.add(self::place(values, "listen"), problem);
        }
        let (master_name, sentinel_auth) = self.sentinel(place, values, topology);
        let sampling = self.parse(values, "evidence.sampling", positive).unwrap_or(Pace::SAMPLING);
        let interval = self.parse(values, "evidence.interval", positive);
        let gathers = |_: &Duration| tls.mode != TlsMode::Disabled;
        let evidence = interval.filter(gathers).map(|interval| Pace { interval, sampling });
        if self.problems.0.len() > before {
            return None;
        }
        let name = name.unwrap_or_else(|| endpoints[0].host.to_string());
        let mut upstream = upstream::Settings {
            endpoints,
            connect_timeout: connect_timeout.unwrap_or(upstream::Settings::CONNECT_TIMEOUT),
            handshakes: handshakes.unwrap_or(upstream::Settings::HANDSHAKES),
            client_name,
            auth,
            pool,
            tls,
        };
        let cluster = cluster.map(|mut cluster| {
            if let Some(master_name) = master_name {
                let servers = upstream::Settings { endpoints: Vec::new(), ..upstream.clone() };
                cluster.sentinel = Some(SentinelGroup { master_name: master_name.into(), servers });
                upstream.auth = sentinel_auth;
                upstream.tls = upstream_tls;
                // Clients seldom ask sentinels. A new connection shows at once whether a sentinel is alive.
                (upstream.pool.warm, upstream.pool.reuse) = (false, false);
            }
            cluster
        });
        Some(Route {
            name,
            group,
            listener: listener::Settings {
                listen,
                max_clients: max_clients.unwrap_or(listener::Settings::MAX_CLIENTS),
                handover,
            },
            upstream,
            session: session::Settings {
                idle_timeout,
                upgrade: upgrade.unwrap_or_default(),
                errors: errors.unwrap_or_default(),
                accept: accept.unwrap_or_default(),
                client_auth,
                slow: None,
                sharing,
            },
            cluster,
            evidence,
        })
    }

    /// `None` if each client has a dedicated connection.
    fn sharing(&mut self, values: &Values) -> Option<Sharing> {
        const ITS_OWN: [&str; 4] =
            ["pool.shared", "limits.client_output", "limits.route_output", "limits.pinned"];
        let shared =
            self.choice(values, "sharing", &[("dedicated", false), ("shared", true)]).unwrap_or(false);
        if !shared {
            for given in ITS_OWN.iter().filter_map(|path| values.get(path)?.first()) {
                self.problems.add(
                    &given.place,
                    "has no effect without sharing = \"shared\": add that, or remove this",
                );
            }
        }
        let settings = Sharing {
            connections: self.count(values, "pool.shared"),
            pinned: self.count(values, "limits.pinned").map_or(Sharing::PINNED, NonZeroUsize::get),
            client_output: self.parse(values, "limits.client_output", size).unwrap_or(Sharing::CLIENT_OUTPUT),
            route_output: self.parse(values, "limits.route_output", size).unwrap_or(Sharing::ROUTE_OUTPUT),
        };
        shared.then_some(settings)
    }

    fn topology(&mut self, values: &Values) -> RouteTopology {
        let kinds = [
            ("standalone", RouteTopology::Standalone),
            ("cluster", RouteTopology::Cluster),
            ("sentinel", RouteTopology::Sentinel),
        ];
        let topology = self.choice(values, "topology", &kinds).unwrap_or(RouteTopology::Standalone);
        for (needed, prefix) in [(RouteTopology::Cluster, "cluster"), (RouteTopology::Sentinel, "sentinel")] {
            if topology == needed {
                continue;
            }
            let keys = values.iter().filter(|(path, _)| path.split('.').next() == Some(prefix));
            for given in keys.filter_map(|(_, given)| given.first()) {
                let problem =
                    format!("has no effect without topology = \"{prefix}\": add that, or remove this");
                self.problems.add(&given.place, problem);
            }
        }
        topology
    }

    /// `None` if the upstream is neither a cluster nor a group's sentinels.
    fn cluster(&mut self, values: &Values, topology: RouteTopology) -> Option<cluster::Settings> {
        let [ports, max_nodes, advertise, refresh] = match topology {
            RouteTopology::Standalone => return None,
            RouteTopology::Cluster => {
                ["cluster.ports", "cluster.max_nodes", "cluster.advertise", "cluster.refresh"]
            }
            RouteTopology::Sentinel => {
                ["sentinel.ports", "sentinel.max_servers", "sentinel.advertise", "sentinel.refresh"]
            }
        };
        let default_refresh = match topology {
            RouteTopology::Sentinel => cluster::Settings::SENTINEL_REFRESH,
            _ => cluster::Settings::REFRESH,
        };
        Some(cluster::Settings {
            ports: self.parse(values, ports, str::parse::<PortRange>),
            advertise: self.parse(values, advertise, |text| {
                text.parse::<Host>().map_err(|error| format!("\"{text}\": {error}"))
            }),
            max_nodes: self.count(values, max_nodes).map_or(cluster::Settings::MAX_NODES, NonZeroUsize::get),
            refresh: self.parse(values, refresh, positive).unwrap_or(default_refresh),
            sentinel: None,
        })
    }

    /// The name of the group, and the credentials for its sentinels.
    fn sentinel(
        &mut self,
        route: &str,
        values: &Values,
        topology: RouteTopology,
    ) -> (Option<String>, Option<credentials::Settings>) {
        if topology != RouteTopology::Sentinel {
            return (None, None);
        }
        let not_empty = |text: &str| if text.is_empty() { Err("is empty") } else { Ok(text.to_owned()) };
        let master_name = self.parse(values, "sentinel.master_name", not_empty);
        if !values.contains_key("sentinel.master_name") {
            let problem = "sentinel.master_name is missing: set it to the name in \"sentinel monitor NAME\" of the sentinels";
            self.problems.add(route, problem);
        }
        (master_name, self.sentinel_auth(values))
    }

    fn endpoints(&mut self, place: &str, values: &Values, mode: TlsMode) -> Vec<Endpoint> {
        let given = values.get("upstream").map_or(&[][..], Vec::as_slice);
        if given.is_empty() {
            self.problems.add(
                place,
                "upstream is missing: set one, for example --upstream master.sessions.abc123.apne1.cache.amazonaws.com:6379",
            );
        }
        let mut endpoints = Vec::new();
        for Given { place, text } in given {
            match text.parse::<UpstreamAddress>() {
                Ok(upstream) if upstream.tls && mode == TlsMode::Disabled => self.problems.add(
                    place,
                    format!(
                        "{} asks for TLS (rediss), but tls.mode is \"disabled\": change one of them",
                        upstream.endpoint
                    ),
                ),
                Ok(upstream) if upstream.tls && mode == TlsMode::Preferred => self.problems.add(
                    place,
                    format!(
                        "{0} asks for TLS only (rediss), but tls.mode is \"preferred\": write {0} without rediss://",
                        upstream.endpoint
                    ),
                ),
                Ok(upstream) => endpoints.push(upstream.endpoint),
                Err(error) => self.problems.add(place, error),
            }
        }
        endpoints
    }

    fn listen(&mut self, place: &str, values: &Values, several: bool) -> Vec<ListenAddr> {
        let remote = self.switch(values, "allow_remote_clients").unwrap_or(false);
        let given = match values.get("listen") {
            Some(given) => given.clone(),
            None if several => {
                self.problems.add(place, "listen is missing: with several routes each needs its own");
                return Vec::new();
            }
            None => vec![Given { place: "listen".into(), text: LISTEN.into() }],
        };
        if given.is_empty() {
            self.problems.add(place, "listen: the list is empty");
        }
        let mut addresses = Vec::new();
        for Given { place, text } in given {
            match text.parse::<ListenAddr>() {
                Ok(address) if !address.is_local() && !remote => self.problems.add(
                    place,
                    format!(
                        "{address} can be reached by other machines, in plaintext: listen on 127.0.0.1, or set \
                         allow_remote_clients (--allow-remote-clients) to allow it"
                    ),
                ),
                Ok(address) => addresses.push(address),
                Err(error) => self.problems.add(place, error),
            }
        }
        addresses
    }

    fn pool(&mut self, values: &Values) -> pool::Settings {
        let min = self.count(values, "pool.warm_min").map(NonZeroUsize::get);
        let max = self.count(values, "pool.warm_max").map(NonZeroUsize::get);
        let warm_min = min.unwrap_or(pool::Settings::WARM_MIN);
        let warm_max = max.unwrap_or(pool::Settings::WARM_MAX);
        if warm_min > warm_max {
            let path = if min.is_some() { "pool.warm_min" } else { "pool.warm_max" };
            let problem = format!(
                "pool.warm_min ({warm_min}) is greater than pool.warm_max ({warm_max}): change one of them"
            );
            self.problems.add(place(values, path), problem);
        }
        pool::Settings {
            warm: self.switch(values, "pool.warm").unwrap_or(false),
            warm_min,
            warm_max,
            reuse: self.switch(values, "pool.reuse").unwrap_or(true),
            max_age: self.parse(values, "pool.max_age", positive).unwrap_or(pool::Settings::MAX_AGE),
        }
    }

    /// `sentinel_mode`: the mode of the sentinels, where it is set.
    fn tls(&mut self, values: &Values, sentinel_mode: Option<TlsMode>) -> tls::Settings {
        let mode = self.choice(values, "tls.mode", &TLS_MODES).unwrap_or_default();
        // No errors, so that on the way back to plaintext only tls.mode must change.
        if mode == TlsMode::Disabled && sentinel_mode.is_none_or(|mode| mode == TlsMode::Disabled) {
            let needs_tls = |path: &str| {
                path == "evidence.interval"
                    || path.starts_with("tls.") && !["tls.mode", "tls.upgrade"].contains(&path)
            };
            let idle =
                values.iter().filter(|(path, _)| needs_tls(path)).filter_map(|(_, given)| given.first());
            let idle = idle.map(|given| given.place.clone()).collect::<Vec<_>>();
            if !idle.is_empty() {
                self.warnings.push(format!("no effect while tls.mode is \"disabled\": {}", idle.join(", ")));
            }
        }
        let min_version =
            self.choice(values, "tls.min_version", &[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)]);
        let server_name = self.parse(values, "tls.server_name", |text| {
            ServerName::try_from(text.trim().to_owned())
                .map_err(|_| format!("\"{text}\" is neither a DNS name nor an IP address"))
        });
        let cert_file = self.parse(values, "tls.cert_file", path);
        let key_file = self.parse(values, "tls.key_file", path);
        let client_auth = match (cert_file, key_file) {
            (Some(cert_file), Some(key_file)) => Some(ClientAuthFiles { cert_file, key_file }),
            (None, None) => None,
            (Some(_), None) => {
                self.problems
                    .add(place(values, "tls.cert_file"), "a certificate needs its key: tls.key_file");
                None
            }
            (None, Some(_)) => {
                self.problems
                    .add(place(values, "tls.key_file"), "a key needs its certificate: tls.cert_file");
                None
            }
        };
        tls::Settings {
            mode,
            ca_files: self.list(values, "tls.ca_files", path),
            server_name,
            pins: self.list(values, "tls.pins", |text| {
                text.parse::<CertificatePin>().map_err(|error| format!("\"{text}\" {error}"))
            }),
            client_auth,
            min_version: min_version.unwrap_or_default(),
            insecure_skip_verify: self.switch(values, "tls.insecure_skip_verify").unwrap_or(false),
        }
    }

    pub(super) fn parse<T, E: Display>(
        &mut self,
        values: &Values,
        path: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Given { place, text } = values.get(path)?.last()?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.add_about(place, text, error);
                None
            }
        }
    }

    fn list<T, E: Display>(
        &mut self,
        values: &Values,
        path: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let mut all = Vec::new();
        for Given { place, text } in values.get(path).into_iter().flatten() {
            match parse(text) {
                Ok(value) => all.push(value),
                Err(error) => self.problems.add_about(place, text, error),
            }
        }
        all
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        values: &Values,
        path: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        self.parse(values, path, |text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                format!("\"{text}\" is not valid: expected one of {}", names.join(", "))
            })
        })
    }

    fn count(&mut self, values: &Values, path: &str) -> Option<NonZeroUsize> {
        self.parse(values, path, |text| {
            // TOML allows underscores between digits.
            NonZeroUsize::from_str(&text.replace('_', ""))
                .map_err(|_| format!("\"{text}\" is not valid: expected a number from 1"))
        })
    }

    pub(super) fn switch(&mut self, values: &Values, path: &str) -> Option<bool> {
        self.choice(values, path, &[("true", true), ("false", false), ("1", true), ("0", false)])
    }
}

pub(super) fn place<'a>(values: &'a Values, path: &'a str) -> &'a str {
    values.get(path).and_then(|given| given.last()).map_or(path, |given| &given.place)
}

pub(super) fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("is empty; expected a file") } else { Ok(text.into()) }
}

/// Parses a size of at least one byte, in units of 1,024.
fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let bytes = unit.and_then(|unit| digits.trim_end().parse::<usize>().ok()?.checked_mul(1 << unit));
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| format!("\"{text}\" is not a size: write \"64KiB\", \"32MiB\", \"1GiB\""))
}

/// A longer time is a mistake, and no clock could measure it.
const LONGEST_TIME: Duration = Duration::from_secs(10_000 * 365 * 86_400);

/// Parses a duration of at most ten thousand years.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|error| {
        format!("\"{text}\" is not a duration ({error}): write \"5s\", \"250ms\", \"1m 30s\"")
    })?;
    if parsed > LONGEST_TIME {
        Err(format!("\"{text}\" is longer than ten thousand years"))
    } else {
        Ok(parsed)
    }
}

/// Parses a duration as [`duration`] does, and refuses zero.
pub fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err(format!("\"{text}\" is zero: expected more, or remove the key for the default"))
        }
        duration => Ok(duration),
    }
}
