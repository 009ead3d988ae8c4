//! What an endpoint accepts and what stands behind it, seen from outside: for `pontoon probe`. Nothing is configured, nothing
//! stays open, and nothing is changed at the server.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::info::Info;
use crate::credentials::Login;
use crate::endpoint::Endpoint;
use crate::resolve::resolve;
use crate::resp::replies::Answer;
use crate::tls::channel::Channel;
use crate::tls::{Certificate, Tls, TlsError};
use crate::upstream::{Cause, Connection, Race, Stage, ask, present};

/// How a record of TLS begins that says why there is no connection.
const TLS_ALERT: [u8; 2] = [0x15, 3];

/// How a server ends a connection without a word.
const CLOSES: [ErrorKind; 3] =
    [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];

/// What was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// That was asked.
    pub endpoint: String,
    /// That its name leads to.
    pub addresses: Vec<SocketAddr>,
    /// The name lookup, in milliseconds.
    pub resolve_ms: f64,
    /// The transit-encryption mode, as ElastiCache calls it.
    pub mode: TransitMode,
    /// What came of an attempt in plaintext.
    pub plaintext: ProbeAttempt,
    /// What came of attempts with each version of TLS, the newest first.
    pub versions: Vec<Version>,
    /// A second connection resumed the first one's session; `None`: there was no first one.
    pub resumption: Option<bool>,
    /// The server's chain, leaf first.
    pub certificates: Vec<Certificate>,
    /// Whether the certificate verifies, by name; the one that a route would verify comes first.
    pub verified: Vec<Verified>,
    /// Why TLS cannot be used with these settings; `None`: it can.
    pub unusable: Option<String>,
    /// What the server says of itself, where it says anything.
    pub server: Option<ServerInfo>,
}

/// The transit-encryption mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransitMode {
    /// Plaintext only.
    Disabled,
    /// Plaintext and TLS.
    Preferred,
    /// TLS only.
    Required,
    /// Neither, or nobody there.
    Unknown,
}

/// An attempt to be understood.
#[derive(Debug, Serialize)]
pub struct ProbeAttempt {
    /// It was.
    pub accepted: bool,
    /// Which of the addresses took the connection.
    pub peer: Option<SocketAddr>,
    /// The TCP connection, in milliseconds, if there was one.
    pub tcp_ms: Option<f64>,
    /// The answer after that, in milliseconds, if there was one.
    pub answer_ms: Option<f64>,
    /// What was answered, or why nothing was.
    pub detail: String,
}

/// An attempt with one version of TLS.
#[derive(Debug, Serialize)]
pub struct Version {
    /// `1.3`, `1.2`.
    pub version: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub attempt: ProbeAttempt,
    /// The cipher suite that was agreed on.
    pub cipher: Option<String>,
    /// The group of the key exchange that was agreed on.
    pub key_exchange: Option<String>,
}

/// Whether the certificate is good for a name.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The name.
    pub name: String,
    /// Why it is not; `None`: it is.
    pub problem: Option<String>,
}

/// What a server says of itself. `None`: it did not say.
#[derive(Debug, Default, Serialize)]
pub struct ServerInfo {
    /// `Redis` or `Valkey`.
    pub engine: Option<&'static str>,
    /// The engine's.
    pub version: Option<String>,
    /// `master` or `slave`, in its own words.
    pub role: Option<String>,
    /// It is a node of a cluster.
    pub cluster: Option<bool>,
    /// It wants AUTH before anything else.
    pub auth_wanted: Option<bool>,
    /// What it said of the credentials that were offered, if it refused them.
    pub auth_refused: Option<String>,
    /// It knows RESET.
    pub reset: Option<bool>,
    /// It knows CLIENT SETINFO.
    pub setinfo: Option<bool>,
    /// Its own count of clients in plaintext (`tls_mode_connected_tcp_clients`), where it has one.
    pub plaintext_clients: Option<u64>,
}

/// How to look.
pub struct ProbeSettings<'a> {
    /// Decides what verifies, and so where a password goes: not one that skips verification.
    pub tls: &'a Tls,
    /// TLS can be used though the certificate does not verify.
    pub accept_any: bool,
    /// Names to verify beside the route's own.
    pub names: &'a [ServerName<'static>],
    /// Sent over TLS that verifies.
    pub login: Option<&'a Login>,
    /// Each step's.
    pub timeout: Duration,
}

