//! Accepts TLS for a server that cannot: on its own port, in front of the server's plaintext port.

use std::io;
use std::net::{Ipv4Addr, TcpListener as Listener};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{Authority, Identity, raise_descriptor_limit};

pub struct Front {
    paused: watch::Sender<bool>,
    /// Dropping it ends the thread, and with it all connections.
    running: Option<oneshot::Sender<()>>,
    ended: Option<std::thread::JoinHandle<()>>,
}

impl Front {
    /// Fails if `port` is taken. With `replicates`, plaintext also reaches the server: replicas and nodes of a cluster use it among
    /// themselves, and know each other by the ports that they announce.
    pub fn start(port: u16, server: u16, tls: &Arc<ServerConfig>, replicates: bool) -> io::Result<Self> {
        let way = Way { server, tls: Arc::clone(tls).into(), replicates };
        raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Sets SO_REUSEADDR as a server does, so that a restarted one gets its port again.
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let (running, stopped) = oneshot::channel();
        let (paused, is_paused) = watch::channel(false);
        let ended = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, way, is_paused) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { paused, running: Some(running), ended: Some(ended) })
    }

    /// Accepts no connection while paused, like a stopped server.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// The TLS configuration that the server's own options ask for.
    pub fn config(identity: &Identity, authority: &Authority, options: &[&str]) -> Arc<ServerConfig> {
        let option = |name| options.iter().skip_while(|&&option| option != name).nth(1).copied();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = match option("--tls-protocols") {
            Some("TLSv1.2") => &[&rustls::version::TLS12][..],
            _ => rustls::ALL_VERSIONS,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = match option("--tls-auth-clients") {
            Some("yes") => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            _ => builder.with_no_client_auth(),
        };
        let (chain, key) = identity.chain_and_key();
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        drop(self.running.take());
        let _ = self.ended.take().map(std::thread::JoinHandle::join);
    }
}

#[derive(Clone)]
struct Way {
    server: u16,
    tls: TlsAcceptor,
    replicates: bool,
}

async fn serve(listener: TcpListener, way: Way, mut paused: watch::Receiver<bool>) {
    let connections = TaskTracker::new();
    loop {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = paused.changed() => continue,
        };
        if let Ok((near, _)) = accepted {
            let way = way.clone();
            connections.spawn(async move {
                let _ = carry(near, way).await;
            });
        }
    }
}

async fn carry(mut near: TcpStream, way: Way) -> io::Result<()> {
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, way.server)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut first = [0];
    near.peek(&mut first).await?;
    // A TLS record of type "handshake".
    if way.replicates && first != [0x16] {
        copy_bidirectional(&mut near, &mut far).await?;
    } else {
        copy_bidirectional(&mut way.tls.accept(near).await?, &mut far).await?;
    }
    Ok(())
}
