//! Runs the conversation, and creates its certificates, endpoint and bridge.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::endpoint::{DemoEndpoint, Identity};
use crate::app::{App, Shutdown};
use crate::commands::colour::Tint;
use crate::commands::run::NotStarted;
use crate::config::Config;
use crate::endpoint::ListenAddr;
use crate::listener::Inherited;
use crate::metrics;
use crate::printable::printable;
use crate::resp::replies::{Answer, decode_answer, encode_command};

/// The text that the demonstration searches for on the wire, and must not find.
const SECRET: &str = "hello-from-a-client-without-TLS";

/// Timeout for an answer. On loopback it takes much less.
const DEMO_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the conversation. With `serve`, keeps endpoint and bridge running until interrupted.
pub fn run(serve: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(demonstrate(serve))
}

async fn demonstrate(serve: bool) -> anyhow::Result<()> {
    let directory = PrivateDirectory::create().context("cannot create a temporary directory for the CA")?;
    let (trusted, identity) = authority("pontoon demo CA")?;
    let (stranger, _) = authority("some other CA")?;
    let ca_file = directory.write("ca.pem", &trusted)?;
    let other_file = directory.write("other-ca.pem", &stranger)?;
    let endpoint = DemoEndpoint::start(identity).await?;
    let port = endpoint.address().port();

    let config = format!(
        "[admin]\nlisten = \"off\"\n\
         [[route]]\nname = \"demo\"\nlisten = \"127.0.0.1:0\"\nupstream = \"localhost:{port}\"\n\
         tls.ca_files = \"{}\"\nlimits.max_clients = 100\n\
         [[route]]\nname = \"wrong-ca\"\nlisten = \"127.0.0.1:0\"\nupstream = \"localhost:{port}\"\n\
         tls.ca_files = \"{}\"\nlimits.max_clients = 100\n",
        ca_file.display(),
        other_file.display()
    );
    let config = Config::from_toml("demo", &config)?;
    let app = App::bind(config.clone(), Inherited::default(), metrics::install()?).map_err(NotStarted)?;
    let listeners = app.listeners();
    let shutdown = Shutdown::new();
    let conversation = async {
        let result = converse(&endpoint, tcp(&listeners[0].1)?, tcp(&listeners[1].1)?).await;
        if serve && result.is_ok() {
            say!(
                "\nServing until Ctrl-C. In another terminal:\n\n  redis-cli -p {}",
                tcp(&listeners[0].1)?.port()
            );
            interrupted().await?;
        }
        shutdown.quit();
        result
    };
    let ((), result) = tokio::join!(app.run(&shutdown, Box::new(move || Ok(config.clone()))), conversation);
    result
}

async fn interrupted() -> io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

async fn converse(endpoint: &DemoEndpoint, bridge: SocketAddr, untrusting: SocketAddr) -> anyhow::Result<()> {
    say!("1. A Redis endpoint that accepts only TLS   127.0.0.1:{}", endpoint.address().port());
    say!("2. pontoon in front of it                   {bridge}");
    say!("3. A client without TLS talks to pontoon:\n");
    let mut client = DemoClient::connect(bridge).await?;
    for command in [&["PING"][..], &["SET", "greeting", SECRET], &["GET", "greeting"], &["INCR", "visits"]] {
        client.say(command).await?;
    }

    let wire = endpoint.tap();
    let seen = wire.bytes();
    say!("\n4. The same conversation between pontoon and the endpoint, {} bytes on the wire:\n", seen.len());
    let record = application_data(&seen).context("no TLS application data found on the wire")?;
    let hex: Vec<String> = record.iter().take(24).map(|byte| format!("{byte:02x}")).collect();
    say!("   {} …", hex.join(" "));
    say!("   (17 03 03: a TLS record with application data)");
    if seen.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
        bail!("found the value in plaintext on the wire");
    }
    say!("   \"{SECRET}\" is not in these bytes.");

    say!("\n5. A bridge that trusts another CA refuses the endpoint, and its client receives the reason:\n");
    DemoClient::connect(untrusting).await?.say(&["GET", "greeting"]).await?;
    let result = "The demonstration worked: the client used plaintext, and the network carried only TLS.";
    say!("\n{}", Tint::Good.paint(result));
    say!("Next: pontoon check --upstream YOUR-ENDPOINT:6379");
    Ok(())
}

/// Returns the bytes from the first TLS record with application data.
fn application_data(wire: &[u8]) -> Option<&[u8]> {
    wire.windows(3).position(|header| header == [0x17, 3, 3]).map(|at| &wire[at..])
}

/// A minimal client without TLS.
struct DemoClient {
    stream: TcpStream,
    received: Vec<u8>,
}

impl DemoClient {
    async fn connect(bridge: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { stream: TcpStream::connect(bridge).await?, received: Vec::new() })
    }

    async fn say(&mut self, command: &[&str]) -> anyhow::Result<()> {
        say!("   > {}", command.join(" "));
        self.stream.write_all(&encode_command(command)).await?;
        let answer =
            timeout(DEMO_ANSWER_TIMEOUT, self.answer()).await.context("no answer from the bridge")??;
        match answer {
            Answer::Text(text) => say!("   < {}", printable(&text)),
            Answer::Error(text) => say!("   < (error) {}", printable(&text)),
            Answer::Number(number) => say!("   < (integer) {number}"),
            Answer::Other => bail!("unexpected reply type"),
        }
        Ok(())
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        loop {
            if let Some((answer, length)) = decode_answer(&self.received).map_err(anyhow::Error::msg)? {
                self.received.drain(..length);
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the bridge closed the connection");
            }
        }
    }
}

fn tcp(address: &ListenAddr) -> anyhow::Result<SocketAddr> {
    match address {
        ListenAddr::Tcp(address) => Ok(*address),
        ListenAddr::Unix { .. } => bail!("the demonstration listens on TCP"),
    }
}

/// Returns a CA's certificate in PEM, and a server's chain and key that the CA signed.
fn authority(name: &str) -> Result<(String, Identity), rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, name);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let leaf =
        CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
    Ok((ca_certificate.pem(), Identity { chain: vec![leaf.into()], key: key.into() }))
}

/// A temporary directory that no other user can read, removed when dropped.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!(
            "pontoon-demo-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, content: &str) -> io::Result<PathBuf> {
        let path = Path::new(&self.0).join(name);
        fs::write(&path, content)?;
        Ok(path)
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
