//! The table of all keys: path in the file, flag, variable, kind, and help. The command line, the file and the messages are all made from
//! it.

/// A setting.
#[derive(Debug)]
pub struct SettingKey {
    /// Path in the file: `tls.pins` is `pins` in `[route.tls]`.
    pub path: &'static str,
    /// The flag without its dashes. The variable is the flag in capitals after `PONTOON_`.
    pub flag: &'static str,
    /// The kind of value in a file.
    pub kind: Kind,
    /// The value's name in `--help`.
    pub value: &'static str,
    /// The description in `--help`.
    pub help: &'static str,
    /// The default that `--help` shows.
    pub default: &'static str,
}

/// The kind of value that a file has for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string, or an array of strings.
    List,
    /// An array of strings; in a flag or a variable, words separated by spaces.
    Words,
    /// A string that other processes must not see. It has a variable and no flag.
    Secret,
    /// An integer.
    Integer,
    /// `true` or `false`.
    Switch,
}

impl SettingKey {
    /// The environment variable of the key.
    pub fn variable(&self) -> String {
        format!("PONTOON_{}", self.flag.to_uppercase().replace('-', "_"))
    }
}

const fn key(
    path: &'static str,
    flag: &'static str,
    kind: Kind,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> SettingKey {
    SettingKey { path, flag, kind, value, help, default }
}

use Kind::{Integer, List, Secret, Switch, Text, Words};

/// Keys of a `[[route]]` and its tables.
pub const ROUTE: &[SettingKey] = &[
    key(
        "upstream",
        "upstream",
        List,
        "HOST[:PORT]",
        "",
        "Endpoint to connect to; repeatable, tried in order. Also redis:// and rediss:// URLs. Default port: 6379",
    ),
    key(
        "listen",
        "listen",
        List,
        "ADDR",
        "127.0.0.1:6379",
        "Address to listen on: 127.0.0.1:6379, [::1]:6379, unix:/run/pontoon/redis.sock \
         (?mode=0660&uid=1000&gid=33: for that user or group only); repeatable. Port 0: the system chooses, and the \
         log shows the port",
    ),
    key(
        "topology",
        "topology",
        Text,
        "KIND",
        "standalone",
        "standalone; cluster: each node gets a local listener, and addresses of nodes in replies are replaced by local ones",
    ),
    key(
        "sharing",
        "sharing",
        Text,
        "HOW",
        "dedicated",
        "dedicated: each client has its own upstream connection; shared: clients share few connections, and get a dedicated \
         one for requests that need it",
    ),
    key(
        "accept",
        "accept",
        Text,
        "KIND",
        "plaintext",
        "plaintext; any: clients may also use their own TLS, which is passed through to the endpoint",
    ),
    key(
        "errors",
        "errors",
        Text,
        "HOW",
        "auto",
        "What clients get in an outage. auto: the connection is closed, or an error that libraries treat as a lost connection; \
         reply: an error reply wherever possible; close: the connection is closed",
    ),
    key(
        "allow_remote_clients",
        "allow-remote-clients",
        Switch,
        "BOOL",
        "false",
        "Allow addresses that other machines can reach, although the client side is plaintext",
    ),
    key(
        "handover",
        "handover",
        Switch,
        "BOOL",
        "false",
        "Let a second pontoon of the same user listen on the same addresses, to take over when this one is stopped",
    ),
    key("name", "name", Text, "NAME", "the upstream's host", "Name of the route in logs and metrics"),
    key(
        "group",
        "group",
        Text,
        "NAME",
        "derived from endpoint names and servers",
        "Name of the group of servers behind the route, for `pontoon fleet`, which gives one answer for each group",
    ),
    key(
        "client_name",
        "client-name",
        Text,
        "NAME",
        "none",
        "Name that CLIENT SETNAME gives to upstream connections; clients that ask for their name see it",
    ),
    key(
        "tls.mode",
        "tls-mode",
        Text,
        "MODE",
        "required",
        "required: TLS only; preferred: plaintext until the endpoint accepts TLS, then TLS only; disabled: plaintext",
    ),
    key(
        "tls.ca_files",
        "tls-ca-file",
        List,
        "FILE",
        "system roots, else the built-in Mozilla set",
        "PEM bundle that replaces the system roots; repeatable",
    ),
    key(
        "tls.server_name",
        "tls-server-name",
        Text,
        "NAME",
        "the upstream's host",
        "Name to send as SNI and to verify",
    ),
    key(
        "tls.pins",
        "tls-pin",
        List,
        "SHA256",
        "none",
        "Accept only a chain with this key (SHA-256 of its SPKI, base64); repeatable. Without a CA file a pinned \
         server key needs no known issuer",
    ),
    key(
        "tls.cert_file",
        "tls-cert-file",
        Text,
        "FILE",
        "none",
        "Client certificate chain in PEM, for servers that ask for one",
    ),
    key(
        "tls.key_file",
        "tls-key-file",
        Text,
        "FILE",
        "none",
        "Private key of the client certificate, in PEM",
    ),
    key(
        "tls.min_version",
        "tls-min-version",
        Text,
        "VERSION",
        "1.2",
        "Oldest TLS version accepted: 1.2 or 1.3",
    ),
    key(
        "tls.upgrade",
        "tls-upgrade",
        Text,
        "HOW",
        "keep",
        "What to do with plaintext sessions when the endpoint turns out to accept TLS. keep: leave them until they end; drain: move \
         them to TLS between two commands, if they have left no state behind",
    ),
    key(
        "tls.insecure_skip_verify",
        "tls-insecure-skip-verify",
        Switch,
        "BOOL",
        "false",
        "Accept any certificate: an attacker on the network can read and change all traffic",
    ),
    key(
        "auth.username",
        "auth-username",
        Text,
        "NAME",
        "the default user",
        "User to authenticate as, with a password from one of the following",
    ),
    key(
        "auth.password_file",
        "auth-password-file",
        Text,
        "FILE",
        "none",
        "File with the password, or with a JSON object of username, password and expires_at; read again when it changes. \
         PONTOON_AUTH_PASSWORD holds the password itself",
    ),
    key(
        "auth.password_env",
        "auth-password-env",
        Text,
        "VARIABLE",
        "none",
        "Environment variable with the password",
    ),
    key(
        "auth.password_command",
        "auth-password-command",
        Words,
        "COMMAND",
        "none",
        "Program with arguments that prints the password, or a JSON object of username, password and expires_at; run again \
         before expires_at or every 5 minutes, and when the server refuses the password",
    ),
    key("auth.password", "auth-password", Secret, "PASSWORD", "none", "The password itself"),
    key(
        "auth.iam.cache_name",
        "auth-iam-cache-name",
        Text,
        "NAME",
        "none",
        "Authenticate by AWS IAM to this replication group (its id), serverless cache or MemoryDB cluster; the user name is the user's id",
    ),
    key(
        "auth.iam.service",
        "auth-iam-service",
        Text,
        "SERVICE",
        "derived from the upstream's name, else elasticache",
        "The AWS service that verifies the tokens: elasticache or memorydb",
    ),
    key(
        "auth.iam.serverless",
        "auth-iam-serverless",
        Switch,
        "BOOL",
        "derived from the upstream's name",
        "Whether the cache is serverless",
    ),
    key(
        "auth.iam.region",
        "auth-iam-region",
        Text,
        "REGION",
        "AWS_REGION, AWS_DEFAULT_REGION, else derived from the upstream's name",
        "The cache's region",
    ),
    key(
        "auth.client",
        "auth-client",
        Text,
        "WHAT",
        "accept if pontoon presents credentials, else forward",
        "How a client's own AUTH, or HELLO with AUTH, is answered. forward: by the server; accept: +OK for any password; verify: \
         against --auth-local-password-file (until then, other commands get NOAUTH); reject: an error",
    ),
    key(
        "auth.local_password_file",
        "auth-local-password-file",
        Text,
        "FILE",
        "none",
        "File with the password that local clients must send where auth.client is verify",
    ),
    key(
        "auth.reauthenticate",
        "auth-reauthenticate",
        Text,
        "DUR",
        "11h with IAM, else never",
        "Live connections authenticate again after this time, between two commands. ElastiCache closes IAM connections after 12 hours",
    ),
    key(
        "auth.allow_plaintext",
        "auth-allow-plaintext",
        Switch,
        "BOOL",
        "false",
        "Send the password also in plaintext, where an attacker on the network can read it",
    ),
    key(
        "pool.warm",
        "pool-warm",
        Switch,
        "BOOL",
        "false",
        "Keep connections ready before clients come. Their number follows the arrival of clients",
    ),
    key("pool.warm_min", "pool-warm-min", Integer, "N", "1", "Connections kept ready when no client comes"),
    key(
        "pool.warm_max",
        "pool-warm-max",
        Integer,
        "N",
        "64",
        "Limit on connections kept without a client, dialled ahead or left by clients",
    ),
    key(
        "pool.reuse",
        "pool-reuse",
        Switch,
        "BOOL",
        "true",
        "Clean (RESET) the connection that a client leaves, and keep it for the next client",
    ),
    key(
        "pool.shared",
        "pool-shared",
        Integer,
        "N",
        "one for each address of the upstream's name, at most 8",
        "Only with --sharing shared: connections that clients share, for each event-loop thread and node",
    ),
    key(
        "pool.max_age",
        "pool-max-age",
        Text,
        "DUR",
        "10m",
        "Age after which a connection serves no further client; up to a quarter less, at random",
    ),
    key(
        "limits.max_clients",
        "max-clients",
        Integer,
        "N",
        "10000",
        "Limit on clients at once. Others get Redis' own error",
    ),
    key(
        "limits.connect_timeout",
        "connect-timeout",
        Text,
        "DUR",
        "5s",
        "One deadline for resolving, connecting, the TLS handshake and the greeting",
    ),
    key(
        "limits.handshakes",
        "handshakes",
        Integer,
        "N",
        "16",
        "Limit on TLS handshakes in flight to one endpoint",
    ),
    key(
        "limits.idle_timeout",
        "idle-timeout",
        Text,
        "DUR",
        "never",
        "Time without traffic after which a session is closed",
    ),
    key(
        "limits.client_output",
        "client-output",
        Text,
        "SIZE",
        "32MiB",
        "Only with --sharing shared: limit on replies that wait for a client that does not read, while others wait behind it. Beyond it, the client is disconnected",
    ),
    key(
        "limits.route_output",
        "route-output",
        Text,
        "SIZE",
        "64MiB",
        "Only with --sharing shared: limit on replies that wait for all clients of the route. Beyond it, the clients with the largest backlog are disconnected",
    ),
    key(
        "limits.pinned",
        "max-pinned",
        Integer,
        "N",
        "1000",
        "Only with --sharing shared: limit on dedicated connections at once. Other clients wait, and get an error after 5s",
    ),
    key(
        "cluster.ports",
        "cluster-ports",
        Text,
        "FIRST-LAST",
        "the system chooses",
        "Local ports for the cluster's nodes, one for each",
    ),
    key(
        "cluster.max_nodes",
        "cluster-max-nodes",
        Integer,
        "N",
        "1000",
        "Limit on nodes that get a local port. Each takes file descriptors, and the server decides how many nodes there are",
    ),
    key(
        "cluster.advertise",
        "cluster-advertise",
        Text,
        "HOST",
        "the address that the client connected to",
        "Host name or address that clients get for every node",
    ),
    key(
        "cluster.refresh",
        "cluster-refresh",
        Text,
        "DUR",
        "60s",
        "Time between two look-ups of the nodes. A redirect of a client causes one at once",
    ),
    key(
        "evidence.interval",
        "evidence-interval",
        Text,
        "DUR",
        "never",
        "How often to ask the group's servers for their plaintext clients, over TLS: evidence for the verdict. One bridge of a group is enough",
    ),
    key(
        "evidence.sampling",
        "evidence-sampling",
        Text,
        "DUR",
        "800ms",
        "Time between two samples of each server's number of clients in plaintext, and of its nodes, between those surveys. A client that stays longer is seen",
    ),
];

/// Keys of `[admin]`, `[log]`, `[runtime]` and `[verdict]`.
pub const GLOBAL: &[SettingKey] = &[
    key(
        "admin.listen",
        "admin",
        Text,
        "ADDR",
        "127.0.0.1:9900",
        "Address for health, metrics and the status page, also unix:/run/pontoon/admin.sock; \"off\" disables it",
    ),
    key(
        "admin.metrics_listen",
        "admin-metrics-listen",
        Text,
        "ADDR",
        "",
        "Address for /metrics only, which the admin address then no longer serves. Prometheus then needs no access to /clients",
    ),
    key("log.format", "log-format", Text, "FORMAT", "text", "text for people, json for programs"),
    key(
        "log.level",
        "log-level",
        Text,
        "LEVEL",
        "info",
        "error, warn, info, debug, trace, or by module (info,pontoon::session=debug). Also RUST_LOG",
    ),
    key(
        "log.slow",
        "log-slow",
        Text,
        "DUR",
        "",
        "Log commands that wait longer than this for their reply, with name and size, without arguments",
    ),
    key("runtime.workers", "workers", Integer, "N", "number of cores, at most 4", "Event-loop threads"),
    key(
        "runtime.shutdown_delay",
        "shutdown-delay",
        Text,
        "DUR",
        "0s",
        "Time after SIGTERM for which pontoon keeps serving, but /readyz is 503, because the app may still need Redis",
    ),
    key(
        "runtime.drain_timeout",
        "drain-timeout",
        Text,
        "DUR",
        "25s",
        "Time that sessions have to end after SIGTERM and the shutdown delay",
    ),
    key(
        "runtime.exit_with_clients",
        "exit-with-clients",
        Text,
        "DUR",
        "never",
        "For jobs: exit once at least one client has connected and none has been connected for this long. POST /quit ends pontoon in any case",
    ),
    key(
        "runtime.state_file",
        "state-file",
        Text,
        "FILE",
        "none",
        "File that keeps across restarts which endpoints have accepted TLS, so that plaintext to them stays refused, and which \
         clients used the bridge",
    ),
    key(
        "verdict.quiet_for",
        "verdict-quiet-for",
        Text,
        "DUR",
        "24h",
        "Time without a client in plaintext after which TLS is safe to require",
    ),
    key(
        "verdict.unseen",
        "verdict-unseen",
        Text,
        "report|block",
        "report",
        "Connections that came and went between two surveys. report: they are only reported; block: they count as a no",
    ),
    key(
        "verdict.unused_for",
        "verdict-unused-for",
        Text,
        "DUR",
        "7d",
        "Time without a client after which the bridge is not needed",
    ),
    key(
        "verdict.certificate_left",
        "verdict-certificate-left",
        Text,
        "DUR",
        "14d",
        "Minimum remaining validity of certificates for TLS to be safe to require",
    ),
];
