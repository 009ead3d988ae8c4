//! Examines from outside what an endpoint accepts and which server answers, for `pontoon probe`. It configures nothing, leaves no
//! connection open, and changes nothing on the server.

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

/// Start of a TLS alert record.
const TLS_ALERT: [u8; 2] = [0x15, 3];

/// Errors that mean that the server closed the connection.
const CLOSES: [ErrorKind; 3] =
    [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe];

/// The findings.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The endpoint that was asked.
    pub endpoint: String,
    /// The addresses of its name.
    pub addresses: Vec<SocketAddr>,
    /// Duration of the name lookup in milliseconds.
    pub resolve_ms: f64,
    /// The transit encryption mode, as ElastiCache calls it.
    pub mode: TransitMode,
    /// Result of the attempt in plaintext.
    pub plaintext: ProbeAttempt,
    /// Results of the attempts with each TLS version, newest first.
    pub versions: Vec<Version>,
    /// Whether a second connection resumed the TLS session; `None` if there was no first connection.
    pub resumption: Option<bool>,
    /// The server's certificate chain, leaf first.
    pub certificates: Vec<Certificate>,
    /// Whether the certificate verifies for each name. The name that a route would verify comes first.
    pub verified: Vec<Verified>,
    /// The problem that prevents TLS with these settings, if any.
    pub unusable: Option<String>,
    /// What the server reports about itself, if anything.
    pub server: Option<ServerInfo>,
}

/// The transit encryption mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TransitMode {
    /// Plaintext only.
    Disabled,
    /// Plaintext and TLS.
    Preferred,
    /// TLS only.
    Required,
    /// The server accepts neither, or does not answer.
    Unknown,
}

/// An attempt to talk to the server.
#[derive(Debug, Serialize)]
pub struct ProbeAttempt {
    /// Whether the server answered in this protocol.
    pub accepted: bool,
    /// The address that accepted the connection.
    pub peer: Option<SocketAddr>,
    /// Time to connect over TCP, in milliseconds; `None` if that failed.
    pub tcp_ms: Option<f64>,
    /// Time from the TCP connection to the answer, in milliseconds; `None` without an answer.
    pub answer_ms: Option<f64>,
    /// The answer, or why there was none.
    pub detail: String,
}

/// An attempt with one TLS version.
#[derive(Debug, Serialize)]
pub struct Version {
    /// `1.3` or `1.2`.
    pub version: &'static str,
    /// The result.
    #[serde(flatten)]
    pub attempt: ProbeAttempt,
    /// The negotiated cipher suite.
    pub cipher: Option<String>,
    /// The negotiated key exchange group.
    pub key_exchange: Option<String>,
}

/// Whether the certificate verifies for a name.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// The name.
    pub name: String,
    /// The problem, if the certificate does not verify for the name.
    pub problem: Option<String>,
}

/// What a server reports about itself. A field is `None` if the server did not say.
#[derive(Debug, Default, Serialize)]
pub struct ServerInfo {
    /// `Redis` or `Valkey`.
    pub engine: Option<&'static str>,
    /// The engine's version.
    pub version: Option<String>,
    /// `master` or `slave`, as the server reports it.
    pub role: Option<String>,
    /// Whether it is a cluster node.
    pub cluster: Option<bool>,
    /// Whether it requires AUTH before any other command.
    pub auth_wanted: Option<bool>,
    /// Its error for the credentials that were sent, if it refused them.
    pub auth_refused: Option<String>,
    /// Whether it supports RESET.
    pub reset: Option<bool>,
    /// Whether it supports CLIENT SETINFO.
    pub setinfo: Option<bool>,
    /// Its own count of clients in plaintext (`tls_mode_connected_tcp_clients`), if it has one.
    pub plaintext_clients: Option<u64>,
}

/// How to examine an endpoint.
pub struct ProbeSettings<'a> {
    /// Verifies certificates, and so decides where a password may be sent. Must not be one that skips verification.
    pub tls: &'a Tls,
    /// Accept TLS although the certificate does not verify.
    pub accept_any: bool,
    /// Names to verify beside the route's own name.
    pub names: &'a [ServerName<'static>],
    /// Credentials, sent only over verified TLS.
    pub login: Option<&'a Login>,
    /// Timeout of each step.
    pub timeout: Duration,
}

/// Examines `endpoint`.
pub async fn probe(endpoint: &Endpoint, looking: &ProbeSettings<'_>) -> Result<Findings, Cause> {
    let ProbeSettings { tls, timeout, .. } = *looking;
    let began = Instant::now();
    let addresses = within(timeout, Stage::Resolve, async { Ok(resolve(endpoint).await?) }).await?;
    let resolve_ms = ms(began);
    let probe = Probe { endpoint: Arc::new(endpoint.clone()), addresses, tls, timeout };

    let plaintext = probe.plaintext().await;
    // Run both together: a server that answers neither costs its timeout once, and one may answer although the other does not.
    let (newest, oldest) =
        tokio::join!(probe.look(tls.for_a_look(&TLS13)), probe.look(tls.for_a_look(&TLS12)));
    // An error without a connection is our own, not the server's.
    let spoken = [&newest, &oldest]
        .iter()
        .any(|look| matches!(look, Ok(_) | Err(Failed { cause: Cause::Tls(_), reached: Some(_) })));
    let versions = vec![version("1.3", &newest), version("1.2", &oldest)];
    // Of two errors, keep the one about TLS, which says more.
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

/// Returns the addresses of an endpoint's name, in order.
pub async fn addresses(endpoint: &Endpoint, timeout: Duration) -> Result<Vec<SocketAddr>, Cause> {
    within(timeout, Stage::Resolve, async { Ok(resolve(endpoint).await?) }).await
}

/// Whether a server answers PING in plaintext at `address`. `Ok(false)` means that it closed the connection or sent a TLS alert. `Err` says
/// why neither happened.
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
        // Bytes that arrived may be part of an answer.
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

/// A TLS connection with a server that is not verified.
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

/// A TCP connection that was established.
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
            // With TLS 1.3, a server that requires a client certificate fails only now.
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
                key_exchange: group.and_then(|group| group.name().as_str()).map(str::to_owned),
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

/// Asks a server what it is and which commands it knows. A field stays `None` if the server does not say. An error is that of the
/// connection.
async fn server(connection: &mut Connection, login: Option<&Login>) -> Result<ServerInfo, Cause> {
    let mut server = ServerInfo::default();
    if let Some(login) = login {
        server.auth_refused = present(login, connection).await?;
    }
    let pong = ask(connection, &["PING"]).await?;
    server.auth_wanted = match &pong {
        Answer::Error(words) if words.starts_with("NOAUTH") => Some(true),
        Answer::Error(_) => None,
        // A server without a password would have refused AUTH.
        _ => Some(login.is_some() && server.auth_refused.is_none()),
    };
    match (questions(connection, &mut server).await, pong) {
        // In protected mode, or at maxclients, the server's error said why it closes the connection.
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

/// Whether the server knows a command; `None` if the error does not say, because a command that is not allowed may exist.
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
        Answer::Other => "unexpected reply type".into(),
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