/// Looks at `endpoint`.
pub async fn probe(endpoint: &Endpoint, looking: &ProbeSettings<'_>) -> Result<Findings, Cause> {
    let ProbeSettings { tls, timeout, .. } = *looking;
    let began = Instant::now();
    let addresses = within(timeout, Stage::Resolve, async { Ok(resolve(endpoint).await?) }).await?;
    let resolve_ms = ms(began);
    let probe = Probe { endpoint: Arc::new(endpoint.clone()), addresses, tls, timeout };

    let plaintext = probe.plaintext().await;
    // Together: a server that is silent to one costs its timeout once, and may yet answer the other.
    let (newest, oldest) =
        tokio::join!(probe.look(tls.for_a_look(&TLS13)), probe.look(tls.for_a_look(&TLS12)));
    // Without a connection the words are our own.
    let spoken = [&newest, &oldest]
        .iter()
        .any(|look| matches!(look, Ok(_) | Err(Failed { cause: Cause::Tls(_), reached: Some(_) })));
    let versions = vec![version("1.3", &newest), version("1.2", &oldest)];
    // Of two refusals the one that speaks of TLS says more.
    let look = match (newest, oldest) {
        (Ok(look), _) | (_, Ok(look)) => Ok(look),
        (Err(Failed { cause: cause @ Cause::Tls(_), .. }), _) | (_, Err(Failed { cause, .. })) => Err(cause),
    };
    let mode = match (plaintext.accepted, spoken) {
        (true, false) => TransitMode::Disabled,
        (true, true) => TransitMode::Preferred,
        (false, true) => TransitMode::Required,
        (false, false) => TransitMode::Unknown,
    };
    let mut findings = Findings {
        endpoint: endpoint.to_string(),
        addresses: probe.addresses.clone(),
        resolve_ms,
        mode,
        plaintext,
        versions,
        resumption: None,
        certificates: Vec::new(),
        verified: Vec::new(),
        unusable: None,
        server: None,
    };
    match look {
        Ok(look) => probe.over_tls(look, looking, &mut findings).await,
        Err(cause) => {
            findings.unusable = Some(cause.to_string());
            if findings.plaintext.accepted
                && let Ok(mut connection) = probe.connect().await
            {
                findings.server = within(timeout, Stage::Greeting, server(&mut connection, None)).await.ok();
            }
        }
    }
    Ok(findings)
}

/// Where an endpoint's name leads, in order.
pub async fn addresses(endpoint: &Endpoint, timeout: Duration) -> Result<Vec<SocketAddr>, Cause> {
    within(timeout, Stage::Resolve, async { Ok(resolve(endpoint).await?) }).await
}

/// Whether a server answers PING in plaintext at `address`, and not with the end of the connection or an alert of TLS. `Err`: neither, and why
/// that is.
pub(super) async fn accepts_plaintext(
    endpoint: Arc<Endpoint>,
    address: SocketAddr,
    timeout: Duration,
) -> Result<bool, String> {
    let unknown = |cause: &Cause| format!("an attempt in plaintext failed: {cause}");
    let (stream, peer) = tcp(vec![address], timeout).await.map_err(|cause| unknown(&cause))?;
    let mut connection = Connection::new(stream, None, Vec::new(), endpoint, peer);
    match within(timeout, Stage::Greeting, ask(&mut connection, &["PING"])).await {
        Ok(_) => Ok(true),
        Err(Cause::NotRedis(_)) if connection.unread.starts_with(&TLS_ALERT) => Ok(false),
        // What has come in part may be an answer.
        Err(Cause::Closed) if connection.unread.is_empty() => Ok(false),
        Err(Cause::Io(error)) if connection.unread.is_empty() && CLOSES.contains(&error.kind()) => Ok(false),
        Err(cause) => Err(unknown(&cause)),
    }
}

