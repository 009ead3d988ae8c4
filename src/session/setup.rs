//! What a client has set up on its connection: protocol, database, names. A session that did no more can move to another connection, which
//! is set up the same way.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::user::ClientUser;
use crate::resp::arguments::MAX_CLIENT_INFO;
use crate::resp::client_requests::marked;
use crate::resp::replies::encode_command;
use crate::upstream::{self, Connection};

/// A connection whose set-up takes longer is not used.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClientSetup {
    pub(super) key: SharingKey,
    pub(super) name: Vec<u8>,
    pub(super) library: Vec<u8>,
    pub(super) version: Vec<u8>,
}

/// The state of a connection that clients can see. Clients share connections with the same key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct SharingKey {
    pub(super) resp3: bool,
    pub(super) database: u32,
    /// READONLY was accepted.
    pub(super) replica: bool,
    /// The user that the client authenticated as, if pontoon keeps it.
    pub(super) user: Option<Arc<ClientUser>>,
}

/// A command that sets up a connection.
pub(super) struct SetupStep {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Older engines refuse it. They have refused it to the client, too.
    pub(super) may_fail: bool,
}

/// Sets up a connection. The error is the server's reply, if the server refused.
pub(super) async fn set_up(connection: &mut Connection, steps: &[SetupStep]) -> Result<(), Option<Vec<u8>>> {
    for SetupStep { bytes, may_fail } in steps {
        let reply = upstream::ask_frame(connection, bytes).await.map_err(|_| None)?;
        if reply.starts_with(b"-") && !may_fail {
            return Err(Some(reply));
        }
    }
    Ok(())
}

impl ClientSetup {
    /// The set-up without the library, which only others can see.
    pub(super) fn of_the_client(&self) -> Self {
        Self { library: Vec::new(), version: Vec::new(), ..self.clone() }
    }

    /// The commands to send on a new connection. `None`: a value was too long to keep, or is not text.
    pub(super) fn steps(&self) -> Option<Vec<SetupStep>> {
        let text = |bytes: &[u8]| {
            // A value that was cut has this length.
            (bytes.len() != MAX_CLIENT_INFO).then(|| String::from_utf8(bytes.to_vec()).ok()).flatten()
        };
        let (name, library, version) = (text(&self.name)?, text(&self.library)?, text(&self.version)?);
        let authenticates =
            |user: &Arc<ClientUser>| SetupStep { bytes: user.auth().clone(), may_fail: false };
        let mut steps: Vec<SetupStep> = self.key.user.iter().map(authenticates).collect();
        let mut step = |needed: bool, may_fail: bool, words: &[&str]| {
            if needed {
                steps.push(SetupStep { bytes: encode_command(words).into(), may_fail });
            }
        };
        step(self.key.resp3, false, &["HELLO", "3"]);
        let marked = String::from_utf8_lossy(&marked(library.as_bytes())).into_owned();
        step(!library.is_empty(), true, &["CLIENT", "SETINFO", "LIB-NAME", &marked]);
        step(!version.is_empty(), true, &["CLIENT", "SETINFO", "LIB-VER", &version]);
        step(!name.is_empty(), false, &["CLIENT", "SETNAME", &name]);
        step(self.key.database != 0, false, &["SELECT", &self.key.database.to_string()]);
        step(self.key.replica, false, &["READONLY"]);
        Some(steps)
    }

    /// Notes that the server has accepted RESET.
    pub(super) fn reset(&mut self) {
        let (library, version) = (std::mem::take(&mut self.library), std::mem::take(&mut self.version));
        *self = Self { library, version, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_up_repeats_what_the_client_did_user_and_protocol_first() {
        assert!(ClientSetup::default().steps().unwrap().is_empty());
        let user = ClientUser::of(&[b"app", b"secret"]).map(Arc::new);
        let key = SharingKey { resp3: true, database: 3, user, ..SharingKey::default() };
        let setup = ClientSetup { key, name: b"shop".into(), ..ClientSetup::default() };
        let steps: Vec<u8> = setup.steps().unwrap().iter().flat_map(|step| step.bytes.to_vec()).collect();
        let expected = [
            encode_command(&["AUTH", "app", "secret"]),
            encode_command(&["HELLO", "3"]),
            encode_command(&["CLIENT", "SETNAME", "shop"]),
            encode_command(&["SELECT", "3"]),
        ];
        assert_eq!(steps, expected.concat());
    }

    #[test]
    fn a_library_name_is_set_up_with_the_mark() {
        let setup = ClientSetup { library: b"redis-py(rq_v1)".into(), ..ClientSetup::default() };
        let steps = setup.steps().unwrap();
        let expected = encode_command(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py(rq_v1;pontoon)"]);
        assert_eq!(*steps[0].bytes, expected);
    }

    #[test]
    fn a_cut_or_binary_name_cannot_be_set_up() {
        assert!(
            ClientSetup { name: vec![b'x'; MAX_CLIENT_INFO], ..ClientSetup::default() }.steps().is_none()
        );
        assert!(ClientSetup { name: vec![0xff], ..ClientSetup::default() }.steps().is_none());
    }
}
