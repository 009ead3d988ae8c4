//! Every key, once: its place in the file, its flag, its variable, what it takes, and its help. The command line,
//! the file and the messages are all made from this table.

/// A setting.
#[derive(Debug)]
pub struct SettingKey {
    /// Its place in the file: `tls.pins` is `pins` in `[route.tls]`.
    pub path: &'static str,
    /// Its flag, without the dashes; the variable is the same in capitals with `PONTOON_` before it.
    pub flag: &'static str,
    /// What a file holds for it.
    pub kind: Kind,
    /// How `--help` names the value.
    pub value: &'static str,
    /// What `--help` says.
    pub help: &'static str,
    /// What `--help` says applies without it.
    pub default: &'static str,
}

/// What a file holds for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// A string, or an array of strings.
    List,
    /// An array of strings; in a flag or a variable, words with spaces between.
    Words,
    /// A string that no other process may see: there is a variable for it, and no flag.
    Secret,
    /// An integer.
    Integer,
    /// `true` or `false`.
    Switch,
}

impl SettingKey {
    /// The environment variable.
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
        "Endpoint to connect to; repeatable, tried in order. Also redis:// and rediss:// URLs. Port 6379 if none is given",
    ),
    key(
        "listen",
        "listen",
        List,
        "ADDR",
        "127.0.0.1:6379",
        "Address to listen on: 127.0.0.1:6379, [::1]:6379, unix:/run/pontoon/redis.sock \
         (?mode=0660&uid=1000&gid=33: for that user or group alone); repeatable. Port 0: the system chooses, and the \
         log says which",
    ),
    key(
        "topology",
        "topology",
        Text,
        "KIND",
        "standalone",
        "standalone; cluster: each node gets a listener of its own, and replies that name nodes get local addresses",
    ),
    key(
        "sharing",
        "sharing",
        Text,
        "HOW",
        "dedicated",
        "dedicated: each client has an upstream connection of its own; shared: clients share few, and get one of their own \
         for what needs it",
    ),
    key(
        "accept",
        "accept",
        Text,
        "KIND",
        "plaintext",
        "plaintext; any: clients may bring their own TLS, which is passed through to the endpoint",
    ),
    key(
        "errors",
        "errors",
        Text,
        "HOW",
        "auto",
        "What clients get in an outage. auto: the end of the connection, or an error that they take for one; reply: an error \
         wherever one can be placed; close: the end of the connection",
    ),
    key(
        "allow_remote_clients",
        "allow-remote-clients",
        Switch,
        "BOOL",
        "false",
        "Allow listening on addresses that other machines can reach: the client side is plaintext",
    ),
    key(
        "handover",
        "handover",
        Switch,
        "BOOL",
        "false",
        "Let a second pontoon of the same user listen on the same addresses, and take over when this one is stopped",
    ),
    key("name", "name", Text, "NAME", "the upstream's host", "Name of the route in logs and metrics"),
    key(
        "group",
        "group",
        Text,
        "NAME",
        "found out by endpoint names and servers",
        "Name of the group of servers that the route leads to, for `pontoon fleet`: routes of the same group have one answer",
    ),
    key(
        "client_name",
        "client-name",
        Text,
        "NAME",
        "none",
        "CLIENT SETNAME for upstream connections; clients that ask for their name will see it",
    ),
    key(
        "tls.mode",
        "tls-mode",
        Text,
        "MODE",
        "required",
        "required: TLS or nothing; preferred: plaintext until the endpoint speaks TLS, then TLS or nothing; disabled: plaintext",
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
        "Accept only a chain holding this key (SHA-256 of its SPKI, base64); repeatable. Without a CA file a pinned \
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
        "Where the endpoint turns out to speak TLS, sessions in plaintext: keep them until they end, or drain: move them to \
         TLS between two commands, as long as they have left no state behind",
    ),
    key(
        "tls.insecure_skip_verify",
        "tls-insecure-skip-verify",
        Switch,
        "BOOL",
        "false",
        "Accept any certificate: whoever is on the way can read and change everything",
    ),
    key(
        "auth.username",
        "auth-username",
        Text,
        "NAME",
        "the default user",
        "User to authenticate as, where one of the following gives the password",
    ),
    key(
        "auth.password_file",
        "auth-password-file",
        Text,
        "FILE",
        "none",
        "File with the password, read again when it changes. PONTOON_AUTH_PASSWORD is the password itself",
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
        "Program, with its arguments, that prints the password; run again every 5 minutes, and when the server refuses it",
    ),
    key("auth.password", "auth-password", Secret, "PASSWORD", "none", "The password itself"),
    key(
        "auth.iam.cache_name",
        "auth-iam-cache-name",
        Text,
        "NAME",
        "none",
        "Authenticate by AWS IAM to this replication group (its id) or serverless cache; the user name is the user's id",
    ),
    key(
        "auth.iam.serverless",
        "auth-iam-serverless",
        Switch,
        "BOOL",
        "as the upstream's name says",
        "The cache is a serverless one",
    ),
    key(
        "auth.iam.region",
        "auth-iam-region",
        Text,
        "REGION",
        "AWS_REGION, AWS_DEFAULT_REGION, else as the upstream's name says",
        "The cache's region",
    ),
    key(
        "auth.client",
        "auth-client",
        Text,
        "WHAT",
        "accept where pontoon presents credentials, else forward",
        "What a client's own AUTH, and HELLO with AUTH, gets: forward to the server; accept: +OK whatever it says; verify against \
         --auth-local-password-file, and nothing before; reject",
    ),
    key(
        "auth.local_password_file",
        "auth-local-password-file",
        Text,
        "FILE",
        "none",
        "File with the password that local clients must know, where auth.client is verify",
    ),
    key(
        "auth.reauthenticate",
        "auth-reauthenticate",
        Text,
        "DUR",
        "11h with IAM, else never",
        "Live connections authenticate again after this time, between two commands: ElastiCache cuts those of IAM after 12 hours",
    ),
    key(
        "auth.allow_plaintext",
        "auth-allow-plaintext",
        Switch,
        "BOOL",
        "false",
        "Send the password in plaintext, too: whoever is on the way can read it",
    ),
    key(
        "pool.warm",
        "pool-warm",
        Switch,
        "BOOL",
        "false",
        "Keep connections ready before clients come: their number follows the clients' arrivals",
    ),
    key("pool.warm_min", "pool-warm-min", Integer, "N", "1", "Connections kept ready when no client comes"),
    key(
        "pool.warm_max",
        "pool-warm-max",
        Integer,
        "N",
        "64",
        "Connections kept without a client, at most: dialled ahead, or left by clients",
    ),
    key(
        "pool.reuse",
        "pool-reuse",
        Switch,
        "BOOL",
        "true",
        "Make clean (RESET) and keep for the next client what a client leaves",
    ),
    key(
        "pool.shared",
        "pool-shared",
        Integer,
        "N",
        "one for each address of the upstream's name, at most 8",
        "Connections that clients share, of each event-loop thread to each node, where sharing is shared",
    ),
    key(
        "pool.max_age",
        "pool-max-age",
        Text,
        "DUR",
        "10m",
        "An older connection serves no further client; up to a quarter less, at random",
    ),
    key(
        "limits.max_clients",
        "max-clients",
        Integer,
        "N",
        "10000",
        "Clients at once; beyond, Redis' own error",
    ),
    key(
        "limits.connect_timeout",
        "connect-timeout",
        Text,
        "DUR",
        "5s",
        "Deadline over resolving, connecting, the TLS handshake and the greeting",
    ),
    key(
        "limits.handshakes",
        "handshakes",
        Integer,
        "N",
        "16",
        "TLS handshakes in flight to one endpoint, at most",
    ),
    key(
        "limits.idle_timeout",
        "idle-timeout",
        Text,
        "DUR",
        "never",
        "End sessions that carried nothing for this long",
    ),
    key(
        "limits.client_output",
        "client-output",
        Text,
        "SIZE",
        "32MiB",
        "Where sharing is shared: so much may wait for a client that does not read and has others behind it; then it is cut off",
    ),
    key(
        "limits.route_output",
        "route-output",
        Text,
        "SIZE",
        "64MiB",
        "Where sharing is shared: so much may wait for all clients of the route together; beyond, those with most are cut off",
    ),
    key(
        "limits.pinned",
        "max-pinned",
        Integer,
        "N",
        "1000",
        "Where sharing is shared: clients with a connection of their own at once; beyond, they wait, and get an error after 5s",
    ),
    key(
        "cluster.ports",
        "cluster-ports",
        Text,
        "FIRST-LAST",
        "the system chooses",
        "Local ports for the cluster's nodes, one each",
    ),
    key(
        "cluster.max_nodes",
        "cluster-max-nodes",
        Integer,
        "N",
        "1000",
        "Nodes that get a local port, at most: each takes descriptors, and the server says how many nodes there are",
    ),
    key(
        "cluster.advertise",
        "cluster-advertise",
        Text,
        "HOST",
        "the address that the client connected to",
        "Host that clients are told for every node",
    ),
    key(
        "cluster.refresh",
        "cluster-refresh",
        Text,
        "DUR",
        "60s",
        "How often the nodes are looked up; they are at once where a client is sent to another node",
    ),
    key(
        "evidence.sampling",
        "evidence-sampling",
        Text,
        "DUR",
        "800ms",
        "Between two such questions, ask each server this often for the number, and for the nodes that it knows: a client is seen that stays longer",
    ),
    key(
        "evidence.interval",
        "evidence-interval",
        Text,
        "DUR",
        "never",
        "Ask the group's servers this often, over TLS, for their clients in plaintext: for the verdict. One bridge of a group is enough",
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
        "Address for health, metrics and the status page, unix:/run/pontoon/admin.sock too; \"off\" to disable",
    ),
    key(
        "admin.metrics_listen",
        "admin-metrics-listen",
        Text,
        "ADDR",
        "",
        "Address for /metrics alone, which the admin address then no longer serves: Prometheus needs no access to /clients",
    ),
    key("log.format", "log-format", Text, "FORMAT", "text", "text for people, json for programs"),
    key(
        "log.level",
        "log-level",
        Text,
        "LEVEL",
        "info",
        "error, warn, info, debug, trace, or by module (info,pontoon::session=debug); RUST_LOG too",
    ),
    key(
        "log.slow",
        "log-slow",
        Text,
        "DUR",
        "",
        "Log commands that wait longer than this for their reply: name and size, never arguments",
    ),
    key("runtime.workers", "workers", Integer, "N", "number of cores, at most 4", "Event-loop threads"),
    key(
        "runtime.shutdown_delay",
        "shutdown-delay",
        Text,
        "DUR",
        "0s",
        "After SIGTERM, go on as before for this long, but answer \"not serving\": the app next door may still work",
    ),
    key(
        "runtime.drain_timeout",
        "drain-timeout",
        Text,
        "DUR",
        "25s",
        "How long sessions may take to end after SIGTERM and the shutdown delay",
    ),
    key(
        "runtime.exit_with_clients",
        "exit-with-clients",
        Text,
        "DUR",
        "never",
        "End when clients were there, and none has been for this long: for jobs. POST /quit ends it whether any came or not",
    ),
    key(
        "runtime.state_file",
        "state-file",
        Text,
        "FILE",
        "none",
        "Remember across restarts which endpoints have spoken TLS, so that they are never again spoken to in plaintext; and who \
         used the bridge",
    ),
    key(
        "verdict.quiet_for",
        "verdict-quiet-for",
        Text,
        "DUR",
        "24h",
        "Safe to require TLS: so long nobody has been in plaintext",
    ),
    key(
        "verdict.unseen",
        "verdict-unseen",
        Text,
        "report|block",
        "report",
        "What to do about connections that came and went between two surveys: report their number with each yes, or make them a reason for no",
    ),
    key(
        "verdict.unused_for",
        "verdict-unused-for",
        Text,
        "DUR",
        "7d",
        "Bridge not needed: so long no client has used it",
    ),
    key(
        "verdict.certificate_left",
        "verdict-certificate-left",
        Text,
        "DUR",
        "14d",
        "Safe to require TLS: so long the certificates are still good",
    ),
];