async fn tcp(addresses: Vec<SocketAddr>, timeout: Duration) -> Result<(TcpStream, SocketAddr), Cause> {
    within(timeout, Stage::Tcp, async {
        let mut race = Race::new(addresses);
        let mut last = Cause::Closed;
        while let Some(connected) = race.next().await {
            match connected {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    })
    .await
}

struct Probe<'a> {
    endpoint: Arc<Endpoint>,
    addresses: Vec<SocketAddr>,
    tls: &'a Tls,
    timeout: Duration,
}

/// A TLS connection with a server that may be anybody.
struct TlsLook {
    connection: Connection,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    reached: Reached,
    tls_ms: f64,
}

struct Failed {
    cause: Cause,
    reached: Option<Reached>,
}

/// A TCP connection that there was.
#[derive(Clone, Copy)]
struct Reached {
    peer: SocketAddr,
    tcp_ms: f64,
}

impl Probe<'_> {
    async fn connect(&self) -> Result<Connection, Cause> {
        let (stream, peer) = self.tcp().await?;
        Ok(Connection::new(stream, None, Vec::new(), Arc::clone(&self.endpoint), peer))
    }

    async fn tcp(&self) -> Result<(TcpStream, SocketAddr), Cause> {
        tcp(self.addresses.clone(), self.timeout).await
    }

    async fn plaintext(&self) -> ProbeAttempt {
        let began = Instant::now();
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(cause) => return ProbeAttempt::failed(None, cause.to_string()),
        };
        let reached = Reached { peer: connection.peer, tcp_ms: ms(began) };
        let began = Instant::now();
        let answer = within(self.timeout, Stage::Greeting, ask(&mut connection, &["PING"])).await;
        match answer {
            Ok(answer) => ProbeAttempt::made(reached, ms(began), words(answer)),
            Err(Cause::NotRedis(_)) if connection.unread.starts_with(&TLS_ALERT) => {
                ProbeAttempt::failed(Some(reached), "a TLS alert".into())
            }
            Err(Cause::TimedOut { .. }) => ProbeAttempt::failed(Some(reached), "no answer to PING".into()),
            Err(cause) => ProbeAttempt::failed(Some(reached), cause.to_string()),
        }
    }

    async fn look(&self, config: Result<Arc<ClientConfig>, TlsError>) -> Result<TlsLook, Failed> {
        let failed = |reached| move |cause| Failed { cause, reached };
        let unfit = |error: TlsError| Failed { cause: Cause::Tls(error.to_string()), reached: None };
        let config = config.map_err(unfit)?;
        let name = self.tls.server_name(&self.endpoint).map_err(unfit)?;
        let began = Instant::now();
        let (mut stream, peer) = self.tcp().await.map_err(failed(None))?;
        let reached = Reached { peer, tcp_ms: ms(began) };
        let began = Instant::now();
        let handshake =
            async { Ok(Channel::handshake(Arc::clone(&config), name.clone(), &mut stream).await?) };
        let (channel, early) =
            within(self.timeout, Stage::Tls, handshake).await.map_err(failed(Some(reached)))?;
        let connection = Connection::new(stream, Some(channel), early, Arc::clone(&self.endpoint), peer);
        Ok(TlsLook { connection, config, name, reached, tls_ms: ms(began) })
    }

    async fn over_tls(&self, mut look: TlsLook, looking: &ProbeSettings<'_>, findings: &mut Findings) {
        let chain: Vec<CertificateDer<'static>> = look.chain();
        findings.certificates = chain.iter().filter_map(Certificate::read).collect();
        let verify = |name: &ServerName<'_>| Verified {
            name: name.to_str().into_owned(),
            problem: self.tls.verify(&chain, name).err(),
        };
        let own = verify(&look.name);
        let trusted = own.problem.is_none();
        findings.unusable = own.problem.clone().filter(|_| !looking.accept_any);
        let others = looking.names.iter().filter(|name| **name != look.name);
        findings.verified = std::iter::once(own).chain(others.map(verify)).collect();
        let login = looking.login.filter(|_| trusted);
        let asked = server(&mut look.connection, login);
        match within(self.timeout, Stage::Greeting, asked).await {
            Ok(server) => findings.server = Some(server),
            // A server that asks for a client certificate says so only now, with TLS 1.3.
            Err(cause) => {
                findings.unusable.get_or_insert(cause.to_string());
            }
        }
        let again = self.look(Ok(look.config)).await;
        findings.resumption = again.ok().map(|look| look.kind() == Some(HandshakeKind::Resumed));
    }
}

impl ProbeAttempt {
    fn made(reached: Reached, answer_ms: f64, detail: String) -> Self {
        Self { accepted: true, answer_ms: Some(answer_ms), ..Self::failed(Some(reached), detail) }
    }

    fn failed(reached: Option<Reached>, detail: String) -> Self {
        let (peer, tcp_ms) = (reached.map(|to| to.peer), reached.map(|to| to.tcp_ms));
        Self { accepted: false, peer, tcp_ms, answer_ms: None, detail }
    }
}

impl TlsLook {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        let state = self.connection.channel.as_ref().map(Channel::state);
        let chain = state.and_then(|state| state.peer_certificates()).unwrap_or_default();
        chain.iter().map(|certificate| certificate.clone().into_owned()).collect()
    }

    fn kind(&self) -> Option<HandshakeKind> {
        self.connection.channel.as_ref()?.state().handshake_kind()
    }
}

fn version(version: &'static str, look: &Result<TlsLook, Failed>) -> Version {
    match look {
        Ok(look) => {
            let state = look.connection.channel.as_ref().map(Channel::state);
            let cipher = state.and_then(rustls::CommonState::negotiated_cipher_suite);
            let group = state.and_then(rustls::CommonState::negotiated_key_exchange_group);
            Version {
                version,
                attempt: ProbeAttempt::made(look.reached, look.tls_ms, "offered".into()),
                cipher: cipher.and_then(|suite| suite.suite().as_str()).map(str::to_owned),
                key_exchange: group.map(|group| format!("{:?}", group.name())),
            }
        }
        Err(Failed { cause, reached }) => Version {
            version,
            attempt: ProbeAttempt::failed(*reached, cause.to_string()),
            cipher: None,
            key_exchange: None,
        },
    }
}

/// Asks what it is and what it knows. Whatever it declines to say stays `None`; an error is the connection's.
async fn server(connection: &mut Connection, login: Option<&Login>) -> Result<ServerInfo, Cause> {
    let mut server = ServerInfo::default();
    if let Some(login) = login {
        server.auth_refused = present(login, connection).await?;
    }
    let pong = ask(connection, &["PING"]).await?;
    server.auth_wanted = match &pong {
        Answer::Error(words) if words.starts_with("NOAUTH") => Some(true),
        Answer::Error(_) => None,
        // A server without a password would have refused one.
        _ => Some(login.is_some() && server.auth_refused.is_none()),
    };
    match (questions(connection, &mut server).await, pong) {
        // Protected mode, or as many clients as there may be: it said why it closes.
        (Err(Cause::Closed | Cause::Io(_)), Answer::Error(words)) => Err(Cause::Refused(words)),
        (asked, _) => asked.map(|()| server),
    }
}

async fn questions(connection: &mut Connection, server: &mut ServerInfo) -> Result<(), Cause> {
    if let Answer::Text(text) = ask(connection, &["INFO"]).await? {
        let info = Info(&text);
        server.engine = info.engine().map(|(engine, _)| engine);
        server.version = info.engine().map(|(_, version)| version.to_owned());
        server.role = info.field("role").map(str::to_owned);
        server.cluster = match (info.field("cluster_enabled"), info.mode()) {
            (Some(enabled), _) => Some(enabled == "1"),
            (None, mode) => mode.map(|mode| mode == "cluster"),
        };
        server.plaintext_clients =
            info.field("tls_mode_connected_tcp_clients").and_then(|count| count.parse().ok());
    }
    server.setinfo = knows(&ask(connection, &["CLIENT", "SETINFO", "LIB-NAME", "pontoon"]).await?);
    server.reset = knows(&ask(connection, &["RESET"]).await?);
    Ok(())
}

/// Whether a command is known, as far as the answer tells: one that is not allowed may be.
fn knows(answer: &Answer) -> Option<bool> {
    match answer {
        Answer::Error(words) if words.to_ascii_lowercase().contains("unknown") => Some(false),
        Answer::Error(_) => None,
        _ => Some(true),
    }
}

fn words(answer: Answer) -> String {
    match answer {
        Answer::Text(words) | Answer::Error(words) => words,
        Answer::Number(number) => number.to_string(),
        Answer::Other => "an answer of another type".into(),
    }
}

async fn within<T>(
    timeout: Duration,
    stage: Stage,
    work: impl Future<Output = Result<T, Cause>>,
) -> Result<T, Cause> {
    timeout_at(Instant::now() + timeout, work).await.unwrap_or(Err(Cause::TimedOut { after: timeout, stage }))
}

fn ms(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
